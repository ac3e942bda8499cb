"""What a service answers. Sizes are in pixels, masks (height, width)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .rle import decode_rle

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class Problem(Exception):  # noqa: N818
    """Why a request was not a success (RFC 9457). `code` is stable and for programs, the rest for people."""

    def __init__(self, document: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.code: str = document.get("code", "unknown")
        self.status: int = document.get("status", 0)
        self.detail: str = document.get("detail", "")
        self.field: str | None = document.get("field")
        self.request_id: str | None = document.get("request_id")
        self.errors: list[dict[str, str]] = document.get("errors", [])
        #: After how many seconds to try again, if the service says so.
        self.retry_after = retry_after
        place = f" ({self.field})" if self.field else ""
        super().__init__(f"{self.code}: {self.detail}{place}")


@dataclass(frozen=True)
class Result:
    """What one phrase means."""

    prompt_id: str | None
    #: Whether the picture has nothing that is meant; that is no error.
    empty: bool
    #: The mean foreground probability over the mask, 0 to 1, not calibrated.
    score: float
    #: Foreground pixels; left, top, width and height of what encloses them.
    area: int
    bbox: tuple[int, int, int, int]
    #: "model", or "shared" or "cache" when the model was not run for this request.
    origin: str
    #: bool, (height, width); None if other formats were asked for.
    mask: NDArray[np.bool_] | None
    #: The mask in the formats that were asked for, as the service writes them.
    masks: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Result:
        masks = document.get("masks", {})
        rle = masks.get("coco_rle")
        mask = decode_rle(rle["counts"], rle["size"][0], rle["size"][1]) if rle else None
        x, y, w, h = document["bbox"]
        return cls(
            document.get("prompt_id"), document["empty"], document["score"], document["area"], (x, y, w, h),
            document["origin"], mask, masks,
        )  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """The masks of one picture, in the order of the phrases."""

    request_id: str
    #: Of the upright picture, and of the masks.
    width: int
    height: int
    mask_width: int
    mask_height: int
    model: str
    variant: str
    version: str
    results: list[Result]
    warnings: list[dict[str, Any]]
    #: Where the time went, in milliseconds.
    timings: dict[str, float]

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Answer:
        image, mask, model = document["image"], document["mask"], document["model"]
        return cls(
            document["request_id"], image["width"], image["height"], mask["width"], mask["height"],
            model["name"], model["variant"], model["version"], [Result.parse(r) for r in document["results"]],
            document.get("warnings", []), document.get("timings", {}),
        )  # fmt: skip


@dataclass(frozen=True)
class BatchResult:
    """What came of one picture of a batch: an answer or a problem."""

    id: str | None
    answer: Answer | None
    problem: Problem | None

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> BatchResult:
        answer, problem = document.get("answer"), document.get("problem")
        return cls(
            document.get("id"),
            Answer.parse(answer) if answer else None,
            Problem(problem) if problem else None,
        )


@dataclass(frozen=True)
class Image:
    """A picture that the service keeps; `id` is img_ and the SHA-256 of its bytes."""

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


@dataclass(frozen=True)
class Job:
    """Work that is done after its request has been answered."""

    id: str
    kind: Literal["segment", "batch"]
    status: Status
    total: int
    succeeded: int
    failed: int
    cancelled: int
    #: Not there in lists.
    items: list[Item]

    @property
    def ended(self) -> bool:
        return self.status not in ("queued", "running")

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Job:
        progress = document["progress"]
        items = [
            Item(i["index"], i.get("id"), i["status"], Problem(i["problem"]) if "problem" in i else None)
            for i in document.get("items", [])
        ]
        return cls(
            document["id"], document["kind"], document["status"], progress["total"], progress["succeeded"],
            progress["failed"], progress["cancelled"], items,
        )  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A model that the service has loaded."""

    name: str
    variant: str
    version: str
    label: str | None
    image_size: int
    max_tokens: int
    threshold: float

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> Model:
        return cls(
            document["name"], document["variant"], document["version"], document.get("label"),
            document["image_size"], document["max_tokens"], document["threshold"],
        )  # fmt: skip
