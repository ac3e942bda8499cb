"""Measures what REFERSAM_REDUCE_JPEG does to masks: IoU with masks of the exact path, and with the truth.

    make build && .venv/bin/python benchmarks/reduce.py [--scenes 30] [--variant bert]

Scenes of the test split are rendered so large that their JPEGs are decoded at 1/2, 1/4 and 1/8 for the
model's side, saved at quality 90 with 4:2:0, and made square by `refersam preprocess` with and without the
option, then shown to the shipped ONNX stages. It needs a build with libjpeg-turbo.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from timing import ROOT

from refersam import tokenizer
from refersam.data.scenes.drawing import scene_of
from refersam.data.scenes.expressions import target_mask
from refersam.data.scenes.questions import phrases
from refersam.data.transforms import upsample
from refersam.evaluation.predictors import of_repository

TIMES = {2: (5, 4), 4: (10, 8), 8: (20, 16)}
"""Denominator → width and height in sides of the model's square, at least 2 × the denominator."""
PHRASES = 4


def square(path: Path, size: int, reduce: bool) -> np.ndarray:
    """uint8 [size, size, 3]: what a model of that side gets."""
    command = [ROOT / "bin" / "refersam", "preprocess", path, "--size", str(size), "-o", "-"]
    env = {**os.environ, "REFERSAM_REDUCE_JPEG": str(reduce).lower()}
    png = subprocess.run(command, env=env, check=True, capture_output=True).stdout
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, default=30, help="of each size, default %(default)s")
    parser.add_argument("--variant", default="bert")
    args = parser.parse_args()
    predict, inputs_of = of_repository(ROOT / "tests" / "models", args.variant)
    size, resize = inputs_of.image_size, inputs_of.resize
    words = tokenizer.load(inputs_of.tokenizer)

    heads = (
        "decoded at, picture, off (mean), off (max), masks, mean IoU, least, equal, truth (exact), (reduced)"
    )
    print(f"| {heads.replace(', ', ' | ')} |\n|{'---|' * 10}")
    for denominator, (across, down) in TIMES.items():
        width, height = across * size, down * size
        off, ious, truths = [], [], []
        for index in range(args.scenes):
            scene = scene_of("test", index, width, height)
            asked = phrases(scene, PHRASES)
            with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
                Image.fromarray(scene.image).save(file.name, quality=90, subsampling="4:2:0")
                squares = [square(Path(file.name), size, reduce) for reduce in (False, True)]
            off.append(np.abs(squares[0].astype(np.int16) - squares[1]))
            inputs = words.encode([expression.text for expression in asked], max_tokens=inputs_of.max_tokens)
            exact, reduced = (predict(np.stack([s] * len(asked)), *inputs) for s in squares)
            for expression, *rows in zip(asked, exact, reduced, strict=True):
                a, b = (upsample(row, height, width, resize) >= 0 for row in rows)
                if a.any() or b.any():
                    ious.append(iou(a, b))
                truth = target_mask(scene, expression)
                truths.append((iou(a, truth), iou(b, truth)))
        exact, reduced = np.mean(truths, axis=0)
        print(
            f"| 1/{denominator} | {width}×{height} | {np.mean(off):.2f} | {np.max(off)} | {len(ious)} "
            f"| {np.mean(ious):.4f} | {np.min(ious):.3f} | {np.mean(np.array(ious) == 1):.0%} "
            f"| {exact:.4f} | {reduced:.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
