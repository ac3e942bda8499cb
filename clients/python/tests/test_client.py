"""Against a running service, whose address is in REFERSAM_URL."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import os
import urllib.request
from pathlib import Path

import httpx2
import numpy as np
import pytest
from pycocotools import mask as coco
from refersam_client import AsyncClient, Client, Problem, decode_rle, verify_webhook
from refersam_client import client as calls

URL = os.environ["REFERSAM_URL"]
PICTURE = Path(__file__).parents[3] / "tests" / "testdata" / "scene_00.jpg"


@pytest.fixture
def client():
    with Client(URL) as client:
        yield client


def test_rle_is_that_of_pycocotools():
    generator = np.random.default_rng(1)
    shapes = [(1, 1), (1, 50), (50, 1), (480, 640)] + [
        tuple(generator.integers(1, 90, 2)) for _ in range(300)
    ]
    for height, width in shapes:
        for density in (0, 0.02, 0.5, 1):
            mask = generator.random((height, width)) < density
            counts = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
            np.testing.assert_array_equal(decode_rle(counts, int(height), int(width)), mask)


@pytest.mark.parametrize("counts", ["", "!", "o", "04", "ooooooooooo0", "\x7f0"])
def test_rle_that_is_none(counts):
    with pytest.raises(ValueError, match="run"):
        decode_rle(counts, 2, 3)


def test_segment(client):
    answer = client.segment(PICTURE, ["the duck", {"text": "all the apples", "id": "b", "threshold": 0.4}])
    assert [r.prompt_id for r in answer.results] == [None, "b"]
    for result in answer.results:
        assert result.mask.shape == (answer.height, answer.width)
        assert result.mask.dtype == bool
        assert result.mask.sum() == result.area
        assert result.empty == (result.area == 0)
        if result.area:
            x, y, w, h = result.bbox
            rows, columns = np.nonzero(result.mask)
            assert (x, y, w, h) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    small = client.segment(PICTURE.read_bytes(), "the duck", variant=answer.variant, output={"size": "model"})
    assert small.results[0].mask.shape == (small.mask_height, small.mask_width) != (small.height, small.width)


def test_images_and_jobs(client):
    image = client.keep_image(PICTURE)
    assert image.id == "img_" + hashlib.sha256(PICTURE.read_bytes()).hexdigest()
    assert client.image(image.id) == client.image(image.id)
    alone = client.segment(PICTURE, "the duck", variant="bert")
    kept = client.segment(image, "the duck", variant="bert")
    np.testing.assert_array_equal(kept.results[0].mask, alone.results[0].mask)
    job = client.wait(client.submit(image, "the duck", variant="bert").id)
    assert (job.status, job.total, job.succeeded, job.ended) == ("succeeded", 1, 1, True)
    np.testing.assert_array_equal(client.result(job.id).results[0].mask, alone.results[0].mask)
    assert client.cancel(job.id).status == "succeeded"
    client.delete_image(image.id)
    with pytest.raises(Problem) as caught:
        client.image(image.id)
    assert (caught.value.code, caught.value.status) == ("image_not_found", 404)


def test_batch(client):
    first, second = client.segment_batch([(PICTURE, "the duck"), (b"no picture", "the duck")])
    assert first.answer.results[0].mask is not None
    assert first.problem is None
    assert (second.answer, second.problem.code, second.problem.field) == (
        None, "unsupported_media_type", "/items/1/image/data",
    )  # fmt: skip


def test_problem(client):
    with pytest.raises(Problem, match="phrase_empty") as caught:
        client.segment(PICTURE, ["the duck", " "])
    assert caught.value.field == "/prompts/1/text"
    assert caught.value.request_id
    assert caught.value.errors[0]["pointer"] == "#/prompts/1/text"


def test_async():
    async def both():
        async with AsyncClient(URL) as client:
            answers = await asyncio.gather(
                *(client.segment(PICTURE, "the duck", variant=v) for v in ("bert", "clip"))
            )
            job = await client.wait((await client.submit(PICTURE, "the duck")).id)
            return answers, await client.result(job.id), await client.models()

    (bert, clip), result, models = asyncio.run(both())
    assert (bert.variant, clip.variant) == ("bert", "clip")
    assert result.results[0].mask.shape == (bert.height, bert.width)
    assert {m.variant for m in models} == {"bert", "clip"}


def play(steps, answers):
    """What a generator of the client comes to if it gets these answers, and the pauses that it made."""
    pauses, left = [], list(answers)
    step = next(steps)
    try:
        while True:
            if isinstance(step, calls.Call):
                step = steps.send(left.pop(0))
            else:
                pauses.append(step)
                step = steps.send(None)
    except StopIteration as end:
        assert not left
        return end.value, pauses


def test_retries():
    answers = [
        httpx2.Response(503, json={"code": "overloaded", "status": 503}, headers={"Retry-After": "7"}),
        httpx2.ReadError("cut off"),
        httpx2.Response(409, json={"code": "request_under_way", "status": 409}),
        httpx2.Response(200, json=1),
    ]
    response, pauses = play(calls.sent(calls.Call("GET", "x")), answers)
    assert response.json() == 1
    assert len(pauses) == 3
    assert 7 <= pauses[0] <= 14
    refused = httpx2.Response(422, json={"code": "invalid_request", "status": 422})
    with pytest.raises(Problem, match="invalid_request"):
        play(calls.sent(calls.Call("GET", "x")), [refused])


def test_webhooks(client):
    secret, body, now = client.webhook_secret(), b'{"type":"job.finished"}', 1_800_000_000

    def headers(body=body, sent=now):
        key = base64.b64decode(secret.removeprefix("whsec_"))
        mac = hmac.new(key, f"msg_1.{sent}.".encode() + body, hashlib.sha256).digest()
        signature = "v1,AAAA v1," + base64.b64encode(mac).decode()
        return {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(sent), "Webhook-Signature": signature}

    assert verify_webhook(body, headers(), secret, now=now + 10) == "msg_1"
    for wrong, at in ((headers(b"{}"), now), (headers(), now + 301), ({}, now)):
        with pytest.raises(ValueError, match="webhook"):
            verify_webhook(body, wrong, secret, now=at)


def test_what_is_called_is_described():
    """Every route that the client calls, and every member that it reads, is in the description of the API."""
    with urllib.request.urlopen(f"{URL}/openapi.json") as response:
        document = json.load(response)
    paths = document["paths"]
    for method, path in (
        ("post", "/v1/segment"), ("post", "/v1/segment:batch"), ("get", "/v1/jobs/{id}"),
        ("get", "/v1/jobs/{id}/items/{index}"), ("post", "/v1/jobs/{id}/cancel"), ("post", "/v1/images"),
        ("get", "/v1/images/{id}"), ("delete", "/v1/images/{id}"), ("get", "/v1/models"),
        ("get", "/v1/webhooks/secret"),
    ):  # fmt: skip
        assert method in paths[path]
    schemas = document["components"]["schemas"]
    for name, members in {
        "Answer": "request_id image mask model results warnings timings",
        "AnswerResult": "prompt_id empty score area bbox origin masks",
        "BatchResult": "id answer problem",
        "Image": "id width height media_type bytes created_at expires_at",
        "Job": "id kind status progress items",
        "JobItem": "index id status problem",
        "JobProgress": "total succeeded failed cancelled",
        "Model": "name variant version label image_size max_tokens threshold",
        "Problem": "code status detail field request_id errors",
        "WebhookSecret": "secret",
    }.items():
        assert set(members.split()) <= set(schemas[name]["properties"]), name
