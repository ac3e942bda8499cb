"""Without a service: what is sent, how often, and how answers are read."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import email.utils
import hashlib
import hmac
import inspect
import io
import json
import pickle
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import httpx2
import numpy as np
import pytest
from refersam_client import (
    AsyncClient,
    BatchItem,
    Client,
    Image,
    Job,
    Problem,
    Result,
    WebhookSecret,
    bodies,
    calls,
    encode_rle,
    parse_webhook,
    verify_webhook,
)

ID = "img_" + "0a" * 32
JOB = {
    "id": "job_1", "kind": "batch", "status": "running", "request_id": "r1",
    "created_at": "2026-11-22T10:00:00.123456789Z", "started_at": "2026-11-22T10:00:01Z",
    "progress": {"total": 3, "succeeded": 1, "failed": 1, "cancelled": 0},
    "items": [
        {"index": 0, "id": "first", "status": "succeeded", "result": "/v1/jobs/job_1/items/0"},
        {"index": 1, "status": "failed", "problem": {"code": "invalid_image", "status": 422}},
        {"index": 2, "status": "queued", "unheard": True},
    ],
    "webhook": {"url": "https://example.com", "status": "pending", "attempts": 2, "last_error": "500",
                "last_attempt_at": "2026-11-22T10:00:02Z"},
    "unheard": {"of": 1},
}  # fmt: skip
ENDED = JOB | {"status": "succeeded"}
IMAGE = {
    "id": ID, "width": 1, "height": 1, "media_type": "image/png", "bytes": 1,
    "created_at": "2026-11-22T10:00:00Z", "expires_at": "2026-11-23T10:00:00Z",
}  # fmt: skip
ANSWER = {
    "request_id": "r1", "image": {"width": 1, "height": 1}, "mask": {"width": 1, "height": 1},
    "model": {"name": "m", "variant": "bert", "version": "1"}, "results": [],
}  # fmt: skip
FEEDBACK = {
    "id": "fb_1", "key": "k", "request_id": "r", "item": 0, "result": 1, "created_at": "2026-11-22T10:00:00Z",
}  # fmt: skip


class Clock:
    def __init__(self, monkeypatch):
        self.time = 1000.0
        monkeypatch.setattr(calls, "now", lambda: self.time)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def described(*, timeout=60.0, max_wait=120.0):
    return calls.Calls(timeout, max_wait, {"Accept": "application/json"})


def reply(status, document=None, **headers):
    named = httpx2.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    return calls.Reply(status, named, b"" if document is None else json.dumps(document).encode())


OVERLOADED = {"code": "overloaded", "status": 503, "request_id": "r"}


def play(steps, answers, clock=None, took=0.0, tries=None):
    """What steps come to if these are the answers, each of which takes so many seconds, or all there are: the
    value, the tries and the pauses."""
    tries = [] if tries is None else tries
    pauses, left, answer = [], list(answers), None
    try:
        while True:
            step = steps.send(answer)
            if isinstance(step, calls.Try):
                tries.append(step)
                answer = left.pop(0)
                passed = step.timeout if took is None else took
            elif isinstance(step, float):
                pauses.append(step)
                answer, passed = None, step
            else:
                answer, passed = step(), 0.0
            if clock:
                clock.time += passed
    except StopIteration as end:
        assert not left
        return end.value, tries, pauses


def test_retries(clock):
    answers = [
        reply(503, OVERLOADED, Retry_After="7"),
        httpx2.ReadError("cut off"),
        reply(409, {"code": "request_under_way", "status": 409}),
        reply(502, {"code": "upstream_failed", "status": 502}),
        reply(200, 1),
    ]
    value, tries, pauses = play(described().sent(calls.Call("GET", "x")), answers, clock)
    assert (json.loads(value.body), len(tries)) == (1, 5)
    for pause, least in zip(pauses, (7, 0.5, 1, 2), strict=True):
        assert least <= pause <= least * 1.25


def test_pauses_are_bounded():
    assert max(calls.pause_after(1000) for _ in range(100)) <= 12
    assert max(calls.pause_after(0, 100.0) for _ in range(100)) <= 102


@pytest.mark.parametrize(
    "answer",
    [
        reply(422, {"code": "invalid_request"}),
        reply(429, {"code": "storage_full"}, Retry_After="1"),
        reply(504, {"code": "deadline_exceeded"}),
        reply(500),
        httpx2.UnsupportedProtocol("localhost"),
        httpx2.LocalProtocolError("a header"),
    ],
)
def test_what_does_not_pass_is_not_tried_again(answer):
    with pytest.raises((Problem, httpx2.TransportError)):
        play(described().sent(calls.Call("GET", "x")), [answer])


def test_wrong_certificates_do_not_pass():
    error = httpx2.ConnectError("no")
    assert calls.may_pass(error)
    error.__cause__ = httpx2.NetworkError("no")
    error.__cause__.__context__ = ssl.SSLCertVerificationError("of another host")
    assert not calls.may_pass(error)


def test_max_wait_bounds_a_call(clock):
    begun = clock.time
    with pytest.raises(Problem, match="overloaded") as caught:
        play(
            described(max_wait=20).sent(calls.Call("GET", "x")),
            [reply(503, OVERLOADED, Retry_After="30")],
            clock,
        )
    assert (caught.value.retry_after, clock.time) == (30, begun)
    tries = []
    steps = described(timeout=8, max_wait=20).sent(calls.Call("GET", "x"))
    with pytest.raises(httpx2.ReadTimeout):
        play(steps, [httpx2.ReadTimeout("late")] * 3, clock, took=None, tries=tries)
    assert clock.time - begun <= 20
    assert [t.timeout for t in tries[:2]] == [8, 8]
    assert 0 < tries[2].timeout == tries[2].left < 4
    assert next(described(max_wait=0).sent(calls.Call("GET", "x"))).timeout > 0


def test_deadlines_shrink(clock):
    # No try is of use that would begin past the deadline.
    with pytest.raises(Problem, match="overloaded"):
        play(described().segment(ID, "the duck", 500), [reply(503, OVERLOADED)], clock, took=0.3)
    results = [{"problem": {"code": "internal"}}]
    answers = [reply(503, OVERLOADED, Retry_After="1"), reply(200, {"results": results})]
    _, tries, pauses = play(described().segment_batch([(ID, "the duck")], 4000), answers, clock, took=1.0)
    first, second = (json.loads(t.content) for t in tries)
    assert first.pop("deadline_ms") == 4000
    assert second.pop("deadline_ms") == pytest.approx(3000 - pauses[0] * 1000, abs=2)
    assert first == second


def test_what_is_done_once_stays_the_same(clock):
    answers = [httpx2.ReadError("cut off"), reply(202, JOB)]
    for steps in (
        described().submit(ID, "the duck", "https://example.com", None, deadline_ms=4000),
        described().submit_batch([(ID, "the duck")], None, None, deadline_ms=4000),
    ):
        job, (first, second), _ = play(steps, answers, clock, took=1.0)
        assert job.id == "job_1"
        assert first.content == second.content
        assert json.loads(first.content)["deadline_ms"] == 4000
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
        assert first.headers["Prefer"] == "respond-async"


def test_deleting_what_was_deleted():
    missing = reply(404, {"code": "job_not_found", "status": 404})
    play(described().delete(Job, "job_1"), [httpx2.ReadError("cut off"), missing])
    with pytest.raises(Problem, match="job_not_found"):
        play(described().delete(Job, "job_1"), [missing])
    with pytest.raises(Problem, match="job_not_found"):
        play(described().job("job_1"), [httpx2.ReadError("cut off"), missing])


def test_wait(clock):
    seen = []
    begun = clock.time
    with pytest.raises(TimeoutError, match="job_1"):
        play(described().wait("job_1", 3, seen.append), [reply(200, JOB)] * 11, clock, took=0.1)
    assert clock.time - begun <= 3.2
    assert [job.status for job in seen] == ["running"]
    answers = [reply(200, JOB), reply(503, OVERLOADED), reply(200, ENDED)]
    job, _, _ = play(described().wait("job_1", None, seen.append), answers, clock)
    assert (job.ended, len(seen)) == (True, 3)
    job, _, _ = play(described().wait("job_1", 0, None), [reply(200, ENDED)], clock)
    assert job.ended
    with pytest.raises(TimeoutError):
        play(described().wait("job_1", 3, None), [reply(503, OVERLOADED, Retry_After="9")], clock)
    with pytest.raises(Problem, match="job_not_found"):
        play(described().wait("job_1", 3, None), [reply(404, {"code": "job_not_found"})], clock)


def test_pictures(tmp_path):
    data = {"data": base64.b64encode(b"bytes").decode()}
    named = tmp_path / "img_1.jpg"
    named.write_bytes(b"bytes")
    for picture in (
        named,
        str(named),
        b"bytes",
        bytearray(b"bytes"),
        memoryview(b"bytes"),
        io.BytesIO(b"bytes"),
    ):
        assert bodies.image_member(picture) == data
    with named.open("rb") as file:
        assert bodies.image_member(file) == data
    assert bodies.image_member(ID) == {"id": ID}
    assert bodies.image_member("https://example.com/a") == {"url": "https://example.com/a"}
    with pytest.raises(ValueError, match="https"):
        bodies.image_member("http://example.com/a")
    for wrong in (ID[:-1], ID.upper(), ID + "\n", "img_vacation.jpg"):
        with pytest.raises(FileNotFoundError):
            bodies.image_member(wrong)
    for wrong in (io.StringIO("text"), 7, None):
        with pytest.raises(TypeError, match="picture"):
            bodies.image_member(wrong)


def test_prompts_and_batches():
    assert bodies.prompt_members("a") == bodies.prompt_members({"text": "a"}) == [{"text": "a"}]
    assert bodies.prompt_members(["a", {"text": "b", "keep": "largest"}])[1] == {
        "text": "b",
        "keep": "largest",
    }
    items = [(ID, "a"), BatchItem(ID, {"text": "b"}, id="second", output={"formats": ["png"]})]
    content, count = bodies.batch_body(iter(items), {"variant": None, "priority": "batch"})
    assert count == 2
    assert json.loads(content) == {
        "items": [
            {"image": {"id": ID}, "prompts": [{"text": "a"}]},
            {"image": {"id": ID}, "prompts": [{"text": "b"}], "id": "second", "output": {"formats": ["png"]}},
        ],
        "priority": "batch",
    }


def test_images_by_their_address():
    _, (step,), _ = play(described().keep_image("https://example.com/a", None), [reply(201, IMAGE)])
    assert json.loads(step.content) == {"image": {"url": "https://example.com/a"}}
    assert step.headers["Content-Type"] == "application/json"
    _, (step,), _ = play(described().keep_image(io.BytesIO(b"bytes"), None), [reply(201, IMAGE)])
    assert (step.content, step.headers["Content-Type"]) == (b"bytes", "application/octet-stream")


def test_ids_are_no_paths():
    for wrong in ("", ".", ".."):
        with pytest.raises(ValueError, match="not an id"):
            described().job(wrong)
    assert next(described().job("a/b?c")).call.path == "v1/jobs/a%2Fb%3Fc"


def test_masks_are_decoded_when_they_are_looked_at():
    document = {
        "empty": False, "score": 0.5, "area": 1, "bbox": [0, 0, 1, 1], "origin": "model", "unheard": "of",
        "quality": {"components": 2, "stability": 0.5},
        "masks": {"coco_rle": {"size": [2, 3], "counts": "!"}},
    }  # fmt: skip
    broken = Result.parse(document)
    assert (broken.quality.components, broken.quality.stability) == (2, 0.5)
    with pytest.raises(ValueError, match="run"):
        _ = broken.mask
    mask = np.array([[1, 0, 0], [0, 0, 1]], bool)
    whole = Result.parse(document | {"masks": {"coco_rle": {"size": [2, 3], "counts": encode_rle(mask)}}})
    np.testing.assert_array_equal(whole.mask, mask)
    assert whole.mask is whole.mask
    bare = {name: value for name, value in document.items() if name not in ("quality", "masks")}
    assert (Result.parse(bare).mask, Result.parse(bare).quality) == (None, None)


def test_jobs_tell_all():
    job = Job.parse(JOB)
    assert (job.request_id, job.webhook.status, job.webhook.attempts) == ("r1", "pending", 2)
    assert job.started_at == datetime(2026, 11, 22, 10, 0, 1, tzinfo=UTC)
    assert (job.finished_at, job.expires_at, job.ended) == (None, None, False)
    assert [item.id for item in job.items] == ["first", None, None]
    assert job.items[1].problem.code == "invalid_image"


def test_usage_and_feedback_are_sent_as_they_are_read():
    steps = described().usage(date(2026, 11, 1), None, None)
    used = {"day": "2026-11-22", "key": "k", "requests": 1, "pictures": 2, "gpu_ms": 3.5}
    (day,), (step,), _ = play(steps, [reply(200, {"usage": [used]})])
    assert dict(step.call.query) == {"from": "2026-11-01"}
    assert (day.day, day.gpu_ms) == (date(2026, 11, 22), 3.5)
    mask = np.eye(3, dtype=np.uint8)
    rle = {"counts": encode_rle(mask), "size": [3, 3]}
    steps = described().send_feedback(mask, None, request_id="r", result=1, verdict=None)
    kept, (step,), _ = play(steps, [reply(201, FEEDBACK | {"corrected_mask": rle})])
    assert json.loads(step.content) == {"request_id": "r", "result": 1, "corrected_mask": rle}
    np.testing.assert_array_equal(kept.corrected_mask, mask)
    assert "Idempotency-Key" in step.headers


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (401, "unauthorized"), (403, "forbidden"), (404, "not_found"), (413, "image_too_large"),
        (429, "quota_exceeded"), (502, "upstream_failed"), (503, "upstream_unavailable"),
        (504, "deadline_exceeded"), (301, "upstream_failed"),
    ],
)  # fmt: skip
def test_pages_of_proxies_are_problems(status, code):
    for content in (b"<html>", b"[]", b'{"error": "no"}'):
        page = calls.Reply(status, httpx2.Headers({"X-Request-Id": "r1", "Retry-After": "soon"}), content)
        problem = calls.problem_of(page)
        assert (problem.code, problem.status, problem.request_id) == (code, status, "r1")
        assert problem.retry_after is None
        assert content.decode() in problem.detail
        assert str(status) in problem.detail


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (400, "check the address"), (401, "API key"), (403, "proxy"), (404, "no refersam service"),
        (405, "no refersam service"), (408, "too slowly"), (413, "of 4321 bytes is larger than a proxy"),
        (414, "longer than a proxy"), (429, "proxy"), (431, "headers"),
        (500, "any proxy before the service"), (502, "gets no answer"),
        (503, "not available"), (504, "does not wait long enough"),
    ],
)  # fmt: skip
def test_pages_of_proxies_say_what_to_do(status, says):
    page = b"<html><title>no {sent}</title>" + b"x" * 1000
    problem = calls.problem_of(calls.Reply(status, httpx2.Headers({"Server": "nginx/1.27"}), page), 4321)
    for text in (says, str(status), "nginx/1.27", "<title>no {sent}</title>"):
        assert text in str(problem)
    assert len(str(problem)) < 600
    empty = calls.problem_of(calls.Reply(status, httpx2.Headers({}), b""), 4321)
    assert empty.detail.endswith(f"The status is {status}.")


def test_a_redirect_is_named():
    moved = calls.Reply(308, httpx2.Headers({"Location": "https://masks.example.com/"}), b"")
    assert "https://masks.example.com/" in calls.problem_of(moved).detail


def test_a_proxy_refuses_a_request_with_its_size(clock):
    call = calls.Call("POST", "x", content=b"{" + b"x" * 998 + b"}", deadline_ms=1000)
    tries = []
    with pytest.raises(calls.Problem, match=r"^image_too_large: .* of (\d+) bytes") as refused:
        play(described().sent(call), [reply(413)], clock, tries=tries)
    assert f"of {len(tries[0].content)} bytes" in str(refused.value)


def test_problems():
    later = email.utils.formatdate(time.time() + 100, usegmt=True)
    problem = calls.problem_of(
        reply(429, {"code": "quota_exceeded", "detail": "d", "field": "/a"}, Retry_After=later)
    )
    assert 98 <= problem.retry_after <= 100
    again = pickle.loads(pickle.dumps(problem))
    assert (str(again), again.retry_after) == ("quota_exceeded: d (/a)", problem.retry_after)
    past = email.utils.formatdate(0, usegmt=True)
    assert calls.problem_of(reply(503, Retry_After=past)).retry_after == 0
    with pytest.raises(Problem, match="upstream_failed") as caught:
        play(described().job("job_1"), [reply(200, {"id": "job_1"}, X_Request_Id="r1")])
    assert (caught.value.status, caught.value.request_id) == (200, "r1")


def both(handler, use, use_async, **options):
    """What the clients come to before a service that handler plays."""
    with Client("http://service", transport=httpx2.MockTransport(handler), **options) as client:
        result = use(client)

    async def run():
        async with AsyncClient(
            "http://service", transport=httpx2.MockTransport(handler), **options
        ) as client:
            return await use_async(client)

    return result, asyncio.run(run())


async def collected(entries):
    return [entry async for entry in entries]


def test_lists_are_gone_through():
    def handler(request):
        assert request.url.params["limit"] == "100"
        assert request.url.params["status"] == "failed"
        if "cursor" not in request.url.params:
            return httpx2.Response(200, json={"jobs": [JOB, JOB | {"id": "job_2"}], "next": "c&d"})
        assert request.url.params["cursor"] == "c&d"
        return httpx2.Response(200, json={"jobs": [JOB | {"id": "job_3"}]})

    for jobs in both(handler, lambda c: list(c.jobs("failed")), lambda c: collected(c.jobs("failed"))):
        assert [job.id for job in jobs] == ["job_1", "job_2", "job_3"]


class Body(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that breaks, or that nobody reads to its end."""

    def __init__(self, *pieces):
        self.pieces, self.closed = pieces, False

    def __iter__(self):
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def __aiter__(self):
        for piece in self:
            yield piece

    def close(self):
        self.closed = True

    async def aclose(self):
        self.closed = True


def event(seq, kind, **data):
    return f"id: {seq}\nevent: {kind}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def test_events_go_on_where_they_were_cut_off(monkeypatch):
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.001)
    asked = []

    def handler(request):
        assert request.url.path == "/v1/jobs/job_1/events"
        assert request.headers["accept"] == "text/event-stream"
        asked.append(request.headers.get("last-event-id"))
        running = event(1, "job", job="job_1", status="running")
        item = event(2, "item", index=0, id="a\u2028b", status="succeeded", result="/v1")
        stream = {
            None: Body(b"retry: 1000\n\n", running, b":\n\n", item[:20], httpx2.ReadError("cut off")),
            "1": Body(running, item[:9], item[9:], event(3, "unheard", of=1)),
            "2": None,
        }[asked[-1]]
        if stream is None:
            return httpx2.Response(204)
        return httpx2.Response(200, stream=stream, headers={"Content-Type": "text/event-stream"})

    for told in both(handler, lambda c: list(c.events("job_1")), lambda c: collected(c.events("job_1"))):
        assert [(e.seq, e.status, e.item and e.item.id) for e in told] == [
            (1, "running", None), (2, "succeeded", "a\u2028b"),
        ]  # fmt: skip
    assert asked == [None, "1", "2"] * 2


def test_events_end_with_their_job():
    made = []

    def handler(request):
        assert request.headers["last-event-id"] == "4"
        ends = event(5, "job", job="job_1", status="failed")
        made.append(Body(event(4, "item", index=0, status="failed"), ends, httpx2.ReadError("never read")))
        return httpx2.Response(200, stream=made[-1], headers={"Content-Type": "text/event-stream"})

    for told in both(
        handler, lambda c: list(c.events("job_1", 4)), lambda c: collected(c.events("job_1", 4))
    ):
        assert [(e.seq, e.status) for e in told] == [(5, "failed")]

    def first(client):
        with contextlib.closing(client.events("job_1", 4)) as events:
            return next(events)

    async def first_async(client):
        async with contextlib.aclosing(client.events("job_1", 4)) as events:
            return await anext(events)

    both(handler, first, first_async)
    assert [body.closed for body in made] == [True] * 4


def test_events_that_are_none():
    def page(request):
        return httpx2.Response(200, text="<html>")

    def broken(request):
        body = b"id: 1\nevent: job\ndata: {}\n\n"
        return httpx2.Response(200, content=body, headers={"Content-Type": "text/event-stream"})

    for handler, error, match in (
        (page, httpx2.TransportError, "event-stream"), (broken, Problem, "upstream_failed"),
    ):  # fmt: skip
        client = Client("http://service", transport=httpx2.MockTransport(handler))
        with client, pytest.raises(error, match=match):
            next(client.events("job_1"))


def test_what_trickles_in_is_bounded():
    class Trickle(httpx2.SyncByteStream, httpx2.AsyncByteStream):
        def __iter__(self):
            while True:
                time.sleep(0.02)
                yield b" "

        async def __aiter__(self):
            while True:
                await asyncio.sleep(0.02)
                yield b" "

    async def use_async(client):
        with pytest.raises(httpx2.ReadTimeout):
            await client.job("job_1")

    def use(client):
        with pytest.raises(httpx2.ReadTimeout):
            client.job("job_1")

    begun = time.monotonic()
    both(lambda request: httpx2.Response(200, stream=Trickle()), use, use_async, max_wait=0.2)
    assert time.monotonic() - begun < 3


def test_options():
    asked = []

    def handler(request):
        asked.append((request.headers, request.extensions["timeout"]))
        return httpx2.Response(503, json=OVERLOADED, headers={"Retry-After": "5"})

    transport = httpx2.MockTransport(handler)
    with Client("http://service/", key="rsk_1", unit="u1", transport=transport) as client:
        other = client.with_options(timeout=2, max_wait=4, unit="u2", request_id="r7")
        with pytest.raises(Problem):
            other.job("job_1")
        with pytest.raises(Problem):
            client.with_options(max_wait=1).job("job_1")
    (first, timeout), (second, bounded) = asked
    assert (first["x-unit-id"], first["x-request-id"], timeout["read"]) == ("u2", "r7", 2)
    assert (second["x-unit-id"], second.get("x-request-id")) == ("u1", None)
    assert bounded["connect"] <= 1
    assert first["authorization"] == second["authorization"] == "Bearer rsk_1"
    with pytest.raises(ValueError, match="key") as caught:
        Client("http://service", key="rsk_1\n")
    assert "rsk_1" not in str(caught.value)


def sent(use, answer):
    """The one request that a call comes to, whose answer is this; both clients send the same."""
    requests = []

    def handler(request):
        requests.append(request)
        return httpx2.Response(200, json=answer)

    both(handler, use, use)
    first, second = requests
    assert (first.method, first.url, first.content) == (second.method, second.url, second.content)
    return first


def failing(use, error, match):
    """Uses of the two clients, in which a call raises this, and which return it."""

    def use_sync(client):
        with pytest.raises(error, match=match) as caught:
            use(client)
        return caught.value

    async def use_async(client):
        with pytest.raises(error, match=match) as caught:
            await use(client)
        return caught.value

    return use_sync, use_async


def refused(use, error, match):
    """That a call raises this in both clients and sends nothing."""

    def handler(request):
        pytest.fail("it was sent")

    for raised in both(handler, *failing(use, error, match)):
        assert type(raised) is error  # and not UnicodeEncodeError, which is a ValueError


def test_jobs_and_images_stand_for_their_ids():
    job, image = Job.parse(ENDED), Image.parse(IMAGE)
    for use, answer, method, path in (
        (lambda c: c.job(job), ENDED, "GET", "/v1/jobs/job_1"),
        (lambda c: c.wait(job), ENDED, "GET", "/v1/jobs/job_1"),
        (lambda c: c.result(job, 2), ANSWER, "GET", "/v1/jobs/job_1/items/2"),
        (lambda c: c.cancel(job), ENDED, "POST", "/v1/jobs/job_1/cancel"),
        (lambda c: c.delete_job(job), None, "DELETE", "/v1/jobs/job_1"),
        (lambda c: c.redeliver(job), ENDED, "POST", "/v1/jobs/job_1/webhook/redeliver"),
        (lambda c: c.image(image), IMAGE, "GET", f"/v1/images/{ID}"),
        (lambda c: c.image_content(image), None, "GET", f"/v1/images/{ID}/content"),
        (lambda c: c.delete_image(image), None, "DELETE", f"/v1/images/{ID}"),
    ):
        request = sent(use, answer)
        assert (request.method, request.url.path) == (method, path)

    def handler(request):
        assert request.url.path == "/v1/jobs/job_1/events"
        return httpx2.Response(204)

    assert both(handler, lambda c: list(c.events(job)), lambda c: collected(c.events(job))) == ([], [])
    with pytest.raises(TimeoutError, match="the job job_1 "):
        play(described().wait(Job.parse(JOB), 0, None), [reply(200, JOB)])
    refused(lambda c: c.cancel(image), TypeError, "jobs .* not as Image")
    refused(lambda c: c.delete_image(job), TypeError, "images .* not as Job")
    refused(lambda c: c.result(7), TypeError, "jobs .* not as int")


def test_what_is_kept_is_not_kept_again():
    image = Image.parse(IMAGE)
    asked = sent(lambda c: c.segment(image, "the duck"), ANSWER)
    assert json.loads(asked.content)["image"] == {"id": ID}
    asked = sent(lambda c: c.submit_batch([(image, "the duck")]), JOB)
    assert json.loads(asked.content)["items"][0]["image"] == {"id": ID}
    for kept in (image, ID):
        refused(lambda c, kept=kept: c.keep_image(kept), ValueError, "is already stored")


def test_numbers_of_numpy_are_numbers():
    prompt = {"text": "the duck", "threshold": np.float32(0.25), "min_area": np.int64(64)}
    output = {"fill_holes": np.uint8(3), "tolerance": np.float16(1.5), "quality": np.bool_(True)}
    asked = sent(lambda c: c.segment(b"a", [prompt], output=output, deadline_ms=np.int32(4000)), ANSWER)
    document = json.loads(asked.content)
    assert document["prompts"] == [{"text": "the duck", "threshold": 0.25, "min_area": 64}]
    assert document["output"] == {"fill_holes": 3, "tolerance": 1.5, "quality": True}
    assert 3900 < document["deadline_ms"] <= 4000
    asked = sent(lambda c: c.submit(b"a", "the duck", deadline_ms=np.int64(9)), JOB)
    assert json.loads(asked.content)["deadline_ms"] == 9
    asked = sent(lambda c: c.send_feedback("r", np.intp(1), rating=np.int8(5)), FEEDBACK)
    assert json.loads(asked.content) == {"request_id": "r", "item": 0, "result": 1, "rating": 5}
    refused(lambda c: c.segment(b"a", "a", output={"threshold": np.float32("nan")}), ValueError, "JSON")
    refused(lambda c: c.segment(b"a", "the duck", output={"formats": {"png"}}), TypeError, "set")


def test_models():
    listed = {
        "models": [
            {
                "name": "refersam_bert", "variant": "bert", "version": "1", "label": "demo", "weight": 0.5,
                "image_size": 320, "tokenizer": "bert", "max_tokens": 20, "threshold": 0.5,
                "precision": "fp32", "checkpoint": "0a" * 32,
            }
        ],
        "formats": ["coco_rle", "unheard"],
        "limits": {
            "max_image_bytes": 1, "max_image_pixels": 2, "max_phrases": 3, "max_phrase_bytes": 4,
            "max_mask_pixels": 5, "max_batch_items": 6, "max_batch_bytes": 7, "request_timeout_ms": 8,
            "max_image_side": 9, "max_image_frames": 10, "unheard": 11,
        },
    }  # fmt: skip

    def handler(request):
        assert request.url.path == "/v1/models"
        return httpx2.Response(200, json=listed)

    for told in both(handler, lambda c: c.models(), lambda c: c.models()):
        (model,), limits = told.models, told.limits
        assert (model.weight, model.tokenizer, model.precision) == (0.5, "bert", "fp32")
        assert model.checkpoint == "0a" * 32
        assert (limits.max_image_bytes, limits.max_image_side, limits.max_image_frames) == (1, 9, 10)
        assert (limits.max_mask_pixels, limits.max_batch_items, limits.request_timeout_ms) == (5, 6, 8)
        assert told.formats == ["coco_rle", "unheard"]


@pytest.mark.parametrize(
    "url",
    ["", "service", "localhost:8080", "127.0.0.1:8080", "ftp://service", "http://", "http://[::1", "//a"],
)
def test_urls_that_are_none(url):
    for kind in (Client, AsyncClient):
        with pytest.raises(ValueError, match=r'such as "http://127\.0\.0\.1:8080"'):
            kind(url)


def test_units_are_text():
    for unit in ("user-17", "Zoë 李", "ä" * 128):
        asked = sent(lambda c, unit=unit: c.with_options(unit=unit).job("job_1"), JOB)
        raw = {name.lower(): value for name, value in asked.headers.raw}
        assert raw[b"x-unit-id"] == unit.encode()
    for none in ("", "ä" * 129, "a\nb", "a\0", "\x7f", " a", "a ", "\ud800"):
        with pytest.raises(ValueError, match="unit") as caught:
            Client("http://service", unit=none)
        assert type(caught.value) is ValueError
        refused(lambda c, none=none: c.with_options(unit=none), ValueError, "unit")
    for none in ("", "ä", "a b", "a\n", "a" * 129):
        refused(lambda c, none=none: c.with_options(request_id=none), ValueError, "request id")


def test_units_reach_the_service():
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            with listener.accept()[0] as connection:
                heads.append(connection.recv(1 << 16))
                content = json.dumps(JOB).encode()
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)

        heads = []
        thread = threading.Thread(target=serve)
        thread.start()
        with Client(f"http://127.0.0.1:{listener.getsockname()[1]}", unit="Zoë 李") as client:
            assert client.job("job_1").id == "job_1"
        thread.join()
    assert b"\r\nX-Unit-Id: " + "Zoë 李".encode() + b"\r\n" in heads[0]


def test_days():
    east = timezone(timedelta(hours=9))
    for day, written in (
        (date(2026, 11, 1), "2026-11-01"),
        ("2026-11-01", "2026-11-01"),
        (datetime(2026, 11, 1, 23, 59, tzinfo=UTC), "2026-11-01"),
        (datetime(2026, 11, 2, 8, 59, tzinfo=east), "2026-11-01"),
    ):
        asked = sent(lambda c, day=day: c.usage(day, last=day), {"usage": []})
        assert dict(asked.url.params) == {"from": written, "to": written}
    for none in ("", "20261101", "2026-11-31", "01.11.2026", "2026-11-01T00:00:00Z", "２０２６-11-01"):
        refused(lambda c, none=none: c.usage(none), ValueError, "2026-11-22")
    refused(lambda c: c.usage(last=datetime(2026, 11, 1)), ValueError, "zone")
    refused(lambda c: c.usage(20261101), TypeError, "not int")


def test_items_of_batches():
    for wrong in ("p.jpg", "ab", Path("p.jpg"), b"bytes", (ID,), (ID, "the duck", "id"), None):
        for call in ("segment_batch", "submit_batch"):
            refused(
                lambda c, call=call, wrong=wrong: getattr(c, call)([wrong]),
                TypeError,
                f"a BatchItem, or a picture and its phrases.* not {type(wrong).__name__}",
            )
    asked = sent(lambda c: c.submit_batch([ID, "the duck"] for _ in range(2)), JOB)
    assert len(json.loads(asked.content)["items"]) == 2


@pytest.mark.parametrize("phrases", [7, b"the duck", ["the duck", None], [["the duck"]]])
def test_phrases_that_are_none(phrases):
    refused(lambda c: c.segment(ID, phrases), TypeError, "phrase")


def test_text_that_is_none():
    for use in (
        lambda c: c.segment(ID, "the \ud800 duck"),
        lambda c: c.segment_batch([BatchItem(ID, "the duck", id="\udfff")]),
        lambda c: c.submit(ID, {"text": "\ud800"}),
        lambda c: c.send_feedback("r", comment="\ud800"),
    ):
        refused(use, ValueError, r"\\ud[8f][0f][0f]")
    asked = sent(lambda c: c.segment(ID, "the 🦆"), ANSWER)
    assert json.loads(asked.content)["prompts"] == [{"text": "the 🦆"}]


SECRET = {"secret": "whsec_a2s=", "previous_until": "2026-11-23T10:00:00Z"}
STORES = [
    (lambda c, **options: c.submit(ID, "the duck", **options), JOB),
    (lambda c, **options: c.submit_batch([(ID, "the duck")], **options), JOB),
    (lambda c, **options: c.keep_image(b"bytes", **options), IMAGE),
    (lambda c, **options: c.keep_image("https://example.com/a", **options), IMAGE),
    (lambda c, **options: c.send_feedback("r", verdict="good", **options), FEEDBACK),
    (lambda c, **options: c.redeliver("job_1", **options), ENDED),
    (lambda c, **options: c.rotate_webhook_secret(**options), SECRET),
]


@pytest.mark.parametrize(("use", "answer"), STORES)
def test_idempotency_keys(use, answer):
    for key in ("!", "order-17", "a'b", "~" * 255):
        asked = sent(lambda c, key=key: use(c, idempotency_key=key), answer)
        assert asked.headers["Idempotency-Key"] == key
    first, second = (sent(use, answer).headers["Idempotency-Key"] for _ in range(2))
    assert first != second
    for none in ("", "a b", 'a"b', '"a"', "ä", "a\n", "a" * 256):
        refused(lambda c, none=none: use(c, idempotency_key=none), ValueError, "idempotency key")


def test_secrets():
    for use in (lambda c: c.webhook_secret(), lambda c: c.rotate_webhook_secret()):
        for answer, until in (
            (SECRET, datetime(2026, 11, 23, 10, tzinfo=UTC)),
            ({"secret": "whsec_a2s="}, None),
        ):
            for secret in both(lambda request, answer=answer: httpx2.Response(200, json=answer), use, use):
                assert (secret.secret, secret.previous_until) == ("whsec_a2s=", until)
                assert "a2s" not in repr(secret)


def test_batches_are_answered_in_full():
    answered, failed = {"answer": ANSWER}, {"problem": {"code": "invalid_image"}}
    for results in ([], [answered], [answered] * 3, [answered, {}]):

        def handler(request, results=results):
            return httpx2.Response(200, json={"results": results}, headers={"X-Request-Id": "r1"})

        uses = failing(lambda c: c.segment_batch([(ID, "the duck")] * 2), Problem, "upstream_failed")
        for problem in both(handler, *uses):
            assert (problem.status, problem.request_id) == (200, "r1")
    asked = sent(lambda c: c.segment_batch(iter([(ID, "a"), (ID, "b")])), {"results": [answered, failed]})
    assert len(json.loads(asked.content)["items"]) == 2


def gzipped(content, wbits=zlib.MAX_WBITS | 16):
    packer = zlib.compressobj(wbits=wbits)
    return packer.compress(content) + packer.flush()


def packed(content, **headers):
    named = {"Content-Encoding": "gzip", "X-Request-Id": "r1"} | headers
    return httpx2.Response(200, stream=Body(content), headers=named)


def test_damaged_answers_are_problems(monkeypatch):
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.01)
    whole = gzipped(json.dumps(JOB).encode())
    damaged = whole[:20] + bytes(byte ^ 0x55 for byte in whole[20:])

    asked = []

    def handler(request):
        asked.append(request)
        return packed(damaged)

    uses = failing(lambda c: c.job("job_1"), Problem, r"upstream_failed: .* decompressed")
    for problem in both(handler, *uses, max_wait=0.1):
        assert (problem.status, problem.request_id) == (200, "r1")
    assert len(asked) >= 4

    answers = [damaged, whole] * 2
    for job in both(lambda _: packed(answers.pop(0)), lambda c: c.job("job_1"), lambda c: c.job("job_1")):
        assert job.id == "job_1"

    last = event(2, "job", job="job_1", status="succeeded")
    streams = [damaged, gzipped(event(1, "job", job="job_1", status="running") + last)] * 2

    def stream(request):
        return packed(streams.pop(0), **{"Content-Type": "text/event-stream"})

    for told in both(stream, lambda c: list(c.events("job_1")), lambda c: collected(c.events("job_1"))):
        assert [e.seq for e in told] == [1, 2]


def test_answers_are_bounded():
    packer = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(512)) + packer.flush()
    made = []

    def handler(request):
        made.append(Body(bomb))
        return httpx2.Response(
            200, stream=made[-1], headers={"Content-Encoding": "gzip", "X-Request-Id": "r1"}
        )

    uses = failing(lambda c: c.image_content(ID), Problem, r"upstream_failed: .* 100663296 bytes")
    tracemalloc.start()
    problems = both(handler, *uses)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [(problem.status, problem.request_id) for problem in problems] == [(200, "r1")] * 2
    assert peak < 160 << 20
    assert [body.closed for body in made] == [True] * 2


def test_pictures_are_read_beside_the_loop():
    threads = []

    class File(io.BytesIO):
        def read(self, *args):
            threads.append(threading.current_thread())
            return super().read(*args)

    async def run():
        transport = httpx2.MockTransport(lambda request: httpx2.Response(202, json=JOB))
        async with AsyncClient("http://service", transport=transport) as client:
            await client.submit(File(b"a"), "the duck")
            await client.submit_batch([(File(b"a"), "the duck")])

    asyncio.run(run())
    assert len(threads) == 2
    assert threading.main_thread() not in threads


def test_both_clients_are_the_same():
    def surface(kind):
        return {
            name: [(p.name, p.kind, p.default) for p in inspect.signature(method).parameters.values()]
            for name, method in inspect.getmembers(kind, inspect.isfunction)
            if not name.startswith("_")
        }

    assert surface(Client) == surface(AsyncClient)
    for name in ("jobs", "images", "feedback", "events"):
        assert inspect.signature(getattr(AsyncClient, name)).return_annotation.startswith("Async")


def test_webhooks():
    secret, now = "whsec_" + base64.b64encode(b"k" * 24).decode(), 1_800_000_000
    finished = {"type": "job.finished", "timestamp": "2026-11-22T10:00:00Z", "data": ENDED, "of": "ä"}
    body = json.dumps(finished).encode()

    def headers(body=body, sent=now):
        mac = hmac.new(b"k" * 24, f"msg_1.{sent}.".encode() + body, hashlib.sha256).digest()
        signature = "v1,AAAA v1a,x v1," + base64.b64encode(mac).decode()
        return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(sent), "Webhook-Signature": signature}

    assert verify_webhook(body, headers(), secret, now=now + 10) == "msg_1"
    for wrong, at in (
        (headers(b"{}"), now), (headers(), now + 301), (headers(), now - 301), ({}, now),
        (headers() | {"Webhook-Signature": "v1,ä"}, now), (headers() | {"Webhook-Id": "ä"}, now),
        (headers() | {"Webhook-Signature": "v1,\ud800"}, now),
        (headers() | {"Webhook-Timestamp": "9" * 400}, now),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="webhook"):
            verify_webhook(body, wrong, secret, now=at)
    with pytest.raises(ValueError, match="secret"):
        verify_webhook(body, headers(), "whsec_?", now=now)
    anybody = hmac.new(b"", f"msg_1.{now}.".encode() + body, hashlib.sha256).digest()
    signed = headers() | {"Webhook-Signature": "v1," + base64.b64encode(anybody).decode()}
    for none in ("", "whsec_"):
        with pytest.raises(ValueError, match="secret"):
            verify_webhook(body, signed, none, now=now)
    told = parse_webhook(body, headers(), secret, now=now)
    assert (told.id, told.type, told.job.id, told.timestamp.year) == ("msg_1", "job.finished", "job_1", 2026)
    text = json.dumps(finished, ensure_ascii=False)
    kept = WebhookSecret(secret, None)
    assert parse_webhook(text, headers(text.encode()), kept, now=now).job.id == "job_1"
    with pytest.raises(ValueError, match="webhook"):
        verify_webhook("\ud800", headers(), secret, now=now)
    with pytest.raises(TypeError, match="not dict"):
        verify_webhook(finished, headers(), secret, now=now)
    other = json.dumps({"type": "unheard", "timestamp": "2026-11-22T10:00:00Z", "data": 1}).encode()
    assert parse_webhook(other, headers(other), secret, now=now).job is None
    with pytest.raises(ValueError, match="webhook"):
        parse_webhook(b"[]", headers(b"[]"), secret, now=now)
