"""The answers of a service. Sizes are in pixels, masks are (height, width), times have a zone. Members that
this client does not know are ignored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .rle import decode_rle

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Problem(Exception):  # noqa: N818
    """Why a request was not a success (RFC 9457). `code` is stable and for programs, the rest for people."""

    def __init__(self, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        # An exception is pickled by its args, so they must be the constructor's arguments.
        super().__init__(document, retry_after)
        self.code: str = document.get("code", "unknown")
        self.status: int = document.get("status", 0)
        self.detail: str = document.get("detail", "")
        #: The part of the request at fault: a JSON pointer, or the name of a field.
        self.field: str | None = document.get("field")
        #: The id of the request, as in the service's log.
        self.request_id: str | None = document.get("request_id")
        #: All faults that were found, each with detail and pointer or field.
        self.errors: list[dict[str, str]] = document.get("errors", [])
        #: The number of seconds after which to try again, if the service gives it.
        self.retry_after = retry_after

    def __str__(self) -> str:
        place = f" ({self.field})" if self.field else ""
        return f"{self.code}: {self.detail}{place}"


@dataclass(frozen=True)
class Quality:
    """How reliable a mask is."""

    #: The number of connected parts of the mask.
    components: int
    #: How little the mask depends on its threshold: the intersection over union of the masks for thresholds
    #: one logit above and below, 0 to 1.
    stability: float


@dataclass(frozen=True)
class Result:
    """The result of one phrase."""

    prompt_id: str | None
    #: The phrase that the result answers, as it was sent; None from a service of an older version.
    phrase: str | None
    #: Whether the phrase describes nothing in the picture; this is not an error.
    empty: bool
    #: The mean foreground probability over the mask, 0 to 1, not calibrated.
    score: float
    #: Foreground pixels; left, top, width and height of their bounding box.
    area: int
    bbox: tuple[int, int, int, int]
    #: "model", or "shared" or "cache" when the model was not run for this request.
    origin: str
    #: Only with output={"quality": True}.
    quality: Quality | None
    #: The mask in the requested formats, as the service writes them: files such as "png" in base64,
    #: "polygon" as GeoJSON.
    masks: Mapping[str, Any] = field(repr=False)

    @cached_property
    def mask(self) -> NDArray[np.bool_] | None:
        """bool, (height, width), decoded at the first access; None if "coco_rle" was not among the requested
        formats. ValueError if the service's mask is not valid."""
        rle = self.masks.get("coco_rle")
        return decode_rle(rle["counts"], *rle["size"]) if rle else None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Result:
        x, y, w, h = document["bbox"]
        quality = document.get("quality")
        return cls(
            document.get("prompt_id"), document.get("phrase"), document["empty"], document["score"],
            document["area"], (x, y, w, h), document["origin"],
            Quality(quality["components"], quality["stability"]) if quality else None,
            document.get("masks", {}),
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The masks of one picture, in the order of the phrases."""

    request_id: str
    #: The size of the upright picture and of the masks.
    width: int
    height: int
    mask_width: int
    mask_height: int
    model: str
    variant: str
    version: str
    results: list[Result]
    warnings: list[dict[str, Any]]
    #: How long each step took, in milliseconds.
    timings: dict[str, float]
    #: The SHA-256 of the weights that made the masks; None from a service of an older version.
    checkpoint: str | None = None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Answer:
        image, mask, model = document["image"], document["mask"], document["model"]
        return cls(
            document["request_id"], image["width"], image["height"], mask["width"], mask["height"],
            model["name"], model["variant"], model["version"], [Result.parse(r) for r in document["results"]],
            document.get("warnings", []), document.get("timings", {}), model.get("checkpoint"),
        )  # fmt: skip


@dataclass(frozen=True)
class BatchResult:
    """The result of one picture of a batch: an answer or a problem."""

    id: str | None
    answer: Answer | None
    problem: Problem | None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> BatchResult:
        answer, problem = document.get("answer"), problem_in(document)
        if not answer and not problem:
            raise ValueError("there is neither an answer nor a problem")
        return cls(document.get("id"), Answer.parse(answer) if answer else None, problem)


@dataclass(frozen=True)
class Image:
    """A picture that the service stores; `id` is img_ and the SHA-256 of its bytes."""

    id: str
    width: int
    height: int
    media_type: str
    bytes: int
    created_at: datetime
    expires_at: datetime

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Image:
        return cls(
            document["id"], document["width"], document["height"], document["media_type"], document["bytes"],
            datetime.fromisoformat(document["created_at"]), datetime.fromisoformat(document["expires_at"]),
        )  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One picture of a job."""

    index: int
    id: str | None
    status: Status
    problem: Problem | None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Item:
        return cls(document["index"], document.get("id"), document["status"], problem_in(document))


@dataclass(frozen=True)
class Webhook:
    """The delivery of a job's end to a webhook."""

    url: str
    #: "failed" when the service has given up.
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    last_attempt_at: datetime | None
    last_error: str | None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Webhook:
        return cls(
            document["url"], document["status"], document["attempts"], time_in(document, "last_attempt_at"),
            document.get("last_error"),
        )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """Work that the service does after it has answered the request."""

    id: str
    kind: Literal["segment", "batch"]
    #: "failed" if one of its items has failed.
    status: Status
    #: The id of the request that created the job, also in its answers; None from an older service.
    request_id: str | None
    created_at: datetime
    #: When the first item began, when the last item ended, and when the job is deleted; None until it is
    #: known.
    started_at: datetime | None
    finished_at: datetime | None
    expires_at: datetime | None
    #: The number of items, and how many of them have which status.
    total: int
    succeeded: int
    failed: int
    cancelled: int
    #: Both are missing in lists.
    items: list[Item]
    webhook: Webhook | None

    @property
    def ended(self) -> bool:
        return ended(self.status)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Job:
        progress, webhook = document["progress"], document.get("webhook")
        return cls(
            document["id"], document["kind"], document["status"], document.get("request_id"),
            datetime.fromisoformat(document["created_at"]), time_in(document, "started_at"),
            time_in(document, "finished_at"), time_in(document, "expires_at"), progress["total"],
            progress["succeeded"], progress["failed"], progress["cancelled"],
            [Item.parse(item) for item in document.get("items", [])],
            Webhook.parse(webhook) if webhook else None,
        )  # fmt: skip


@dataclass(frozen=True)
class Event:
    """A job has a new status, or one of its items has ended."""

    #: Events of a job are numbered from 1.
    seq: int
    #: The new status of the item, or of the job if there is no item.
    status: Status
    item: Item | None


@dataclass(frozen=True)
class Feedback:
    """A client's feedback about a mask."""

    id: str
    #: The id of the API key.
    key: str
    request_id: str
    #: The index of the picture in a batch or job, and the index of the result in its answer.
    item: int
    result: int
    verdict: Literal["good", "bad"] | None
    #: From 1 (useless) to 5 (perfect).
    rating: int | None
    comment: str | None
    created_at: datetime
    #: The correct mask, as pycocotools writes it.
    corrected_rle: Mapping[str, Any] | None = field(repr=False)

    @cached_property
    def corrected_mask(self) -> NDArray[np.bool_] | None:
        """The correct mask: bool, (height, width)."""
        rle = self.corrected_rle
        return decode_rle(rle["counts"], *rle["size"]) if rle else None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Feedback:
        return cls(
            document["id"], document["key"], document["request_id"], document["item"], document["result"],
            document.get("verdict"), document.get("rating"), document.get("comment"),
            datetime.fromisoformat(document["created_at"]), document.get("corrected_mask"),
        )  # fmt: skip


@dataclass(frozen=True)
class UsageDay:
    """The usage of a key on a day in UTC."""

    day: date
    #: The id of the API key; "anonymous" without authentication.
    key: str
    #: Requests that were answered with masks or a job; a batch is one.
    requests: int
    #: Pictures that masks were made for.
    pictures: int
    #: How long model servers were busy with the pictures, in milliseconds.
    gpu_ms: float

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> UsageDay:
        return cls(
            date.fromisoformat(document["day"]), document["key"], document["requests"], document["pictures"],
            document["gpu_ms"],
        )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model that the service has loaded."""

    name: str
    variant: str
    version: str
    #: "demo" for weights that are not meant for photographs.
    label: str | None
    #: The part of the units that gets this variant, 0 to 1.
    weight: float
    #: The side of the square that pictures are scaled to.
    image_size: int
    #: How phrases become tokens.
    tokenizer: str
    #: How many tokens of a phrase the model reads.
    max_tokens: int
    #: The probability from which a pixel is foreground, 0 to 1.
    threshold: float
    #: The precision of its arithmetic, such as "fp16".
    precision: str
    #: The SHA-256 of its weights, in hexadecimal.
    checkpoint: str

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Model:
        return cls(
            document["name"], document["variant"], document["version"], document.get("label"),
            document["weight"], document["image_size"], document["tokenizer"], document["max_tokens"],
            document["threshold"], document["precision"], document["checkpoint"],
        )  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """The service's limits for all models."""

    #: Limits of a picture: encoded bytes, width times height, width and height each, and pictures in its
    #: file.
    max_image_bytes: int
    max_image_pixels: int
    max_image_side: int
    max_image_frames: int
    #: Phrases per picture, and bytes per phrase in UTF-8.
    max_phrases: int
    max_phrase_bytes: int
    #: Pixels of a picture times its phrases.
    max_mask_pixels: int
    #: Pictures of a batch, and bytes of the whole request.
    max_batch_items: int
    max_batch_bytes: int
    #: How long a request may take, in milliseconds; a job may take longer.
    request_timeout_ms: int

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Limits:
        return cls(
            document["max_image_bytes"], document["max_image_pixels"], document["max_image_side"],
            document["max_image_frames"], document["max_phrases"], document["max_phrase_bytes"],
            document["max_mask_pixels"], document["max_batch_items"], document["max_batch_bytes"],
            document["request_timeout_ms"],
        )  # fmt: skip


@dataclass(frozen=True)
class UnusableModel:
    """A configured variant that cannot be used."""

    name: str
    variant: str
    #: The part of the units that gets this variant, and so no answer.
    weight: float
    #: Which stage is broken, and why.
    reason: str

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> UnusableModel:
        return cls(document["name"], document["variant"], document["weight"], document["reason"])


@dataclass(frozen=True)
class Models:
    """The loaded models and the service's limits."""

    #: One per variant.
    models: list[Model]
    #: The formats of masks that a request may ask for.
    formats: list[str]
    limits: Limits
    #: The configured variants that cannot be used.
    unusable: list[UnusableModel] = field(default_factory=list)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Models:
        models = [Model.parse(model) for model in document["models"]]
        unusable = [UnusableModel.parse(model) for model in document.get("unusable", [])]
        return cls(models, document["formats"], Limits.parse(document["limits"]), unusable)


@dataclass(frozen=True)
class WebhookSecret:
    """The secret that signs webhooks, for verify_webhook."""

    secret: str = field(repr=False)
    #: Until when webhooks are also signed with the previous secret; None if they are not.
    previous_until: datetime | None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> WebhookSecret:
        return cls(document["secret"], time_in(document, "previous_until"))


def ended(status: Status) -> bool:
    return status not in ("queued", "running")


def problem_in(document: Mapping[str, Any]) -> Problem | None:
    problem = document.get("problem")
    return Problem(problem) if problem else None


def time_in(document: Mapping[str, Any], name: str) -> datetime | None:
    text = document.get(name)
    return datetime.fromisoformat(text) if text else None
