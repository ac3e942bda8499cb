"""Checking that a webhook comes from the service (standardwebhooks.com)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Mapping


def verify_webhook(
    body: bytes, headers: Mapping[str, str], secret: str, *, tolerance: float = 300, now: float | None = None
) -> str:
    """The id of a webhook, which is the same each time it is told; ValueError if it is not from the service.

    body are the bytes as they came, secret is that of `webhook_secret()`; tolerance is how many seconds the
    clocks may be apart, and bounds how old a webhook may be.
    """
    names = {name.lower(): value for name, value in headers.items()}
    try:
        ident, sent, signatures = (names[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        age = (time.time() if now is None else now) - int(sent)
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (KeyError, ValueError) as cause:
        raise ValueError("this is not a webhook, or its secret is not one") from cause
    if abs(age) > tolerance:
        raise ValueError("the webhook is too old, or the clocks are apart")
    expected = hmac.new(key, f"{ident}.{sent}.".encode() + body, hashlib.sha256).digest()
    for signature in signatures.split():
        version, _, value = signature.partition(",")
        if version == "v1" and hmac.compare_digest(value, base64.b64encode(expected).decode()):
            return ident
    raise ValueError("the webhook is not signed with this secret")
