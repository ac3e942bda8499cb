"""The calls and how their answers are read. They are written once for both clients, as generators that yield
the steps to perform and receive the results of the steps."""

from __future__ import annotations

import email.utils
import json
import math
import random
import re
import ssl
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import httpx2
import numpy as np
from numpy.typing import ArrayLike

from .answers import (
    Answer,
    BatchResult,
    Event,
    Feedback,
    Image,
    Item,
    Job,
    Models,
    Problem,
    Status,
    UsageDay,
    WebhookSecret,
    ended,
)
from .bodies import (
    Batch,
    LocalPicture,
    Picture,
    Prompts,
    batch_body,
    body,
    encoded_bytes,
    given,
    image_member,
    is_address,
    is_id,
    segment_body,
)
from .rle import encode_rle

T = TypeVar("T")
#: The kinds of objects that the service stores under an id.
Stored = TypeVar("Stored", Job, Image)

now = time.monotonic

# Seconds. A pause doubles with each try. A random part is added, so that clients do not all retry at once.
FIRST_PAUSE = 0.25
MAX_PAUSE = 10.0
MAX_JITTER = 2.0
#: How long a stream may be silent. The service sends a comment every 15 s to show that it is alive.
MAX_SILENCE = 45.0

#: The least time for one request about a job, even if less is left.
LOOK = 5.0

#: The maximum of bytes of a decompressed answer: 64 MB of masks in base64, and the rest of the JSON.
MAX_ANSWER = 96 << 20

PAGE = "100"
ROUTES: Mapping[type, str] = {Job: "jobs", Image: "images"}
JSON = {"Content-Type": "application/json"}
#: The codes for answers without a code, by status; for any other status it is upstream_failed.
CODES = {
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    408: "body_too_slow",
    413: "image_too_large",
    429: "quota_exceeded",
    502: "upstream_failed",
    503: "upstream_unavailable",
    504: "deadline_exceeded",
}


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    #: The time that is left is added to the content, a JSON object, at each try.
    deadline_ms: int | None = None
    #: Whether a success is a stream of events.
    stream: bool = False


@dataclass(frozen=True)
class Try:
    """A call to send once. The result is a Reply, a Problem if the answer cannot be read, or an
    httpx2.TransportError if there is no answer."""

    call: Call
    content: bytes | None
    headers: Mapping[str, str]
    #: Seconds for each operation on the connection, and for the whole try.
    timeout: float
    left: float


@dataclass(frozen=True)
class Reply:
    """An answer: its body or, if it is a stream, its events."""

    status: int
    headers: httpx2.Headers
    body: bytes
    stream: httpx2.Response | None = None
    #: An iterator or, for an AsyncClient, an asynchronous one.
    events: Any = None


@dataclass(frozen=True)
class Next:
    """The next event of a stream; None at its end, a Problem or an httpx2.TransportError if it breaks."""

    reply: Reply


@dataclass(frozen=True)
class Each:
    """A value for an iterating method to yield."""

    value: Any


#: A step to perform. Besides these, it may be a pause in seconds, or slow work, which an event loop runs in a
#: thread.
Step = Try | Next | float | Callable[[], Any]
Steps = Generator[Step, Any, T]
Entries = Generator[Step | Each, Any, None]


@dataclass(frozen=True)
class Calls:
    timeout: float
    max_wait: float
    headers: Mapping[str, str]

    def sent(self, call: Call, max_wait: float = math.inf) -> Steps[Reply]:
        """The answer to a call. The call is retried as long as another try may succeed and there is time."""
        begun, max_wait = now(), min(max_wait, self.max_wait)
        patience = max_wait if call.deadline_ms is None else min(max_wait, call.deadline_ms / 1000)
        headers = {**self.headers, **call.headers}
        tries = 0
        unsure = False  # whether a failed try may have had its effect
        while True:
            used = now() - begun
            left = max(max_wait - used, 0.001)  # a pause may end late, and sockets refuse values below 0
            content = content_of(call, used)
            reply = yield Try(call, content, headers, min(self.timeout, left), left)
            if isinstance(reply, Reply):
                if 200 <= reply.status < 300:
                    return reply
                problem: Exception = problem_of(reply, len(content or b""))
                if call.method == "DELETE" and unsure and is_gone(problem):
                    return reply  # an earlier try did it, and its answer was lost
                unsure = unsure or reply.status in (502, 503)
            else:
                problem, unsure = reply, True
            if not may_pass(problem):
                raise problem
            pause = pause_after(tries, getattr(problem, "retry_after", None))
            if now() - begun + pause >= patience:
                raise problem
            yield pause
            tries += 1

    def parsed(self, call: Call, parse: Callable[[Any], T], max_wait: float = math.inf) -> Steps[T]:
        reply = yield from self.sent(call, max_wait)
        value: T = yield lambda: read(reply, reply.body, parse)
        return value

    def pages(
        self, path: str, name: str, parse: Callable[[Any], Any], query: Mapping[str, str | None]
    ) -> Entries:
        """Yields each entry of a list."""
        asked = given(query) | {"limit": PAGE}
        while True:
            entries, cursor = yield from self.parsed(
                Call("GET", path, query=asked),
                lambda page: ([parse(entry) for entry in page[name]], page.get("next")),
            )
            for entry in entries:
                yield Each(entry)
            if not cursor:
                return
            asked = asked | {"cursor": cursor}

    def segment(
        self, picture: Picture, prompts: Prompts, deadline_ms: int | None, **members: Any
    ) -> Steps[Answer]:
        content = yield lambda: segment_body(picture, prompts, members)
        call = Call("POST", "v1/segment", content, JSON, deadline_ms=deadline_ms)
        return (yield from self.parsed(call, Answer.parse))

    def segment_batch(
        self, items: Batch, deadline_ms: int | None, **members: Any
    ) -> Steps[list[BatchResult]]:
        content, count = yield lambda: batch_body(items, members)
        call = Call("POST", "v1/segment:batch", content, JSON, deadline_ms=deadline_ms)
        return (yield from self.parsed(call, lambda answer: batch_results(answer, count)))

    def submit(
        self, picture: Picture, prompts: Prompts, webhook: str | None, key: str | None, **members: Any
    ) -> Steps[Job]:
        headers = job_headers(key)
        content = yield lambda: segment_body(picture, prompts, members | {"webhook": told_at(webhook)})
        return (yield from self.parsed(Call("POST", "v1/segment", content, headers), Job.parse))

    def submit_batch(self, items: Batch, webhook: str | None, key: str | None, **members: Any) -> Steps[Job]:
        headers = job_headers(key)
        content, _ = yield lambda: batch_body(items, members | {"webhook": told_at(webhook)})
        return (yield from self.parsed(Call("POST", "v1/segment:batch", content, headers), Job.parse))

    def job(self, job: str | Job) -> Steps[Job]:
        return self.parsed(Call("GET", path(Job, job)), Job.parse)

    def jobs(self, status: Status | None) -> Entries:
        return self.pages("v1/jobs", "jobs", Job.parse, {"status": status})

    def wait(
        self, job: str | Job, timeout: float | None, progress: Callable[[Job], object] | None
    ) -> Steps[Job]:
        job_id = id_of(Job, job)
        end = math.inf if timeout is None else now() + timeout
        pause, told = 0.1, None
        while True:
            left = max(end - now(), LOOK)
            try:
                seen = yield from self.parsed(Call("GET", path(Job, job_id)), Job.parse, left)
            except (Problem, httpx2.TransportError) as problem:
                if left < self.max_wait and may_pass(problem):
                    raise late(job_id, timeout) from problem
                raise
            state = (seen.status, seen.succeeded, seen.failed, seen.cancelled)
            if progress and state != told:
                progress(seen)
            told = state
            if seen.ended:
                return seen
            if now() >= end:
                raise late(job_id, timeout)
            yield min(pause, max(end - now(), 0.0))
            pause = min(pause * 1.5, 5.0)

    def events(self, job: str | Job, after: int) -> Entries:
        breaks = 0
        while True:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(after)} if after else {})
            call = Call("GET", path(Job, job, "/events"), headers=headers, stream=True)
            reply = yield from self.sent(call)
            if reply.stream is None:  # 204: the job has ended, and all its events were sent
                return
            while isinstance(told := (yield Next(reply)), httpx2.ServerSentEvent):
                event = read(reply, told, event_of)
                if event is None or event.seq <= after:
                    continue
                after, breaks = event.seq, 0
                yield Each(event)
                if event.item is None and ended(event.status):
                    return
            if told is not None and not may_pass(told):
                raise told
            yield pause_after(breaks)
            breaks += 1

    def result(self, job: str | Job, index: int) -> Steps[Answer]:
        return self.parsed(Call("GET", path(Job, job, f"/items/{index}")), Answer.parse)

    def cancel(self, job: str | Job) -> Steps[Job]:
        return self.parsed(Call("POST", path(Job, job, "/cancel")), Job.parse)

    def redeliver(self, job: str | Job, key: str | None) -> Steps[Job]:
        call = Call("POST", path(Job, job, "/webhook/redeliver"), headers=once(key))
        return self.parsed(call, Job.parse)

    def delete(self, kind: type[Stored], stored: str | Stored) -> Steps[None]:
        yield from self.sent(Call("DELETE", path(kind, stored)))

    def keep_image(self, picture: LocalPicture, key: str | None) -> Steps[Image]:
        headers = once(key)
        if isinstance(picture, Image) or is_id(picture):
            raise ValueError("the picture is already stored; send its bytes to extend its lifetime")
        if is_address(picture):
            content, kind = body({"image": image_member(picture)}), JSON
        else:
            content = yield lambda: bytes(encoded_bytes(picture))
            kind = {"Content-Type": "application/octet-stream"}
        return (yield from self.parsed(Call("POST", "v1/images", content, headers | kind), Image.parse))

    def image(self, image: str | Image) -> Steps[Image]:
        return self.parsed(Call("GET", path(Image, image)), Image.parse)

    def images(self) -> Entries:
        return self.pages("v1/images", "images", Image.parse, {})

    def image_content(self, image: str | Image) -> Steps[bytes]:
        call = Call("GET", path(Image, image, "/content"), headers={"Accept": "*/*"})
        reply = yield from self.sent(call)
        return reply.body

    def send_feedback(
        self, corrected_mask: ArrayLike | None, key: str | None, **members: Any
    ) -> Steps[Feedback]:
        headers = JSON | once(key)
        content = yield lambda: body(given(members | {"corrected_mask": corrected(corrected_mask)}))
        call = Call("POST", "v1/feedback", content, headers)
        return (yield from self.parsed(call, Feedback.parse))

    def feedback(self, request_id: str | None) -> Entries:
        return self.pages("v1/feedback", "feedback", Feedback.parse, {"request_id": request_id})

    def usage(
        self, first: date | str | None, last: date | str | None, key: str | None
    ) -> Steps[list[UsageDay]]:
        query = {"from": day_of(first), "to": day_of(last), "key": key}
        call = Call("GET", "v1/usage", query=given(query))
        return self.parsed(call, lambda answer: list(map(UsageDay.parse, answer["usage"])))

    def models(self) -> Steps[Models]:
        return self.parsed(Call("GET", "v1/models"), Models.parse)

    def webhook_secret(self) -> Steps[WebhookSecret]:
        return self.parsed(Call("GET", "v1/webhooks/secret"), WebhookSecret.parse)

    def rotate_webhook_secret(self, key: str | None) -> Steps[WebhookSecret]:
        call = Call("POST", "v1/webhooks/secret/rotate", headers=once(key))
        return self.parsed(call, WebhookSecret.parse)


def content_of(call: Call, used: float) -> bytes | None:
    if call.content is None or call.deadline_ms is None:
        return call.content
    left = max(call.deadline_ms - int(used * 1000), min(call.deadline_ms, 1))
    # It is appended, so that a picture is not encoded again for each try.
    return call.content[:-1] + b',"deadline_ms":%d}' % left


def pause_after(tries: int, retry_after: float | None = None) -> float:
    pause = max(min(FIRST_PAUSE * 2.0 ** min(tries, 16), MAX_PAUSE), retry_after or 0.0)
    return pause + random.uniform(0, min(pause / 4, MAX_JITTER))


def may_pass(problem: Exception) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(problem, Problem):
        passes = problem.status in (408, 429, 502, 503) and problem.code != "storage_full"
        damaged = isinstance(
            problem.__cause__,
            httpx2.DecodingError,
            # An answer was damaged on its way, like an answer that is cut off.
        )
        return passes or damaged or problem.code == "request_under_way"
    cause: BaseException | None = problem
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return False
        cause = cause.__cause__ or cause.__context__
    return isinstance(problem, httpx2.TimeoutException | httpx2.NetworkError | httpx2.RemoteProtocolError)


def is_gone(problem: Exception) -> bool:
    return isinstance(problem, Problem) and problem.code in ("image_not_found", "job_not_found")


def problem_of(reply: Reply, sent: int = 0) -> Problem:
    """The Problem of an answer that is not a success. sent is the number of bytes of its request."""
    try:
        document = json.loads(reply.body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("code"), str):
        # The answer comes from a proxy, or from something that is not a refersam service.
        document = {"code": CODES.get(reply.status, "upstream_failed"), "detail": unexplained(reply, sent)}
    known = {"request_id": reply.headers.get("x-request-id")}
    return Problem(known | document | {"status": reply.status}, seconds(reply.headers.get("retry-after", "")))


#: What a status without a problem of the service usually means, and what to do.
UNEXPLAINED = {
    401: "The credentials were not accepted; check the API key, and what a proxy before the service "
    "requires.",
    403: "The request was refused before it reached the service; check what the proxy before it allows.",
    404: "There is no refersam service at this address; check the address with its path.",
    405: "There is no refersam service at this address; check the address with its path.",
    408: "The request arrived too slowly; send a smaller picture on a slow connection.",
    413: "The request of {sent} bytes is larger than a proxy before the service accepts; send a smaller "
    "picture or fewer at once, or raise the limit of the proxy.",
    414: "The address of the request is longer than a proxy before the service accepts; shorten it.",
    429: "A proxy before the service accepts no more requests at the moment; wait, or send fewer.",
    431: "The headers of the request are longer than a proxy before the service accepts; shorten them.",
    502: "A proxy gets no answer from the service behind it; check that the service is running.",
    503: "The service, or a proxy before it, is not available at the moment; try again later.",
    504: "A proxy does not wait long enough for the service behind it; raise its timeout, send fewer "
    "pictures at once, or submit a job.",
}
MAX_EXCERPT = 120


def unexplained(reply: Reply, sent: int) -> str:
    if 300 <= reply.status < 400 and (to := reply.headers.get("location")):
        text = f"The service redirects to {to!r}; use its own address."
    else:
        text = UNEXPLAINED.get(
            reply.status, "The answer gives no reason; check the address and any proxy before the service."
        )
        text = text.format(sent=sent)
    text += f" The status is {reply.status}"
    if server := reply.headers.get("server"):
        text += f", from {server!r}"
    if excerpt := reply.body[:MAX_EXCERPT].decode(errors="replace").strip():
        text += f", with {excerpt!r}"
    return text + "."


def seconds(retry_after: str) -> float | None:
    """Retry-After, which is seconds or a date."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after)
    try:
        return max(email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return None


def read(reply: Reply, content: Any, parse: Callable[[Any], T]) -> T:
    try:
        return parse(json.loads(content) if isinstance(content, bytes) else content)
    except (ValueError, LookupError, TypeError, AttributeError) as cause:
        raise unreadable(reply.status, reply.headers, "cannot be read by this client") from cause


def unreadable(status: int, headers: httpx2.Headers, why: str) -> Problem:
    document = {"code": "upstream_failed", "status": status, "detail": f"The answer {why}."}
    return Problem(document | {"request_id": headers.get("x-request-id")})


def event_of(told: httpx2.ServerSentEvent) -> Event | None:
    """The content of an event; None if this client does not know its kind."""
    if told.event not in ("job", "item"):
        return None
    document = json.loads(told.data)
    item = Item.parse(document) if told.event == "item" else None
    return Event(int(told.id), document["status"], item)


def batch_results(document: Mapping[str, Any], count: int) -> list[BatchResult]:
    results = [BatchResult.parse(result) for result in document["results"]]
    if len(results) != count:
        raise ValueError(f"there are {len(results)} results for {count} items")
    return results


def id_of(kind: type[Stored], stored: str | Stored) -> str:
    ident = stored.id if isinstance(stored, kind) else stored
    if not isinstance(ident, str):
        raise TypeError(
            f"{ROUTES[kind]} are given as {kind.__name__} or id, and not as {type(stored).__name__}"
        )
    return ident


def path(kind: type[Stored], stored: str | Stored, rest: str = "") -> str:
    ident = id_of(kind, stored)
    if ident in ("", ".", ".."):  # another route
        raise ValueError(f"{ident!r} is not an id")
    return f"v1/{ROUTES[kind]}/{quote(ident, safe='')}{rest}"


def day_of(day: date | str | None) -> str | None:
    """A day of UTC, in the form of the query."""
    if isinstance(day, datetime):
        if day.tzinfo is None:
            raise ValueError("a time without a zone may belong to two days of UTC; datetime.now(UTC) has one")
        return day.astimezone(UTC).date().isoformat()
    if isinstance(day, date):
        return day.isoformat()
    if day is None:
        return None
    if not isinstance(day, str):
        raise TypeError(f"a day must be a date, a datetime or text, not {type(day).__name__}")
    try:
        written = date.fromisoformat(day).isoformat()
    except ValueError:
        written = None
    if written != day:  # fromisoformat reads other forms, too
        raise ValueError(f"a day must have a form such as 2026-11-22, not {day!r}")
    return day


def once(key: str | None) -> dict[str, str]:
    """The idempotency key of a request: the given key, or a new one."""
    if key is None:
        key = str(uuid.uuid4())
    elif not re.fullmatch("[!#-~]{1,255}", key):
        raise ValueError("an idempotency key must have 1 to 255 visible ASCII characters without quotes")
    return {"Idempotency-Key": key}


def job_headers(key: str | None) -> dict[str, str]:
    return JSON | {"Prefer": "respond-async"} | once(key)


def told_at(webhook: str | None) -> dict[str, str] | None:
    return None if webhook is None else {"url": webhook}


def corrected(mask: ArrayLike | None) -> dict[str, Any] | None:
    if mask is None:
        return None
    pixels = np.asarray(mask)
    return {"counts": encode_rle(pixels), "size": pixels.shape}


def late(job_id: str, timeout: float | None) -> TimeoutError:
    return TimeoutError(f"the job {job_id} has not ended within {timeout} s")
