"""Writes golden.json: what torch, pycocotools and scipy make of inputs that the Go tests generate again.

Run in this folder with torch, numpy, pycocotools and scipy, on an x86 CPU with FMA; the file is committed, so
tests need none of them:

    python golden.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from pycocotools import mask as coco
from scipy import ndimage

HERE = Path(__file__).parent


def draw(count: int, seed: int) -> np.ndarray:
    """The upper 16 bits of a linear congruential generator, as int64 [count]."""
    state = seed
    out = []
    for _ in range(count):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 16)
    return np.array(out, dtype=np.int64)


def noise_logits(width: int, height: int, seed: int) -> np.ndarray:
    """Float32 [height, width] in [-8, 8), multiples of 1/4096."""
    return ((draw(width * height, seed) - 32768) / 4096).astype(np.float32).reshape(height, width)


def level_logits(width: int, height: int, seed: int, levels: int) -> np.ndarray:
    """Float32 [height, width], whole numbers around 0: interpolated values are often 0 but for rounding."""
    return (draw(width * height, seed) % levels - levels // 2).astype(np.float32).reshape(height, width)


def blob_logits(width: int, height: int) -> np.ndarray:
    """Float32 [height, width], positive in two discs."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    first = (width // 4) ** 2 - (x - width // 3) ** 2 - (y - height // 2) ** 2
    second = (width // 8) ** 2 - (x - width * 3 // 4) ** 2 - (y - height // 4) ** 2
    return (np.maximum(first, second) / 16).astype(np.float32)


def upsample(logits: np.ndarray, width: int, height: int) -> torch.Tensor:
    tensor = torch.from_numpy(logits)[None, None]
    return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=True)[0, 0]


def counts(mask: np.ndarray) -> str:
    return coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")


def upsamplings() -> list[dict]:
    """All values of small results, of large ones every step-th; of whole numbers the mask, too."""
    cases = []
    shapes = [
        ((8, 6), (23, 17), 1), ((1, 1), (3, 2), 1), ((5, 4), (1, 1), 1), ((5, 4), (1, 7), 1),
        ((1, 9), (4, 20), 1), ((4, 4), (2, 3), 1), ((7, 5), (7, 5), 1), ((64, 64), (211, 157), 149),
        ((256, 256), (1920, 1080), 10007), ((256, 256), (4032, 5), 97),
    ]  # fmt: skip
    for seed, (size, out, step) in enumerate(shapes):
        values = upsample(noise_logits(*size, seed), *out).flatten()[::step]
        cases.append({"seed": seed, "size": size, "out": out, "step": step, "values": values.tolist()})
    # torch has another kernel up to a width plus height of 128.
    for seed, (size, out, levels) in enumerate(
        [
            ((40, 40), (64, 64), 3),
            ((40, 40), (64, 65), 3),
            ((9, 7), (61, 43), 2),
            ((21, 33), (300, 131), 3),
            ((56, 56), (160, 97), 5),
            ((112, 112), (50, 31), 7),
        ]
    ):
        values = upsample(level_logits(*size, seed, levels), *out)
        cases.append(
            {
                "seed": seed,
                "levels": levels,
                "size": size,
                "out": out,
                "step": 97,
                "values": values.flatten()[::97].tolist(),
                "counts": counts((values >= 0).numpy()),
            }
        )
    return cases


def paddings() -> list[dict]:
    """Masks of pictures that cover a part of the model's padded square, as SAM's postprocess_masks has it."""
    cases = []
    shapes = [
        (112, (448, 336), (640, 480)), (112, (298, 448), (333, 500)), (112, (448, 252), (1920, 1080)),
        (16, (64, 48), (47, 35)), (16, (64, 49), (64, 49)), (16, (1, 64), (1, 900)),
        (8, (32, 32), (200, 200)),
    ]  # fmt: skip
    for seed, (side, inside, out) in enumerate(shapes):
        whole = upsample(level_logits(side, side, seed, 5), 4 * side, 4 * side)
        part = whole[: inside[1], : inside[0]]
        mask = upsample(part.numpy(), *out) >= 0
        cases.append(
            {
                "seed": seed,
                "side": side,
                "inside": inside,
                "out": out,
                "values": part.flatten()[::97].tolist(),
                "counts": counts(mask.numpy()),
            }
        )
    return cases


def segmentations() -> list[dict]:
    cases = []
    for size, out, threshold in [
        ((64, 64), (211, 157), 0.5),
        ((64, 64), (211, 157), 0.9),
        ((64, 64), (37, 29), 0.2),
        ((48, 64), (640, 480), 0.5),
    ]:
        probability = upsample(blob_logits(*size), *out).double().sigmoid().numpy()
        mask = probability >= threshold
        ys, xs = np.nonzero(mask)
        box = [xs.min(), ys.min(), xs.max() - xs.min() + 1, ys.max() - ys.min() + 1]
        cases.append(
            {
                "size": size,
                "out": out,
                "threshold": threshold,
                "area": int(mask.sum()),
                "box": [int(v) for v in box],
                "score": float(probability[mask].mean()),
                "counts": counts(mask),
            }
        )
    return cases


def encodings() -> list[dict]:
    """Noise masks of which a share of the pixels is foreground, in 1/65536."""
    cases = []
    shapes = [
        (1, 1),
        (1, 1),
        (7, 3),
        (3, 7),
        (31, 17),
        (31, 17),
        (40, 40),
        (40, 40),
        (1, 300),
        (300, 1),
        (2000, 40),
    ]
    shares = [0, 65536, 32768, 32768, 6554, 58982, 0, 65536, 328, 32768, 20]
    for seed, ((width, height), share) in enumerate(zip(shapes, shares, strict=True)):
        mask = (draw(width * height, seed) < share).reshape(height, width)
        labels, _ = ndimage.label(mask)
        cases.append(
            {
                "seed": seed,
                "size": [width, height],
                "share": share,
                "counts": counts(mask),
                "areas": sorted(np.bincount(labels.flatten())[1:].tolist(), reverse=True),
                "filled": counts(ndimage.binary_fill_holes(mask)),
            }
        )
    return cases


def main() -> None:
    torch.set_num_threads(1)
    golden = {
        "torch": torch.__version__,
        "upsample": upsamplings(),
        "unpad": paddings(),
        "segment": segmentations(),
        "rle": encodings(),
    }
    (HERE / "golden.json").write_text(json.dumps(golden) + "\n")


if __name__ == "__main__":
    main()
