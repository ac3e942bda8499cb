"""Against a running service, whose address is in REFERSAM_URL."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco
from refersam_client import (
    AsyncClient,
    BatchItem,
    Client,
    Output,
    Problem,
    PromptFields,
    decode_rle,
    encode_rle,
)

URL = os.environ["REFERSAM_URL"]
PICTURE = Path(__file__).parents[3] / "tests" / "testdata" / "scene_00.jpg"
SHOWN = "All of the doggies"


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
            assert encode_rle(mask) == counts
    for none in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(ValueError, match="shape"):
            encode_rle(none)


@pytest.mark.parametrize("counts", ["", "!", "o", "04", "ooooooooooo0", "\x7f0"])
def test_rle_that_is_none(counts):
    with pytest.raises(ValueError, match="run"):
        decode_rle(counts, 2, 3)


def test_rle_that_wraps_around():
    # Differences that grow until the sum of the runs is 2^64 and a little, which 64 bits take for the little.
    def number(value):
        groups = []
        while value > 15:
            groups.append(chr(48 + (value & 31 | 32)))
            value >>= 5
        return "".join(groups) + chr(48 + value)

    k = 9000
    m = (1 << 64) // (k * (k + 1) // 2) + 1
    with pytest.raises(ValueError, match="run"):
        decode_rle("".join("0" + number(m) for _ in range(k)), 2, 2)
    for height, width in ((1, 2_000_000_000), (0, 4), (-2, -2)):
        with pytest.raises(ValueError, match="run"):
            decode_rle("4", height, width)


def test_segment(client):
    answer = client.segment(PICTURE, [SHOWN, {"text": "all the apples", "id": "b", "threshold": 0.4}])
    assert [r.prompt_id for r in answer.results] == [None, "b"]
    assert [r.phrase for r in answer.results] == [SHOWN, "all the apples"]
    assert answer.results[0].area > 0
    for result in answer.results:
        assert result.mask.shape == (answer.height, answer.width)
        assert result.mask.dtype == bool
        assert result.mask.sum() == result.area
        assert result.empty == (result.area == 0)
        if result.area:
            x, y, w, h = result.bbox
            rows, columns = np.nonzero(result.mask)
            assert (x, y, w, h) == (columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1)
    with PICTURE.open("rb") as file:
        small = client.segment(
            file, {"text": SHOWN}, variant=answer.variant, output={"size": "model", "quality": True}
        )
    assert small.results[0].quality.components >= 1
    assert 0 <= small.results[0].quality.stability <= 1
    assert small.results[0].mask.shape == (small.mask_height, small.mask_width) != (small.height, small.width)


def test_images_and_jobs(client):
    image = client.keep_image(PICTURE)
    assert image.id == "img_" + hashlib.sha256(PICTURE.read_bytes()).hexdigest()
    assert client.image(image.id) == client.image(image.id)
    alone = client.segment(PICTURE, SHOWN, variant="bert")
    kept = client.segment(image.id, SHOWN, variant="bert")
    np.testing.assert_array_equal(kept.results[0].mask, alone.results[0].mask)
    job = client.wait(client.submit(image, SHOWN, variant="bert"))
    assert (job.status, job.total, job.succeeded, job.ended) == ("succeeded", 1, 1, True)
    np.testing.assert_array_equal(client.result(job).results[0].mask, alone.results[0].mask)
    assert client.cancel(job).status == "succeeded"
    client.delete_image(image)
    with pytest.raises(Problem) as caught:
        client.image(image.id)
    assert (caught.value.code, caught.value.status) == ("image_not_found", 404)


def test_images_are_listed_and_given_back(client):
    image = client.keep_image(PICTURE)
    assert image in list(client.images())
    assert client.image_content(image.id) == PICTURE.read_bytes()
    client.delete_image(image.id)
    with pytest.raises(Problem, match="image_not_found"):
        client.delete_image(image.id)


def test_batch(client):
    items = [
        (PICTURE, "the duck"),
        BatchItem(PICTURE, "the duck", id="b", output={"formats": ["polygon"]}),
        BatchItem(b"no picture", "the duck", id="c"),
    ]
    first, second, third = client.segment_batch(items, variant="clip", deadline_ms=20_000)
    assert first.answer.results[0].mask is not None
    assert (first.id, first.problem, first.answer.variant) == (None, None, "clip")
    assert (second.id, list(second.answer.results[0].masks)) == ("b", ["polygon"])
    assert second.answer.results[0].mask is None
    assert (third.id, third.answer, third.problem.code, third.problem.field) == (
        "c", None, "unsupported_media_type", "/items/2/image/data",
    )  # fmt: skip


def test_jobs_of_many(client):
    own = client.with_options(request_id="request-of-mine")
    job = own.submit_batch([BatchItem(PICTURE, "the duck", id="a"), (PICTURE, "all the apples")])
    assert (job.kind, job.total, job.request_id) == ("batch", 2, "request-of-mine")
    seen = []
    ended = client.wait(job.id, 60, progress=seen.append)
    assert seen[-1] == ended
    assert ended.created_at <= ended.started_at <= ended.finished_at < ended.expires_at
    assert [(item.index, item.id, item.status) for item in ended.items] == [
        (0, "a", "succeeded"), (1, None, "succeeded"),
    ]  # fmt: skip
    assert client.result(job.id, 1).request_id == "request-of-mine"
    events = list(client.events(job.id))
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert {event.item.index for event in events if event.item} == {0, 1}
    assert (events[-1].item, events[-1].status) == (None, "succeeded")
    assert list(client.events(job.id, events[-2].seq)) == events[-1:]
    assert list(client.events(job.id, events[-1].seq)) == []
    listed = next(listed for listed in client.jobs("succeeded") if listed.id == job.id)
    assert (listed.succeeded, listed.items, listed.webhook) == (2, [], None)
    client.delete_job(job.id)
    with pytest.raises(Problem, match="job_not_found"):
        list(client.events(job.id))
    with pytest.raises(Problem, match="job_not_found"):
        client.delete_job(job.id)


def test_lists_have_pages(client):
    ids = [client.submit(PICTURE, "the duck").id for _ in range(101)]
    assert {job.id for job in client.jobs()} >= set(ids)
    assert len(list(itertools.islice(client.jobs(), 3))) == 3
    for job_id in ids:
        client.delete_job(job_id)


def test_webhooks(client):
    before = client.webhook_secret()
    after = client.rotate_webhook_secret()
    assert before.secret != after.secret
    assert after == client.webhook_secret()
    assert after.secret.startswith("whsec_")
    assert timedelta(hours=23) < after.previous_until - datetime.now(UTC) <= timedelta(days=1)
    with pytest.raises(Problem, match="fetch_refused"):
        client.submit(PICTURE, "the duck", webhook="https://example.com/told")
    job = client.wait(client.submit(PICTURE, "the duck").id)
    with pytest.raises(Problem, match="no webhook"):
        client.redeliver(job.id)


def test_calls_that_are_done_again(client):
    stored = []
    for _ in range(2):  # as by a program that was started again
        with Client(URL) as again:
            job = again.submit(PICTURE, "the duck", idempotency_key="job-of-mine")
            image = again.keep_image(PICTURE, idempotency_key="image-of-mine")
            said = again.send_feedback("r-1", rating=np.int64(4), idempotency_key="feedback-of-mine")
            secret = again.rotate_webhook_secret(idempotency_key="secret-of-mine")
            stored.append((job.id, image, said, secret))
    assert stored[0] == stored[1]
    with pytest.raises(Problem, match="idempotency_key_reused"):
        client.submit(PICTURE, "the dog", idempotency_key="job-of-mine")
    client.delete_job(client.wait(job))
    client.delete_image(image)


def test_units(client):
    seen = {client.with_options(unit="Zoë 李" * 18).segment(PICTURE, "the duck").variant for _ in range(4)}
    assert len(seen) == 1


def test_models(client):
    told = client.models()
    assert {"coco_rle", "png"} <= set(told.formats)
    assert (told.limits.max_phrases, told.limits.max_batch_items) == (32, 64)
    for model in told.models:
        assert 0 <= model.weight <= 1
        assert len(model.checkpoint) == 64
        assert all((model.tokenizer, model.precision))


def test_feedback_and_usage(client):
    answer = client.segment(PICTURE, SHOWN)
    mask = answer.results[0].mask
    client.segment(PICTURE, {"text": SHOWN, "threshold": np.float32(0.4)}, output={"min_area": np.int64(9)})
    kept = client.send_feedback(
        answer.request_id, item=5, verdict="bad", rating=2, comment="ä", corrected_mask=~mask
    )
    assert (kept.request_id, kept.item, kept.result, kept.verdict, kept.rating, kept.comment) == (
        answer.request_id, 5, 0, "bad", 2, "ä",
    )  # fmt: skip
    (listed,) = client.feedback(answer.request_id)
    assert listed == kept
    np.testing.assert_array_equal(listed.corrected_mask, ~mask)
    used = client.usage()
    assert sum(day.pictures for day in used) >= 1
    day = used[-1].day
    for asked in (day, str(day), datetime(day.year, day.month, day.day, 23, tzinfo=UTC)):
        assert client.usage(asked, asked, key=used[-1].key)[0].day == day


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
            seen = [event async for event in client.events(job.id)]
            assert job.id in [listed.id async for listed in client.jobs("succeeded")]
            result = await client.result(job.id)
            await client.delete_job(job.id)
            image = await client.keep_image(PICTURE)
            assert image in [listed async for listed in client.images()]
            content = await client.image_content(image.id)
            return answers, result, await client.models(), image, content, seen, await client.webhook_secret()

    (bert, clip), result, models, image, content, seen, secret = asyncio.run(both())
    assert content == PICTURE.read_bytes()
    assert image.id == "img_" + hashlib.sha256(content).hexdigest()
    assert seen[-1].status == "succeeded"
    assert secret.secret.startswith("whsec_")
    assert (bert.variant, clip.variant) == ("bert", "clip")
    assert result.results[0].mask.shape == (bert.height, bert.width)
    assert {m.variant for m in models.models} == {"bert", "clip"}


def test_what_is_called_is_described():
    """Every route that the client calls, and every member that it reads, is in the description of the API."""
    with urllib.request.urlopen(f"{URL}/openapi.json") as response:
        document = json.load(response)
    paths = document["paths"]
    for method, path, parameters in (
        ("post", "/v1/segment", "Prefer Idempotency-Key X-Request-Id X-Unit-Id"),
        ("post", "/v1/segment:batch", "Prefer Idempotency-Key X-Request-Id X-Unit-Id"),
        ("get", "/v1/jobs", "limit cursor status"),
        ("get", "/v1/jobs/{id}", ""),
        ("delete", "/v1/jobs/{id}", ""),
        ("get", "/v1/jobs/{id}/events", "Last-Event-ID"),
        ("get", "/v1/jobs/{id}/items/{index}", ""),
        ("post", "/v1/jobs/{id}/cancel", ""),
        ("post", "/v1/jobs/{id}/webhook/redeliver", "Idempotency-Key"),
        ("get", "/v1/images", "limit cursor"),
        ("post", "/v1/images", "Idempotency-Key"),
        ("get", "/v1/images/{id}", ""),
        ("delete", "/v1/images/{id}", ""),
        ("get", "/v1/images/{id}/content", ""),
        ("get", "/v1/feedback", "limit cursor request_id"),
        ("post", "/v1/feedback", "Idempotency-Key"),
        ("get", "/v1/usage", "from to key"),
        ("get", "/v1/models", ""),
        ("get", "/v1/webhooks/secret", ""),
        ("post", "/v1/webhooks/secret/rotate", "Idempotency-Key"),
    ):
        described = {parameter["name"] for parameter in paths[path][method].get("parameters", [])}
        assert set(parameters.split()) <= described, (method, path)
    schemas = document["components"]["schemas"]
    for name, members in {
        "Answer": "request_id image mask model results warnings timings",
        "AnswerQuality": "components stability",
        "AnswerResult": "prompt_id phrase empty score area bbox origin quality masks",
        "BatchItem": "id image prompts output",
        "BatchRequest": "items output variant deadline_ms priority webhook",
        "BatchResult": "id answer problem",
        "FeedbackList": "feedback next",
        "Images": "images next",
        "Jobs": "jobs next",
        "Usage": "usage",
        "Image": "id width height media_type bytes created_at expires_at",
        "Feedback": "id key request_id item result verdict rating comment created_at corrected_mask",
        "FeedbackRequest": "request_id item result verdict rating comment corrected_mask",
        "Job": "id kind status request_id created_at started_at finished_at expires_at progress items"
        " webhook",
        "JobItem": "index id status problem",
        "JobProgress": "total succeeded failed cancelled",
        "Limits": "max_image_bytes max_image_pixels max_image_side max_image_frames max_phrases"
        " max_phrase_bytes max_mask_pixels max_batch_items max_batch_bytes request_timeout_ms",
        "Model": "name variant version label weight image_size tokenizer max_tokens threshold precision"
        " checkpoint",
        "Models": "models formats limits unusable",
        "UnusableModel": "name variant weight reason",
        "Problem": "code status detail field request_id errors",
        "RLE": "size counts",
        "SegmentRequest": "image prompts output variant deadline_ms priority webhook",
        "UsageDay": "day key requests pictures gpu_ms",
        "Webhook": "url status attempts last_attempt_at last_error",
        "WebhookSecret": "secret previous_until",
        "WebhookTarget": "url",
    }.items():
        assert set(members.split()) <= set(schemas[name]["properties"]), name
    # Of what is sent, every member has a name here, too.
    assert set(PromptFields.__annotations__) == set(schemas["Prompt"]["properties"])
    assert set(Output.__annotations__) == set(schemas["Output"]["properties"])
