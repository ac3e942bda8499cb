"""The parts of requests: pictures, phrases, and options of masks."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, Required, TypedDict

import numpy as np

from .answers import Image

#: A local picture: the path of its file, or the file, open for reading bytes, or the encoded bytes.
LocalPicture = str | os.PathLike[str] | BinaryIO | bytes | bytearray | memoryview
#: A picture: a local picture, a stored Image or its id, or an https address.
Picture = LocalPicture | Image

Format = Literal["coco_rle", "rle", "polygon", "png", "png8", "probability", "overlay"]
Keep = Literal["all", "largest"]
Priority = Literal["interactive", "batch"]


class PromptFields(TypedDict, total=False):
    """A phrase, and options of its mask. For an option that is left out, Output applies."""

    #: At most 1,000 bytes of UTF-8.
    text: Required[str]
    #: At most 128 characters; returned as `prompt_id`.
    id: str
    formats: Sequence[Format]
    threshold: float
    fill_holes: int
    min_area: int
    keep: Keep
    tolerance: float


class Output(TypedDict, total=False):
    """The options of masks."""

    #: Default "coco_rle". `Result.mask` needs this format.
    formats: Sequence[Format]
    #: The foreground probability from which a pixel is in the mask, between 0 and 1.
    threshold: float
    #: Holes of up to this number of pixels are filled.
    fill_holes: int
    #: Components of fewer pixels are left out.
    min_area: int
    keep: Keep
    #: How many pixels polygons may deviate from the mask, 0 to 1000.
    tolerance: float
    #: "model" for masks of the model's output size.
    size: Literal["original", "model"]
    overlay: Literal["png", "jpeg"]
    quality: bool


#: A phrase, alone or with its own options.
Prompt = str | PromptFields | Mapping[str, Any]
#: One phrase or up to 32.
Prompts = Prompt | Sequence[Prompt]


@dataclass(frozen=True)
class BatchItem:
    """A picture of a batch, with its phrases."""

    picture: Picture
    prompts: Prompts
    #: At most 128 characters; returned with the result.
    id: str | None = None
    #: The options that differ from the batch's.
    output: Output | Mapping[str, Any] | None = None


#: A picture of a batch: a BatchItem, or a picture and its phrases.
Batch = Iterable[BatchItem | tuple[Picture, Prompts]]


def encoded_bytes(picture: LocalPicture) -> bytes | bytearray | memoryview:
    if isinstance(picture, bytes | bytearray | memoryview):
        return picture
    if isinstance(picture, str | os.PathLike):
        if isinstance(picture, str) and "://" in picture:
            raise ValueError(f"a service fetches pictures only from https addresses, not from {picture!r}")
        with open(picture, "rb") as file:
            return file.read()
    if not hasattr(picture, "read"):
        raise TypeError(
            "a picture is where its file is, an open file, encoded bytes, an Image or its id, or an https"
            f" address, and not {type(picture).__name__}"
        )
    content = picture.read()
    if not isinstance(content, bytes):
        raise TypeError("the picture's file must be open for reading bytes")
    return content


def is_address(picture: Picture) -> bool:
    return isinstance(picture, str) and picture.startswith("https://")


def is_id(picture: Picture) -> bool:
    return isinstance(picture, str) and re.fullmatch("img_[0-9a-f]{64}", picture) is not None


def image_member(picture: Picture) -> dict[str, Any]:
    if isinstance(picture, Image):
        return {"id": picture.id}
    if is_id(picture):
        return {"id": picture}
    if is_address(picture):
        return {"url": picture}
    return {"data": base64.b64encode(encoded_bytes(picture)).decode()}


def prompt_members(prompts: Prompts) -> list[dict[str, Any]]:
    alone = isinstance(prompts, str | bytes | Mapping) or not isinstance(prompts, Iterable)
    several: Iterable[Any] = [prompts] if alone else prompts
    return [prompt_member(prompt) for prompt in several]


def prompt_member(prompt: Prompt) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"text": prompt}
    if not isinstance(prompt, Mapping):
        raise TypeError(f"a phrase must be text, alone or in a mapping, not {type(prompt).__name__}")
    return dict(prompt)


def given(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def segment_body(picture: Picture, prompts: Prompts, members: Mapping[str, Any]) -> bytes:
    return body({"image": image_member(picture), "prompts": prompt_members(prompts)} | given(members))


def batch_body(batch: Batch, members: Mapping[str, Any]) -> tuple[bytes, int]:
    """The body of a batch, and its number of items. Items are taken one after the other, and each picture is
    read before the next item is taken."""
    items = []
    for item in map(batch_item, batch):
        content = {"image": image_member(item.picture), "prompts": prompt_members(item.prompts)}
        items.append(content | given({"id": item.id, "output": item.output}))
    return body({"items": items} | given(members)), len(items)


def batch_item(item: BatchItem | tuple[Picture, Prompts]) -> BatchItem:
    if isinstance(item, BatchItem):
        return item
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise TypeError(
            f"an item is a BatchItem, or a picture and its phrases in a tuple, and not {type(item).__name__}"
        )
    return BatchItem(*item)


def body(document: Mapping[str, Any]) -> bytes:
    """A document as JSON; ValueError if it has a number that is not finite, or text that is not Unicode."""
    encoder = json.JSONEncoder(
        separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=plain_number
    )
    try:
        # In pieces: in one string with pictures, an emoji would make each character take 4 bytes.
        return b"".join(piece.encode() for piece in encoder.iterencode(document))
    except UnicodeEncodeError as cause:
        half = cause.object[cause.start]
        raise ValueError(f"text has {half!r}, which is half a character and not Unicode") from cause


def plain_number(value: object) -> bool | int | float:
    """Converts a number of numpy to one of Python."""
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, np.integer):
        return int(value)
    if isinstance(value, np.floating):
        return float(value)
    raise TypeError(f"JSON cannot express {type(value).__name__}")
