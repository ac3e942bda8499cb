"""Compares `refersam mask` with torch and pycocotools on pictures of random sizes.

    python postprocess/testdata/proof.py --binary bin/refersam --pixels 200_000_000

For logits of six kinds (noise, smooth shapes, whole numbers of which many interpolated values are 0 but for
rounding, values around the smallest float32, all of one value, and those of a shipped model asked about the
scenes of tests/testdata) it demands that

- the mask is that of F.interpolate(mode="bilinear", align_corners=True) >= 0, pixel for pixel, and its counts
  string that of pycocotools.mask.encode, byte for byte;
- the same at another threshold, compared with the logit of it in float64;
- the 1-bit PNG, read by Pillow, is the mask, and so are polygons, filled by even and odd crossings.

Needs what .venv has, on an x86 CPU with FMA.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as coco

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("noise", "smooth", "whole numbers", "tiny", "constant", "model")
# Enough for polygons, which are compared by a slow loop over edges.
POLYGON_PIXELS = 50_000
# Of the test scenes, four questions each.
SCENES = 10


def make_logits(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Float32 [height, width]."""
    if kind == "noise":
        values = rng.standard_normal((height, width)) * 10.0 ** rng.uniform(-3, 2)
    elif kind == "smooth":
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        values = np.full((height, width), -float(rng.uniform(0.05, 0.3)))
        for _ in range(rng.integers(1, 6)):
            cx, cy, sx, sy = rng.uniform(0, 1, 4)
            spread = ((x - cx) / (0.02 + 0.3 * sx)) ** 2 + ((y - cy) / (0.02 + 0.3 * sy)) ** 2
            values += rng.uniform(-0.5, 1) * np.exp(-spread)
        values *= rng.uniform(1, 40)
    elif kind == "whole numbers":
        levels = rng.integers(2, 8)
        values = rng.integers(0, levels, (height, width)) - levels // 2
    elif kind == "tiny":
        values = rng.integers(-3, 4, (height, width)) * 10.0 ** rng.integers(-45, -36)
    else:
        values = np.full((height, width), rng.choice([-1.0, -1e-30, -0.0, 0.0, 0.3, 1.0]))
    return values.astype(np.float32)


def model_logits(variant: str) -> list[np.ndarray]:
    """What a test model says of the questions of the test scenes: float32 [h, w] each."""
    sys.path.insert(0, str(ROOT / "export"))
    from refersam import tokenizer
    from refersam.data.transforms import square
    from refersam.evaluation.predictors import of_repository

    predict, inputs = of_repository(ROOT / "tests" / "models", variant)
    words = tokenizer.load(inputs.tokenizer)
    logits = []
    for scene in json.loads((ROOT / "tests" / "testdata" / "scenes.json").read_text())[:SCENES]:
        picture = np.asarray(Image.open(ROOT / "tests" / "testdata" / scene["file"]).convert("RGB"))
        phrases = [question["phrase"] for question in scene["questions"]]
        images = np.stack([square(picture, inputs.image_size, inputs.resize)] * len(phrases))
        logits += list(predict(images, *words.encode(phrases, max_tokens=inputs.max_tokens)))
    return [row.astype(np.float32) for row in logits]


def upsample(logits: np.ndarray, height: int, width: int) -> np.ndarray:
    tensor = torch.from_numpy(logits)[None, None]
    return torch.nn.functional.interpolate(tensor, (height, width), mode="bilinear", align_corners=True)[
        0, 0
    ].numpy()


def fill(rings: list, height: int, width: int) -> np.ndarray:
    """Bool [height, width]: a pixel is in when the edges left of its middle are odd in number."""
    inside = np.zeros((height, width + 1), dtype=bool)
    for ring in rings:
        for (x0, y0), (x1, y1) in pairwise(ring):
            if x0 == x1:
                inside[int(min(y0, y1)) : int(max(y0, y1)), int(x0)] ^= True
    return np.logical_xor.accumulate(inside, axis=1)[:, :width]


class Program:
    def __init__(self, binary: Path, folder: Path) -> None:
        self.binary = binary
        self.file = folder / "logits.npy"

    def mask(self, logits: np.ndarray, height: int, width: int, *options: str) -> bytes:
        np.save(self.file, logits)
        size = ["--height", str(height), "--width", str(width)]
        return subprocess.run(
            [self.binary, "mask", self.file, *size, *options], check=True, capture_output=True
        ).stdout


def encode(mask: np.ndarray) -> dict:
    rle = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def check(
    program: Program, kind: str, logits: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> int:
    """Number of pixels that differ."""
    shape = logits.shape
    values = upsample(logits, *size)
    threshold = round(float(rng.uniform(0.05, 0.95)), 3)
    different = 0
    for level in (0.5, threshold):
        # torch's float32 against the logit of the threshold in float64
        expected = values.astype(np.float64) >= math.log(level / (1 - level))
        got = json.loads(program.mask(logits, *size, "--threshold", str(level)))
        if got != encode(expected):
            wrong = int((coco.decode(got).astype(bool) != expected).sum())
            print(
                f"{kind} {shape} to {size} at {level}: {wrong} pixels differ, or only the string", flush=True
            )
            different += max(1, wrong)
    png = np.asarray(Image.open(io.BytesIO(program.mask(logits, *size, "--format", "png"))))
    if not np.array_equal(png, values >= 0):
        print(f"{kind} {shape} to {size}: the PNG differs", flush=True)
        different += 1
    if size[0] * size[1] <= POLYGON_PIXELS:
        shapes = json.loads(program.mask(logits, *size, "--format", "polygon"))["coordinates"]
        if not np.array_equal(fill([ring for polygon in shapes for ring in polygon], *size), values >= 0):
            print(f"{kind} {shape} to {size}: the polygons differ", flush=True)
            different += 1
    return different


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--pixels", type=int, default=200_000_000)
    parser.add_argument("--variant", default="bert", help="the shipped model to ask")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(args.seed)
    real = model_logits(args.variant)
    pixels = masks = different = 0
    by_kind = dict.fromkeys(KINDS, 0)
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        program = Program(args.binary.resolve(), Path(folder))
        while pixels < args.pixels:
            kind = KINDS[masks % len(KINDS)]
            side = int(rng.choice([1, 7, 40, 56, 112, 256]))
            shape = (side, side) if rng.random() < 0.7 else tuple(int(v) for v in rng.integers(1, 120, 2))
            most = int(rng.choice([64, 130, 700, 2000, 4100]))
            size = tuple(int(v) for v in rng.integers(1, most, 2))
            made = make_logits(kind, *shape, rng) if kind != "model" else real[rng.integers(len(real))]
            different += check(program, kind, made, size, rng)
            masks += 1
            pixels += size[0] * size[1]
            by_kind[kind] += size[0] * size[1]
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}")
    seconds = time.monotonic() - start
    print(f"{masks} masks of {pixels:,} pixels, twice each: {different} differ ({seconds:.0f} s)")
    for kind, count in by_kind.items():
        print(f"  {kind}: {count:,}")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
