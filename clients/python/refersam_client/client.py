"""The clients, which perform the steps of calls.py."""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager
from datetime import date
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2
from numpy.typing import ArrayLike

from .answers import (
    Answer,
    BatchResult,
    Event,
    Feedback,
    Image,
    Job,
    Models,
    Problem,
    Status,
    UsageDay,
    WebhookSecret,
)
from .bodies import Batch, LocalPicture, Output, Picture, Priority, Prompts, given
from .calls import (
    MAX_ANSWER,
    MAX_SILENCE,
    Calls,
    Each,
    Entries,
    Next,
    Reply,
    Step,
    Steps,
    Try,
    now,
    unreadable,
)

T = TypeVar("T")

#: The form of a unit; spaces around it would be lost on the way.
UNIT = re.compile(r"(?! )[^\x00-\x1f\x7f\ud800-\udfff]{1,128}(?<! )")
#: The service replaces any other id by one of its own.
REQUEST_ID = re.compile("[A-Za-z0-9._:-]{1,128}")


class _Base:
    def __init__(self, url: str, key: str | None, timeout: float, max_wait: float, unit: str | None) -> None:
        headers = {"Accept": "application/json", "User-Agent": "refersam-python"}
        if key:
            if not re.fullmatch("[!-~]+", key):  # the error of an illegal header would show the key
                raise ValueError("the API key contains a character that is not allowed in keys")
            headers["Authorization"] = f"Bearer {key}"
        self._calls = Calls(timeout, max_wait, headers | _named(unit, None))
        self._url = _base_url(url)

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_wait: float | None = None,
        unit: str | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The same client with other options, for one call or for many. Both share their connections, so
        close only one of them.

        timeout, max_wait and unit are as for the client. request_id is the id of the requests in the log of
        the service: 1 to 128 letters, digits and `._:-`, otherwise ValueError."""
        other, calls = copy.copy(self), self._calls
        other._calls = Calls(
            calls.timeout if timeout is None else timeout,
            calls.max_wait if max_wait is None else max_wait,
            {**calls.headers, **_named(unit, request_id)},
        )
        return other


class Client(_Base):
    """A service, over HTTP. It may be used by several threads at once.

    url is the service's, such as http://127.0.0.1:8080, and key is an API key. unit is the user, session or
    other entity that always gets the same variant: 1 to 128 characters without control characters, and no
    space around them. Invalid values are a ValueError. transport is a transport of httpx2, for proxies,
    certificates or tests, such as httpx2.HTTPTransport(verify=…).

    Times are in seconds. timeout bounds each operation on a connection: to connect, to send a piece, to wait
    for a piece of the answer. max_wait bounds a whole call, and shortens timeout near its end. Temporary
    failures are retried after a pause that is never shorter than the service asks for. If the pause does not
    fit into max_wait, the failure is raised at once. with_options sets both times for one call.

    A failure is a Problem, which has a code, or an httpx2.TransportError if there is no answer. An answer
    that cannot be read, or has more than 96 MiB when it is decompressed, is the Problem upstream_failed. A
    value that cannot be sent, such as text that is not Unicode, is a ValueError or TypeError.

    A Job or an Image may be given instead of its id. Calls that store something have an idempotency_key, for
    a program that may repeat a call after a restart: within 24 hours the same call with the same key gets the
    first answer again, and a different call with the same key is the Problem idempotency_key_reused. A key
    has 1 to 255 visible ASCII characters without quotes; any other key is a ValueError. Without a key each
    call gets a new one, for all its tries."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60,
        max_wait: float = 120,
        unit: str | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout, max_wait, unit)
        self._http = httpx2.Client(base_url=self._url, transport=transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def segment(
        self,
        picture: Picture,
        prompts: Prompts,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
    ) -> Answer:
        """The masks of one phrase or up to 32.

        A picture is the path of its file, a file open for reading bytes, the encoded bytes, a stored Image or
        its id, or an https address; any other address is a ValueError. Numbers may be numpy's. output holds
        options of the masks. variant selects the model; by default the service chooses. deadline_ms is how
        many milliseconds the answer is useful; each try sends the service the rest. priority "batch" is for
        work that may wait."""
        return self._run(
            self._calls.segment(
                picture, prompts, deadline_ms, output=output, variant=variant, priority=priority
            )
        )

    def segment_batch(
        self,
        items: Batch,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
    ) -> list[BatchResult]:
        """The masks of up to 64 pictures, each with its phrases: an answer or a problem for each, in their
        order. An item is a BatchItem, or a picture and its phrases in a tuple; anything else is a TypeError.
        The options are the same as segment's, and apply to all."""
        return self._run(
            self._calls.segment_batch(items, deadline_ms, output=output, variant=variant, priority=priority)
        )

    def submit(
        self,
        picture: Picture,
        prompts: Prompts,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """A job that does what segment does. deadline_ms is at most a day, which is the default;
        priority is "batch" by default. webhook is the https address that receives the end of the job."""
        return self._run(
            self._calls.submit(
                picture, prompts, webhook, idempotency_key, output=output, variant=variant,
                deadline_ms=deadline_ms, priority=priority,
            )
        )  # fmt: skip

    def submit_batch(
        self,
        items: Batch,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """A job that does what segment_batch does, with the options of submit."""
        return self._run(
            self._calls.submit_batch(
                items, webhook, idempotency_key, output=output, variant=variant, deadline_ms=deadline_ms,
                priority=priority,
            )
        )  # fmt: skip

    def job(self, job: str | Job) -> Job:
        return self._run(self._calls.job(job))

    def jobs(self, status: Status | None = None) -> Iterator[Job]:
        """The jobs of the key, newest first, without their items; only jobs with the status, if one is
        given."""
        return self._each(self._calls.jobs(status))

    def wait(
        self,
        job: str | Job,
        timeout: float | None = None,
        *,
        progress: Callable[[Job], object] | None = None,
    ) -> Job:
        """Waits until the job has ended, and returns it. If it has not ended within timeout seconds, the job
        continues, and this raises TimeoutError, at most 5 s late because of the last request. max_wait bounds
        each request too. progress is called with the job whenever it has changed."""
        return self._run(self._calls.wait(job, timeout, progress))

    def events(self, job: str | Job, after: int = 0) -> Generator[Event, None, None]:
        """Yields the events of a job as they happen, until it has ended. after is the number of the last
        known event. If a connection breaks or is silent for 45 s, the client connects again. No event is lost
        or yielded twice."""
        return self._each(self._calls.events(job, after))

    def result(self, job: str | Job, index: int = 0) -> Answer:
        """The answer to an item of a job. Problems are job_unfinished, item_failed and cancelled."""
        return self._run(self._calls.result(job, index))

    def cancel(self, job: str | Job) -> Job:
        """Cancels the items of a job that have not ended."""
        return self._run(self._calls.cancel(job))

    def delete_job(self, job: str | Job) -> None:
        """Deletes a job with its answers."""
        self._run(self._calls.delete(Job, job))

    def redeliver(self, job: str | Job, *, idempotency_key: str | None = None) -> Job:
        """Delivers the webhook of a job again. The problem is job_unfinished before its end."""
        return self._run(self._calls.redeliver(job, idempotency_key))

    def keep_image(self, picture: LocalPicture, *, idempotency_key: str | None = None) -> Image:
        """Stores a picture that is used often, from its bytes or an https address. It is stored until
        `expires_at`, a day later unless the service is configured otherwise.

        The picture has the same form as for segment, but an Image or its id is a ValueError, because it is
        already stored. Sending the same bytes again extends its lifetime.
        """
        return self._run(self._calls.keep_image(picture, idempotency_key))

    def image(self, image: str | Image) -> Image:
        return self._run(self._calls.image(image))

    def images(self) -> Iterator[Image]:
        """The stored pictures of the key, newest first."""
        return self._each(self._calls.images())

    def image_content(self, image: str | Image) -> bytes:
        """The bytes of a picture as they were sent."""
        return self._run(self._calls.image_content(image))

    def delete_image(self, image: str | Image) -> None:
        self._run(self._calls.delete(Image, image))

    def send_feedback(
        self,
        request_id: str,
        result: int = 0,
        *,
        item: int = 0,
        verdict: Literal["good", "bad"] | None = None,
        rating: int | None = None,
        corrected_mask: ArrayLike | None = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
    ) -> Feedback:
        """Rates a mask. request_id is the request_id of its answer, result is its index in the answer, and
        item is the index of the picture in a batch or job, because all its answers have the same request_id.

        At least one of the others must be given: rating is from 1 (useless) to 5 (perfect); corrected_mask is
        (height, width), where every value except zero is foreground; comment has at most 2,000 bytes of
        UTF-8. The key needs the scope feedback."""
        return self._run(
            self._calls.send_feedback(
                corrected_mask, idempotency_key, request_id=request_id, item=item, result=result,
                verdict=verdict, rating=rating, comment=comment,
            )
        )  # fmt: skip

    def feedback(self, request_id: str | None = None) -> Iterator[Feedback]:
        """The feedback of all keys, newest first; about one answer, if its request_id is given. The key needs
        the scope admin."""
        return self._each(self._calls.feedback(request_id))

    def usage(
        self, first: date | str | None = None, last: date | str | None = None, *, key: str | None = None
    ) -> list[UsageDay]:
        """The key's usage per day, from first to last, which are days in UTC, at most 366; by default the
        last 30 days. With the scope admin it is the usage of all keys, or of the key with the id key.

        A day is a date, text such as "2026-11-22", or a datetime with a zone, which stands for its day in
        UTC. Any other value is a ValueError."""
        return self._run(self._calls.usage(first, last, key))

    def models(self) -> Models:
        """The loaded models, the formats of masks, and the service's limits."""
        return self._run(self._calls.models())

    def webhook_secret(self) -> WebhookSecret:
        """The secret that signs webhooks, for verify_webhook."""
        return self._run(self._calls.webhook_secret())

    def rotate_webhook_secret(self, *, idempotency_key: str | None = None) -> WebhookSecret:
        """Makes a new secret; for a day webhooks are also signed with the previous one."""
        return self._run(self._calls.rotate_webhook_secret(idempotency_key))

    def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                answer = self._do(steps.send(answer))
        except StopIteration as end:
            value: T = end.value
            return value

    def _each(self, steps: Entries) -> Generator[Any, None, None]:
        answer, stream = None, None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Each):
                    yield step.value
                    answer = None
                    continue
                answer = self._do(step)
                if isinstance(answer, Reply):
                    stream = answer.stream
        except StopIteration:
            return
        finally:
            if stream is not None:
                stream.close()

    def _do(self, step: Step) -> Any:
        try:
            if isinstance(step, Try):
                return self._send(step)
            if isinstance(step, Next):
                with _decompressed(step.reply.status, step.reply.headers):
                    return next(step.reply.events, None)
        except (Problem, httpx2.TransportError) as error:
            return error
        return step() if callable(step) else time.sleep(step)

    def _send(self, step: Try) -> Reply:
        end = now() + step.left
        request = self._http.build_request(**_request(step))
        response = self._http.send(request, stream=True)
        if _streams(step, response):
            return Reply(
                response.status_code, response.headers, b"", response, iter(httpx2.EventSource(response))
            )
        content = bytearray()
        with closing(response), _decompressed(response.status_code, response.headers):
            for piece in response.iter_bytes():
                _add(piece, content, response)
                if now() > end:  # each piece of a trickling answer is in time
                    raise httpx2.ReadTimeout("max_wait has passed", request=request)
        return Reply(response.status_code, response.headers, bytes(content))


class AsyncClient(_Base):
    """Client for asyncio, with the same methods. Await them, or use `async for` if they iterate. Slow work,
    such as reading a picture, runs in a thread. If you leave events before their end, close them, for example
    with contextlib.aclosing."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeout: float = 60,
        max_wait: float = 120,
        unit: str | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, key, timeout, max_wait, unit)
        self._http = httpx2.AsyncClient(base_url=self._url, transport=transport)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def segment(
        self,
        picture: Picture,
        prompts: Prompts,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
    ) -> Answer:
        return await self._run(
            self._calls.segment(
                picture, prompts, deadline_ms, output=output, variant=variant, priority=priority
            )
        )

    async def segment_batch(
        self,
        items: Batch,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
    ) -> list[BatchResult]:
        return await self._run(
            self._calls.segment_batch(items, deadline_ms, output=output, variant=variant, priority=priority)
        )

    async def submit(
        self,
        picture: Picture,
        prompts: Prompts,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        return await self._run(
            self._calls.submit(
                picture, prompts, webhook, idempotency_key, output=output, variant=variant,
                deadline_ms=deadline_ms, priority=priority,
            )
        )  # fmt: skip

    async def submit_batch(
        self,
        items: Batch,
        *,
        output: Output | Mapping[str, Any] | None = None,
        variant: str | None = None,
        deadline_ms: int | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        return await self._run(
            self._calls.submit_batch(
                items, webhook, idempotency_key, output=output, variant=variant, deadline_ms=deadline_ms,
                priority=priority,
            )
        )  # fmt: skip

    async def job(self, job: str | Job) -> Job:
        return await self._run(self._calls.job(job))

    def jobs(self, status: Status | None = None) -> AsyncIterator[Job]:
        return self._each(self._calls.jobs(status))

    async def wait(
        self,
        job: str | Job,
        timeout: float | None = None,
        *,
        progress: Callable[[Job], object] | None = None,
    ) -> Job:
        return await self._run(self._calls.wait(job, timeout, progress))

    def events(self, job: str | Job, after: int = 0) -> AsyncGenerator[Event, None]:
        return self._each(self._calls.events(job, after))

    async def result(self, job: str | Job, index: int = 0) -> Answer:
        return await self._run(self._calls.result(job, index))

    async def cancel(self, job: str | Job) -> Job:
        return await self._run(self._calls.cancel(job))

    async def delete_job(self, job: str | Job) -> None:
        await self._run(self._calls.delete(Job, job))

    async def redeliver(self, job: str | Job, *, idempotency_key: str | None = None) -> Job:
        return await self._run(self._calls.redeliver(job, idempotency_key))

    async def keep_image(self, picture: LocalPicture, *, idempotency_key: str | None = None) -> Image:
        return await self._run(self._calls.keep_image(picture, idempotency_key))

    async def image(self, image: str | Image) -> Image:
        return await self._run(self._calls.image(image))

    def images(self) -> AsyncIterator[Image]:
        return self._each(self._calls.images())

    async def image_content(self, image: str | Image) -> bytes:
        return await self._run(self._calls.image_content(image))

    async def delete_image(self, image: str | Image) -> None:
        await self._run(self._calls.delete(Image, image))

    async def send_feedback(
        self,
        request_id: str,
        result: int = 0,
        *,
        item: int = 0,
        verdict: Literal["good", "bad"] | None = None,
        rating: int | None = None,
        corrected_mask: ArrayLike | None = None,
        comment: str | None = None,
        idempotency_key: str | None = None,
    ) -> Feedback:
        return await self._run(
            self._calls.send_feedback(
                corrected_mask, idempotency_key, request_id=request_id, item=item, result=result,
                verdict=verdict, rating=rating, comment=comment,
            )
        )  # fmt: skip

    def feedback(self, request_id: str | None = None) -> AsyncIterator[Feedback]:
        return self._each(self._calls.feedback(request_id))

    async def usage(
        self, first: date | str | None = None, last: date | str | None = None, *, key: str | None = None
    ) -> list[UsageDay]:
        return await self._run(self._calls.usage(first, last, key))

    async def models(self) -> Models:
        return await self._run(self._calls.models())

    async def webhook_secret(self) -> WebhookSecret:
        return await self._run(self._calls.webhook_secret())

    async def rotate_webhook_secret(self, *, idempotency_key: str | None = None) -> WebhookSecret:
        return await self._run(self._calls.rotate_webhook_secret(idempotency_key))

    async def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                answer = await self._do(steps.send(answer))
        except StopIteration as end:
            value: T = end.value
            return value

    async def _each(self, steps: Entries) -> AsyncGenerator[Any, None]:
        answer, stream = None, None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Each):
                    yield step.value
                    answer = None
                    continue
                answer = await self._do(step)
                if isinstance(answer, Reply):
                    stream = answer.stream
        except StopIteration:
            return
        finally:
            if stream is not None:
                await stream.aclose()

    async def _do(self, step: Step) -> Any:
        try:
            if isinstance(step, Try):
                return await self._send(step)
            if isinstance(step, Next):
                with _decompressed(step.reply.status, step.reply.headers):
                    return await anext(step.reply.events, None)
        except (Problem, httpx2.TransportError) as error:
            return error
        return await (asyncio.to_thread(step) if callable(step) else asyncio.sleep(step))

    async def _send(self, step: Try) -> Reply:
        request = self._http.build_request(**_request(step))
        content = bytearray()
        try:
            async with asyncio.timeout(step.left):
                response = await self._http.send(request, stream=True)
                if _streams(step, response):
                    return Reply(
                        response.status_code,
                        response.headers,
                        b"",
                        response,
                        aiter(httpx2.EventSource(response)),
                    )
                async with aclosing(response), aclosing(response.aiter_bytes()) as pieces:
                    with _decompressed(response.status_code, response.headers):
                        async for piece in pieces:
                            _add(piece, content, response)
        except TimeoutError as cause:
            raise httpx2.ReadTimeout("max_wait has passed", request=request) from cause
        return Reply(response.status_code, response.headers, bytes(content))


def _base_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
        whole = parsed.scheme in ("http", "https") and parsed.host
    except httpx2.InvalidURL:
        whole = False
    if not whole:
        raise ValueError(f'give the URL of a service, such as "http://127.0.0.1:8080", not {url!r}')
    return url.rstrip("/") + "/"


def _named(unit: str | None, request_id: str | None) -> dict[str, str]:
    if unit is not None and not UNIT.fullmatch(unit):
        raise ValueError("a unit must have 1 to 128 characters, without control characters or outer spaces")
    if request_id is not None and not REQUEST_ID.fullmatch(request_id):
        raise ValueError("a request id must have 1 to 128 letters, digits and ._:-")
    return given({"X-Unit-Id": unit, "X-Request-Id": request_id})


@contextmanager
def _decompressed(status: int, headers: httpx2.Headers) -> Iterator[None]:
    """Converts an error of decompressing an answer to a Problem."""
    try:
        yield
    except httpx2.DecodingError as cause:
        raise unreadable(status, headers, "cannot be decompressed") from cause


def _add(piece: bytes, content: bytearray, response: httpx2.Response) -> None:
    """Appends a piece of an answer to its content; a Problem if the content becomes too large."""
    if len(content) + len(piece) > MAX_ANSWER:
        why = f"has more than {MAX_ANSWER} bytes"
        content.clear()  # the traceback would keep it in memory
        raise unreadable(response.status_code, response.headers, why)
    content += piece


def _streams(step: Try, response: httpx2.Response) -> bool:
    return step.call.stream and response.is_success and response.status_code != 204


def _request(step: Try) -> dict[str, Any]:
    read = MAX_SILENCE if step.call.stream else step.timeout
    return {
        "method": step.call.method,
        "url": step.call.path,
        "params": step.call.query or None,
        "content": step.content,
        "headers": httpx2.Headers(step.headers, encoding="utf-8"),
        "timeout": httpx2.Timeout(step.timeout, read=read),
    }
