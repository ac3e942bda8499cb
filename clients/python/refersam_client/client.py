"""The clients: what does the steps that calls.py describes."""

from __future__ import annotations

import asyncio
import copy
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from contextlib import closing
from datetime import date
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx2
from numpy.typing import ArrayLike

from .answers import Answer, BatchResult, Event, Feedback, Image, Job, Model, Status, UsageDay
from .bodies import Batch, LocalPicture, Output, Picture, Priority, Prompts, given
from .calls import MAX_SILENCE, Calls, Each, Entries, Next, Reply, Step, Steps, Try, now

T = TypeVar("T")


class _Base:
    def __init__(self, url: str, key: str | None, timeout: float, max_wait: float, unit: str | None) -> None:
        headers = {"Accept": "application/json", "User-Agent": "refersam-python"}
        if key:
            if not re.fullmatch("[!-~]+", key):  # the error of an illegal header would tell it
                raise ValueError("the API key has characters that no key has")
            headers["Authorization"] = f"Bearer {key}"
        self._calls = Calls(timeout, max_wait, headers | _named(unit, None))
        self._url = url.rstrip("/") + "/"

    def with_options(
        self,
        *,
        timeout: float | None = None,
        max_wait: float | None = None,
        unit: str | None = None,
        request_id: str | None = None,
    ) -> Self:
        """The same client with other options, for one call or for many. It has the same connections, so that
        only one of them is to be closed.

        timeout, max_wait and unit are those of the client; request_id is the id that requests have in the log
        of the service: up to 128 letters, digits and `._:-`.
        """
        other, calls = copy.copy(self), self._calls
        other._calls = Calls(
            calls.timeout if timeout is None else timeout,
            calls.max_wait if max_wait is None else max_wait,
            {**calls.headers, **_named(unit, request_id)},
        )
        return other


class Client(_Base):
    """A service, over HTTP. It may be used by several threads at once.

    url is that of the service, key an API key. unit is whom a variant sticks to. transport is one of httpx2,
    for proxies, certificates or tests, such as httpx2.HTTPTransport(verify=…).

    Times are in seconds. timeout is for each operation on a connection: to connect, to send a piece, to wait
    for a piece of the answer; it is cut to what is left of max_wait, which bounds a whole call. What may pass
    is tried again, after a pause of at least what the service asks for; if that does not fit into max_wait,
    the failure is raised at once. For one call they are set by with_options.

    Failures are a Problem, which has a code, or an httpx2.TransportError if there is no answer.
    """

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

        A picture is where its file is, a file open for reading bytes, the encoded bytes, an Image that is
        kept or its id, or an https address; ValueError if it is another address. output says how masks are to
        be, variant which model answers; without it the service chooses. deadline_ms is for how many
        milliseconds the answer is of use; each try tells the service what is left of them. priority "batch"
        is for what may wait.
        """
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
        order. Options are those of segment, and hold for all."""
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
    ) -> Job:
        """A job that does what segment does. deadline_ms is at most a day, which is what it is without;
        priority is "batch" without. webhook is the https address where the end of the job is told."""
        return self._run(
            self._calls.submit(
                picture, prompts, webhook, output=output, variant=variant, deadline_ms=deadline_ms,
                priority=priority,
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
    ) -> Job:
        """A job that does what segment_batch does, with the options of submit."""
        return self._run(
            self._calls.submit_batch(
                items, webhook, output=output, variant=variant, deadline_ms=deadline_ms, priority=priority
            )
        )

    def job(self, job_id: str) -> Job:
        return self._run(self._calls.job(job_id))

    def jobs(self, status: Status | None = None) -> Iterator[Job]:
        """The jobs of the key, the newest first, without their items; those of a status, if one is given."""
        return self._each(self._calls.jobs(status))

    def wait(
        self,
        job_id: str,
        timeout: float | None = None,
        *,
        progress: Callable[[Job], object] | None = None,
    ) -> Job:
        """The job, once it has ended. If it has not within timeout seconds it goes on, and this raises
        TimeoutError, a look of 5 s later at most; max_wait bounds each look too. progress is called with the
        job whenever it has got on."""
        return self._run(self._calls.wait(job_id, timeout, progress))

    def events(self, job_id: str, after: int = 0) -> Generator[Event, None, None]:
        """What happens to a job, as it happens, until it has ended. after is the number of the last event
        that is known already. A connection that breaks, or is silent for 45 s, is made again, and no event is
        lost or comes twice."""
        return self._each(self._calls.events(job_id, after))

    def result(self, job_id: str, index: int = 0) -> Answer:
        """What came of an item of a job. Problems are job_unfinished, item_failed and cancelled."""
        return self._run(self._calls.result(job_id, index))

    def cancel(self, job_id: str) -> Job:
        """Ends what of a job has not ended."""
        return self._run(self._calls.cancel(job_id))

    def delete_job(self, job_id: str) -> None:
        """Forgets a job, with its answers."""
        self._run(self._calls.delete("jobs", job_id))

    def redeliver(self, job_id: str) -> Job:
        """Has the end of a job told again to its webhook. The problem is job_unfinished before its end."""
        return self._run(self._calls.redeliver(job_id))

    def keep_image(self, picture: LocalPicture) -> Image:
        """Sends a picture that is asked about often, or has it fetched from an https address. It is kept
        until `expires_at`, a day later unless the service is set otherwise."""
        return self._run(self._calls.keep_image(picture))

    def image(self, image_id: str) -> Image:
        return self._run(self._calls.image(image_id))

    def images(self) -> Iterator[Image]:
        """The pictures that are kept for the key, the newest first."""
        return self._each(self._calls.images())

    def image_content(self, image_id: str) -> bytes:
        """The bytes of a picture as they were sent."""
        return self._run(self._calls.image_content(image_id))

    def delete_image(self, image_id: str) -> None:
        self._run(self._calls.delete("images", image_id))

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
    ) -> Feedback:
        """Says how good a mask was: request_id is that of its answer, result its index there, and item
        the index of the picture in a batch or job, whose answers have one request_id.

        At least one of the others is given: rating is from 1, of no use, to 5, as it should be;
        corrected_mask is (height, width), and what is not zero is foreground; comment has at most 2,000 bytes
        of UTF-8. It takes a key of the scope feedback.
        """
        return self._run(
            self._calls.send_feedback(
                corrected_mask, request_id=request_id, item=item, result=result, verdict=verdict,
                rating=rating, comment=comment,
            )
        )  # fmt: skip

    def feedback(self, request_id: str | None = None) -> Iterator[Feedback]:
        """What all keys have said, the newest first; about one answer, if its request_id is given. It takes a
        key of the scope admin."""
        return self._each(self._calls.feedback(request_id))

    def usage(
        self, first: date | None = None, last: date | None = None, *, key: str | None = None
    ) -> list[UsageDay]:
        """What the key has used by day, from first to last, which are days of UTC, at most 366; without them
        in the last 30 days. With the scope admin what all keys have, or the one whose id is key."""
        return self._run(self._calls.usage(first, last, key))

    def models(self) -> list[Model]:
        """The models that are loaded, one a variant."""
        return self._run(self._calls.models())

    def webhook_secret(self) -> str:
        """What webhooks are signed with, for verify_webhook."""
        return self._run(self._calls.webhook_secret())

    def rotate_webhook_secret(self) -> str:
        """A new secret; for a day webhooks are signed with the one before as well."""
        return self._run(self._calls.rotate_webhook_secret())

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
                return next(step.reply.events, None)
        except httpx2.TransportError as error:
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
        with closing(response):
            content = bytearray()
            for piece in response.iter_bytes():
                content += piece
                if now() > end:  # pieces that trickle in are each in time
                    raise httpx2.ReadTimeout("max_wait has passed", request=request)
            return Reply(response.status_code, response.headers, bytes(content))


class AsyncClient(_Base):
    """Client for asyncio, with the same methods, to be awaited or, where they iterate, gone through with
    `async for`. What takes a while, such as reading a picture, is done in a thread. Who leaves events before
    their end closes them, as contextlib.aclosing does."""

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
    ) -> Job:
        return await self._run(
            self._calls.submit(
                picture, prompts, webhook, output=output, variant=variant, deadline_ms=deadline_ms,
                priority=priority,
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
    ) -> Job:
        return await self._run(
            self._calls.submit_batch(
                items, webhook, output=output, variant=variant, deadline_ms=deadline_ms, priority=priority
            )
        )

    async def job(self, job_id: str) -> Job:
        return await self._run(self._calls.job(job_id))

    def jobs(self, status: Status | None = None) -> AsyncIterator[Job]:
        return self._each(self._calls.jobs(status))

    async def wait(
        self,
        job_id: str,
        timeout: float | None = None,
        *,
        progress: Callable[[Job], object] | None = None,
    ) -> Job:
        return await self._run(self._calls.wait(job_id, timeout, progress))

    def events(self, job_id: str, after: int = 0) -> AsyncGenerator[Event, None]:
        return self._each(self._calls.events(job_id, after))

    async def result(self, job_id: str, index: int = 0) -> Answer:
        return await self._run(self._calls.result(job_id, index))

    async def cancel(self, job_id: str) -> Job:
        return await self._run(self._calls.cancel(job_id))

    async def delete_job(self, job_id: str) -> None:
        await self._run(self._calls.delete("jobs", job_id))

    async def redeliver(self, job_id: str) -> Job:
        return await self._run(self._calls.redeliver(job_id))

    async def keep_image(self, picture: LocalPicture) -> Image:
        return await self._run(self._calls.keep_image(picture))

    async def image(self, image_id: str) -> Image:
        return await self._run(self._calls.image(image_id))

    def images(self) -> AsyncIterator[Image]:
        return self._each(self._calls.images())

    async def image_content(self, image_id: str) -> bytes:
        return await self._run(self._calls.image_content(image_id))

    async def delete_image(self, image_id: str) -> None:
        await self._run(self._calls.delete("images", image_id))

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
    ) -> Feedback:
        return await self._run(
            self._calls.send_feedback(
                corrected_mask, request_id=request_id, item=item, result=result, verdict=verdict,
                rating=rating, comment=comment,
            )
        )  # fmt: skip

    def feedback(self, request_id: str | None = None) -> AsyncIterator[Feedback]:
        return self._each(self._calls.feedback(request_id))

    async def usage(
        self, first: date | None = None, last: date | None = None, *, key: str | None = None
    ) -> list[UsageDay]:
        return await self._run(self._calls.usage(first, last, key))

    async def models(self) -> list[Model]:
        return await self._run(self._calls.models())

    async def webhook_secret(self) -> str:
        return await self._run(self._calls.webhook_secret())

    async def rotate_webhook_secret(self) -> str:
        return await self._run(self._calls.rotate_webhook_secret())

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
                return await anext(step.reply.events, None)
        except httpx2.TransportError as error:
            return error
        return await (asyncio.to_thread(step) if callable(step) else asyncio.sleep(step))

    async def _send(self, step: Try) -> Reply:
        request = self._http.build_request(**_request(step))
        try:
            async with asyncio.timeout(step.left):
                response = await self._http.send(request, stream=step.call.stream)
                if _streams(step, response):
                    return Reply(
                        response.status_code,
                        response.headers,
                        b"",
                        response,
                        aiter(httpx2.EventSource(response)),
                    )
                return Reply(response.status_code, response.headers, await response.aread())
        except TimeoutError as cause:
            raise httpx2.ReadTimeout("max_wait has passed", request=request) from cause


def _named(unit: str | None, request_id: str | None) -> dict[str, str]:
    return given({"X-Unit-Id": unit, "X-Request-Id": request_id})


def _streams(step: Try, response: httpx2.Response) -> bool:
    return step.call.stream and response.is_success and response.status_code != 204


def _request(step: Try) -> dict[str, Any]:
    read = MAX_SILENCE if step.call.stream else step.timeout
    return {
        "method": step.call.method,
        "url": step.call.path,
        "params": step.call.query or None,
        "content": step.content,
        "headers": step.headers,
        "timeout": httpx2.Timeout(step.timeout, read=read),
    }
