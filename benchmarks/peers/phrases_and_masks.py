"""The work of every peer around its model, with commonly used libraries."""

from __future__ import annotations

import argparse
import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco
from tokenizers import BertWordPieceTokenizer

ROOT = Path(__file__).resolve().parents[2]
SIZE = 224
TOKENS = 20


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--triton", help="host:port of the gRPC server, where one is asked")
    parser.add_argument("--model", default="refersam_null", help="what to ask Triton for")
    parser.add_argument("--threads", type=int, default=2, help="threads of ONNX Runtime")
    return parser.parse_args()


def tokenizer() -> BertWordPieceTokenizer:
    with gzip.open(ROOT / "tokenize/vocab/bert-base-uncased.txt.gz", "rt", encoding="utf-8") as lines:
        vocabulary = {line.rstrip("\n"): i for i, line in enumerate(lines)}
    tokens = BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    tokens.enable_truncation(TOKENS)
    tokens.enable_padding(length=TOKENS)
    return tokens


def encode(tokens: BertWordPieceTokenizer, phrases: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """int32 [n, L] ids and mask."""
    encodings = tokens.encode_batch(phrases)
    ids = np.array([e.ids for e in encodings], np.int32)
    return ids, np.array([e.attention_mask for e in encodings], np.int32)


def read_with_pillow(data: bytes) -> tuple[np.ndarray, int, int]:
    """uint8 [S, S, 3], and the picture's width and height."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    square = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return np.asarray(square), image.width, image.height


def read_with_opencv(data: bytes) -> tuple[np.ndarray, int, int]:
    import cv2

    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA), image.shape[1], image.shape[0]


def masks_with_torch(logits: np.ndarray, width: int, height: int) -> list[dict[str, Any]]:
    import torch

    results = []
    for row in torch.from_numpy(np.array(logits)):
        full = torch.nn.functional.interpolate(
            row[None, None], (height, width), mode="bilinear", align_corners=True
        )[0, 0]
        mask = full >= 0
        score = float(torch.sigmoid(full[mask]).mean()) if mask.any() else 0.0
        results.append(result(mask.numpy().view(np.uint8), score))
    return results


def masks_with_opencv(logits: np.ndarray, width: int, height: int) -> list[dict[str, Any]]:
    """OpenCV has no grid with aligned corners, so its masks differ by a fraction of a cell."""
    import cv2

    results = []
    for row in logits:
        full = cv2.resize(row, (width, height), interpolation=cv2.INTER_LINEAR)
        mask = cv2.compare(full, 0, cv2.CMP_GE)
        inside = full[mask != 0]
        score = float((1 / (1 + np.exp(-inside))).mean()) if inside.size else 0.0
        results.append(result(mask, score))
    return results


def result(mask: np.ndarray, score: float) -> dict[str, Any]:
    encoded = coco.encode(np.asfortranarray(mask))
    area = int(coco.area(encoded))
    return {
        "status": "ok" if area else "empty",
        "score": score,
        "area": area,
        "bbox": [int(v) for v in coco.toBbox(encoded)],
        "masks": {"coco_rle": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}},
    }


Reader = Callable[[bytes], tuple[np.ndarray, int, int]]
Masks = Callable[[np.ndarray, int, int], list[dict[str, Any]]]


def answer(results: list[dict[str, Any]], width: int, height: int) -> dict[str, Any]:
    return {"image": {"width": width, "height": height}, "results": results}
