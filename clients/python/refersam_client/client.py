"""The clients. What they send and how they read it is written once, as generators that yield what is to be
done: a call, whose response they are sent back, or a pause in seconds."""

from __future__ import annotations

import asyncio
import base64
import os
import random
import time
import uuid
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2

from .answers import Answer, BatchResult, Image, Job, Model, Problem

#: A picture: where its file is, its encoded bytes, an Image that is kept, or an https address.
Picture = str | os.PathLike[str] | bytes | Image
#: A phrase, or a prompt with members of its own: text, and id, threshold, formats, min_area, fill_holes, keep
#: or tolerance.
Prompt = str | Mapping[str, Any]

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    json: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)


Steps = Generator[Call | float, Any, T]

MAX_ATTEMPTS = 6
FIRST_PAUSE = 0.25  # seconds


def image_member(picture: Picture) -> dict[str, str]:
    if isinstance(picture, Image):
        return {"id": picture.id}
    if isinstance(picture, str) and picture.startswith("https://"):
        return {"url": picture}
    if isinstance(picture, str) and picture.startswith("img_"):
        return {"id": picture}
    return {"data": base64.b64encode(encoded(picture)).decode()}


def encoded(picture: str | os.PathLike[str] | bytes) -> bytes:
    if isinstance(picture, bytes):
        return picture
    with open(picture, "rb") as file:
        return file.read()


def prompt_member(prompt: Prompt) -> dict[str, Any]:
    return {"text": prompt} if isinstance(prompt, str) else dict(prompt)


def request_body(
    picture: Picture, prompts: Sequence[Prompt] | str, rest: Mapping[str, Any]
) -> dict[str, Any]:
    if isinstance(prompts, str):
        prompts = [prompts]
    body = {"image": image_member(picture), "prompts": [prompt_member(p) for p in prompts]}
    return body | {name: value for name, value in rest.items() if value is not None}


def sent(call: Call) -> Steps[httpx2.Response]:
    """The response to a call, which is tried again when that may help."""
    attempt = 1
    while True:
        response = yield call
        problem: Exception
        if isinstance(response, httpx2.Response):
            if response.is_success:
                return response
            problem = problem_of(response)
            passing = problem.status in (429, 502, 503) or problem.code == "request_under_way"
            pause = problem.retry_after or FIRST_PAUSE * 2 ** (attempt - 1)
        else:
            problem, passing, pause = response, True, FIRST_PAUSE * 2 ** (attempt - 1)
        if not passing or attempt == MAX_ATTEMPTS:
            raise problem
        yield pause * (1 + random.random())
        attempt += 1


def problem_of(response: httpx2.Response) -> Problem:
    try:
        document = response.json()
    except ValueError:
        document = {"detail": "The answer does not say why."}
    if not isinstance(document, dict):
        document = {}
    after = response.headers.get("retry-after", "")
    return Problem({"status": response.status_code} | document, float(after) if after.isdigit() else None)


def parsed(call: Call, parse: Any) -> Steps[Any]:
    response = yield from sent(call)
    return parse(response.json())


def once() -> dict[str, str]:
    """A name under which a request is done once, however often it is sent."""
    return {"Idempotency-Key": str(uuid.uuid4())}


def keep_image(picture: str | os.PathLike[str] | bytes) -> Call:
    headers = {"Content-Type": "application/octet-stream"} | once()
    return Call("POST", "v1/images", content=encoded(picture), headers=headers)


def waited(job_id: str) -> Steps[Job]:
    pause = 0.1
    while True:
        job = yield from parsed(Call("GET", f"v1/jobs/{job_id}"), Job.parse)
        if job.ended:
            return job
        yield pause
        pause = min(pause * 1.5, 5)


class _Base:
    def __init__(self, url: str, *, key: str | None, timeout: float, unit: str | None) -> None:
        headers = {"Accept": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        if unit:
            headers["X-Unit-Id"] = unit
        self._options: dict[str, Any] = {
            "base_url": url.rstrip("/") + "/",
            "headers": headers,
            "timeout": timeout,
        }

    @staticmethod
    def _request(call: Call) -> dict[str, Any]:
        return {"json": call.json, "content": call.content, "headers": call.headers}


class Client(_Base):
    """A service, over HTTP. Failures are a Problem, or an httpx2.TransportError after some tries.

    url is that of the service, key an API key; timeout in seconds is for one try; unit is whom a variant
    sticks to.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 60, unit: str | None = None
    ) -> None:
        super().__init__(url, key=key, timeout=timeout, unit=unit)
        self._http = httpx2.Client(**self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Call):
                    try:
                        answer = self._http.request(step.method, step.path, **self._request(step))
                    except httpx2.TransportError as error:
                        answer = error
                else:
                    time.sleep(step)
                    answer = None
        except StopIteration as end:
            return end.value

    def segment(self, picture: Picture, prompts: Sequence[Prompt] | str, **options: Any) -> Answer:
        """The masks of phrases. Options are the other members of a request: output, variant, deadline_ms and
        priority."""
        call = Call("POST", "v1/segment", json=request_body(picture, prompts, options))
        return self._run(parsed(call, Answer.parse))

    def segment_batch(
        self, items: Sequence[tuple[Picture, Sequence[Prompt] | str]], **options: Any
    ) -> list[BatchResult]:
        """The masks of several pictures, each with its phrases: an answer or a problem for each."""
        return self._run(parsed(batch_call(items, options), batch_results))

    def submit(self, picture: Picture, prompts: Sequence[Prompt] | str, **options: Any) -> Job:
        """A job that does what segment does. With webhook={"url": …} its end is told there."""
        return self._run(parsed(submit_call(picture, prompts, options), Job.parse))

    def job(self, job_id: str) -> Job:
        return self._run(parsed(Call("GET", f"v1/jobs/{job_id}"), Job.parse))

    def wait(self, job_id: str) -> Job:
        """The job, once it has ended."""
        return self._run(waited(job_id))

    def result(self, job_id: str, index: int = 0) -> Answer:
        """What came of an item of a job."""
        return self._run(parsed(Call("GET", f"v1/jobs/{job_id}/items/{index}"), Answer.parse))

    def cancel(self, job_id: str) -> Job:
        return self._run(parsed(Call("POST", f"v1/jobs/{job_id}/cancel"), Job.parse))

    def keep_image(self, picture: str | os.PathLike[str] | bytes) -> Image:
        """Sends a picture to be kept, or makes it last longer."""
        return self._run(parsed(keep_image(picture), Image.parse))

    def image(self, image_id: str) -> Image:
        return self._run(parsed(Call("GET", f"v1/images/{image_id}"), Image.parse))

    def delete_image(self, image_id: str) -> None:
        self._run(sent(Call("DELETE", f"v1/images/{image_id}")))

    def models(self) -> list[Model]:
        return self._run(parsed(Call("GET", "v1/models"), model_list))

    def webhook_secret(self) -> str:
        """What webhooks are signed with, for verify_webhook."""
        return self._run(parsed(Call("GET", "v1/webhooks/secret"), lambda document: document["secret"]))


class AsyncClient(_Base):
    """Client for asyncio."""

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 60, unit: str | None = None
    ) -> None:
        super().__init__(url, key=key, timeout=timeout, unit=unit)
        self._http = httpx2.AsyncClient(**self._options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def _run(self, steps: Steps[T]) -> T:
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                if isinstance(step, Call):
                    try:
                        answer = await self._http.request(step.method, step.path, **self._request(step))
                    except httpx2.TransportError as error:
                        answer = error
                else:
                    await asyncio.sleep(step)
                    answer = None
        except StopIteration as end:
            return end.value

    async def segment(self, picture: Picture, prompts: Sequence[Prompt] | str, **options: Any) -> Answer:
        call = Call("POST", "v1/segment", json=request_body(picture, prompts, options))
        return await self._run(parsed(call, Answer.parse))

    async def segment_batch(
        self, items: Sequence[tuple[Picture, Sequence[Prompt] | str]], **options: Any
    ) -> list[BatchResult]:
        return await self._run(parsed(batch_call(items, options), batch_results))

    async def submit(self, picture: Picture, prompts: Sequence[Prompt] | str, **options: Any) -> Job:
        return await self._run(parsed(submit_call(picture, prompts, options), Job.parse))

    async def job(self, job_id: str) -> Job:
        return await self._run(parsed(Call("GET", f"v1/jobs/{job_id}"), Job.parse))

    async def wait(self, job_id: str) -> Job:
        return await self._run(waited(job_id))

    async def result(self, job_id: str, index: int = 0) -> Answer:
        return await self._run(parsed(Call("GET", f"v1/jobs/{job_id}/items/{index}"), Answer.parse))

    async def cancel(self, job_id: str) -> Job:
        return await self._run(parsed(Call("POST", f"v1/jobs/{job_id}/cancel"), Job.parse))

    async def keep_image(self, picture: str | os.PathLike[str] | bytes) -> Image:
        return await self._run(parsed(keep_image(picture), Image.parse))

    async def image(self, image_id: str) -> Image:
        return await self._run(parsed(Call("GET", f"v1/images/{image_id}"), Image.parse))

    async def delete_image(self, image_id: str) -> None:
        await self._run(sent(Call("DELETE", f"v1/images/{image_id}")))

    async def models(self) -> list[Model]:
        return await self._run(parsed(Call("GET", "v1/models"), model_list))

    async def webhook_secret(self) -> str:
        return await self._run(parsed(Call("GET", "v1/webhooks/secret"), lambda document: document["secret"]))


def submit_call(picture: Picture, prompts: Sequence[Prompt] | str, options: Mapping[str, Any]) -> Call:
    headers = {"Prefer": "respond-async"} | once()
    return Call("POST", "v1/segment", json=request_body(picture, prompts, options), headers=headers)


def batch_call(items: Sequence[tuple[Picture, Sequence[Prompt] | str]], options: Mapping[str, Any]) -> Call:
    body = {"items": [request_body(picture, prompts, {}) for picture, prompts in items]}
    return Call("POST", "v1/segment:batch", json=body | {k: v for k, v in options.items() if v is not None})


def batch_results(document: Mapping[str, Any]) -> list[BatchResult]:
    return [BatchResult.parse(result) for result in document["results"]]


def model_list(document: Mapping[str, Any]) -> list[Model]:
    return [Model.parse(model) for model in document["models"]]
