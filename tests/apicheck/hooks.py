"""Hooks for Schemathesis: pictures, things that exist, and rules that no description of the API can state.

What is generated is changed only where it would be refused for a reason that no schema tells; each such rule
is in the documentation of the API. How each operation was answered is written to a file at the end.
"""

from __future__ import annotations

import atexit
import base64
import collections
import json
import os
import random
import re
import struct
import threading
import uuid
import zlib
from pathlib import Path

import schemathesis
from hypothesis import strategies as st
from schemathesis.core.parameters import ParameterLocation
from schemathesis.transport.serialization import Binary

MAX_PHRASES = 32  # unless the service is configured otherwise, so it is not in the schema
CHUNK = struct.Struct(">I")


def png(width: int, height: int, colour: tuple[int, int, int]) -> bytes:
    """A picture of one colour, width x height pixels of RGB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return CHUNK.pack(len(data)) + kind + data + CHUNK.pack(zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\x00" + bytes(colour) * width) * height
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def any_png() -> bytes:
    return png(random.randint(1, 32), random.randint(1, 32), tuple(random.randbytes(3)))


sides = st.integers(1, 32)
levels = st.integers(0, 255)
pictures = st.builds(png, sides, sides, st.tuples(levels, levels, levels))
for media_type in ("image/*", "application/octet-stream"):
    schemathesis.openapi.media_type(media_type, pictures)
schemathesis.openapi.format("binary", pictures)

lock = threading.Lock()
jobs: collections.deque[str] = collections.deque(maxlen=64)
images: collections.deque[str] = collections.deque(maxlen=64)
answers: dict[str, collections.Counter[int]] = collections.defaultdict(collections.Counter)


def is_json(data: object) -> bool:
    return isinstance(data, dict)


def use_picture(image: dict | None, by_id: bool) -> None:
    """Random bytes are not a picture, a random id is not the id of an image, and the checked service fetches
    nothing."""
    if image is None:
        return
    if by_id and "id" in image and images:
        if random.random() < 0.7:
            image["id"] = random.choice(images)
    elif not ("id" in image and by_id):
        image.clear()
        image["data"] = base64.b64encode(any_png()).decode()


def use_common(fields: dict) -> None:
    """The variant must be loaded, a request without a job has no webhook, and an overlay has the size of the
    picture."""
    if "variant" in fields:
        fields["variant"] = "null"  # startNull in tests/
    fields.pop("webhook", None)
    if "overlay" in str(fields.get("format", "")):
        fields.pop("size", None)


def named(phrase: str) -> str:
    """A phrase without letters and digits may be empty for a tokenizer."""
    return "x" + phrase


def positive(case, location: ParameterLocation) -> bool:
    """Whether a part of a case was generated to be valid; other parts stay as they are."""
    part = case.meta.components.get(location) if case.meta else None
    return part is None or part.mode.is_positive


@schemathesis.hook
def before_call(context, case, **kwargs) -> None:
    path = case.operation.path
    if "Idempotency-Key" in case.headers and positive(case, ParameterLocation.HEADER):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())  # a key that another request has used is refused
    parameters = case.path_parameters
    if "id" in parameters and positive(case, ParameterLocation.PATH) and random.random() < 0.7:
        known = jobs if path.startswith("/v1/jobs") else images
        if known:
            parameters["id"] = random.choice(known)
        if "index" in parameters:
            parameters["index"] = "0"
    query = case.query
    if path == "/v1/usage" and positive(case, ParameterLocation.QUERY):
        query.pop("from", None)  # it must not be after to
    if path == "/v1/segment":
        use_query(case)
    if is_json(case.body) and positive(case, ParameterLocation.BODY):
        if case.media_type == "multipart/form-data":
            use_form(case.body, path)
        else:
            use_json(case.body, path)
    # Otherwise every body with bytes would count as invalid from now on, because it has been changed.
    case._record_starting_state()


def use_query(case) -> None:
    """A query is for a body that is the picture; then it holds the phrases."""
    if not positive(case, ParameterLocation.QUERY):
        return
    if case.media_type in ("multipart/form-data", "application/json"):
        case.query.clear()
    else:
        case.query["phrase"] = ["the duck on the left"]
        use_common(case.query)


def use_form(form: dict, path: str) -> None:
    """Exactly one field holds the picture."""
    if path == "/v1/images":
        form.clear()
        form["image"] = Binary(any_png())
        return
    use_common(form)
    if "phrase" in form:
        form["phrase"] = [named(phrase) for phrase in form["phrase"][:MAX_PHRASES]] or ["the duck"]
    form.pop("image_url", None)
    if images and random.random() < 0.1:
        form.pop("image", None)
        form["image_id"] = random.choice(images)
    else:
        form.pop("image_id", None)
        form["image"] = Binary(any_png())


def use_json(body: dict, path: str) -> None:
    if path == "/v1/feedback":  # it must have content, and run lengths must be a mask
        body["rating"] = 3
        if body.get("corrected_mask"):
            body["corrected_mask"] = {"size": [2, 4], "counts": "242"}
        return
    use_common(body)
    overlay = "overlay" in str(body)
    for item in [body, *body.get("items", [])]:
        use_picture(item.get("image"), by_id=path != "/v1/images")
        if overlay and item.get("output"):
            item["output"].pop("size", None)
        if "prompts" in item:
            item["prompts"] = item["prompts"][:MAX_PHRASES]
        for prompt in item.get("prompts", []):
            prompt["text"] = named(prompt["text"])


NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")


@schemathesis.hook
def filter_body(context, body) -> bool:
    """A form holds only text, so a number that was turned into text to be invalid is valid again."""
    return not (
        is_json(body)
        and "phrase" in body
        and any(isinstance(value, str) and NUMBER.fullmatch(value) for value in body.values())
    )


@schemathesis.hook
def filter_query(context, query) -> bool:
    """A parameter without any value is not sent."""
    return not query or all(value not in (None, [], {}) for value in query.values())


@schemathesis.hook
def filter_headers(context, headers) -> bool:
    """Spaces around a value are not part of it (RFC 9110, section 5.5)."""
    return not headers or all(str(value) == str(value).strip(" \t") for value in headers.values())


@schemathesis.hook
def after_call(context, case, response) -> None:
    name = f"{case.method.upper()} {case.operation.path}"
    with lock:
        answers[name][response.status_code] += 1
        if response.status_code in (200, 201, 202) and "json" in str(response.headers.get("content-type")):
            try:
                answer = json.loads(response.content)
            except ValueError:
                return
            ident = answer.get("id") if is_json(answer) else None
            if isinstance(ident, str) and ident.startswith("job_"):
                jobs.append(ident)
            elif isinstance(ident, str) and ident.startswith("img_"):
                images.append(ident)


@atexit.register
def tell() -> None:
    report = os.environ.get("API_CHECK_ANSWERS")
    if report:
        Path(report).write_text(json.dumps({name: dict(counts) for name, counts in answers.items()}))
