"""Checking that a webhook comes from the service (standardwebhooks.com), and reading it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from .answers import Job, WebhookSecret


@dataclass(frozen=True)
class WebhookEvent:
    """The content of a webhook."""

    #: The same at each delivery of the event.
    id: str
    type: str
    timestamp: datetime
    #: The job that has ended, with its items; None if `type` is not "job.finished".
    job: Job | None


def verify_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | WebhookSecret,
    *,
    tolerance: float = 300,
    now: float | None = None,
) -> str:
    """The id of a webhook, the same at each delivery; ValueError if the webhook is not from the service.

    body is the body as bytes or as text, unchanged; secret is the result of `webhook_secret()`, or its text.
    tolerance is how many seconds the clocks may differ, and bounds the age of a webhook. now is in seconds
    since 1970; the default is the clock's time."""
    if not isinstance(body, bytes | bytearray | str):
        raise TypeError(f"the body of a webhook must be bytes or text, not {type(body).__name__}")
    text = secret.secret if isinstance(secret, WebhookSecret) else secret
    names = {name.lower(): value for name, value in headers.items()}
    try:
        ident, sent, signatures = (names[f"webhook-{name}"] for name in ("id", "timestamp", "signature"))
        age = (time.time() if now is None else now) - int(sent)
        key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
        content = body.encode() if isinstance(body, str) else body
        signed, given = f"{ident}.{sent}.".encode() + content, signatures.encode()
    except (KeyError, ValueError, OverflowError) as cause:
        raise ValueError("this is not a webhook, or its secret is not one") from cause
    if not key:
        raise ValueError("the webhook secret is empty; get it with webhook_secret()")
    if abs(age) > tolerance:
        raise ValueError("the webhook is too old, or the clocks differ")
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest())
    for signature in given.split():
        version, _, value = signature.partition(b",")
        # Compare bytes, because text that is not ASCII would be a TypeError.
        if version == b"v1" and hmac.compare_digest(value, expected):
            return ident
    raise ValueError("the webhook is not signed with this secret")


def parse_webhook(
    body: bytes | str,
    headers: Mapping[str, str],
    secret: str | WebhookSecret,
    *,
    tolerance: float = 300,
    now: float | None = None,
) -> WebhookEvent:
    """The content of a webhook. The parameters and errors are the same as verify_webhook's."""
    ident = verify_webhook(body, headers, secret, tolerance=tolerance, now=now)
    try:
        document = json.loads(body)
        job = Job.parse(document["data"]) if document["type"] == "job.finished" else None
        return WebhookEvent(ident, document["type"], datetime.fromisoformat(document["timestamp"]), job)
    except (ValueError, LookupError, TypeError) as cause:
        raise ValueError("this client cannot read the webhook's content") from cause
