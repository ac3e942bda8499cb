"""Times logits → mask → COCO RLE against torch, OpenCV and pycocotools, and PNGs against image/png.

    .venv/bin/python benchmarks/masks.py [--rounds 7]       # needs Go and a package index

Logits of 112² become a mask of 1920×1080: a dozen patches, whose outlines are longer than most things have.
torch and pycocotools come from .venv, OpenCV from its package into a folder that is thrown away. All of it is
one run on one core, the rounds of all take turns, and figures are medians. OpenCV's INTER_LINEAR has another
grid than the model's training chain, so its mask is another; it is here for its speed. The floor of a PNG is
zlib at its fastest on the bits of the mask.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

import timing

WIDTH, HEIGHT = 1920, 1080
OURS = "(LogitsToRLE|MaskToPNG|ImagePNG)"
CROSSINGS = 50e3
"""Floor of logits to runs in nanoseconds, see BenchmarkLogitsToRLE in postprocess/bench_test.go."""
OPENCV = "opencv-python-headless"


def time_peers() -> None:
    """Prints nanoseconds by operation."""
    import cv2
    import numpy as np
    import torch
    from pycocotools import mask as coco

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    coarse, state = [], 1  # patchLogits in postprocess/bench_test.go
    for _ in range(8 * 8):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        coarse.append(((state >> 16) - 32768) / 4096)
    tensor = torch.tensor(coarse).reshape(1, 1, 8, 8)
    tensor = torch.nn.functional.interpolate(tensor, (112, 112), mode="bilinear", align_corners=True)
    logits = tensor[0, 0].numpy()

    def with_torch() -> str:
        values = torch.nn.functional.interpolate(tensor, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        mask = (values[0, 0] >= 0).numpy().view(np.uint8)
        return coco.encode(np.asfortranarray(mask))["counts"].decode("ascii")

    def with_opencv() -> str:
        mask = cv2.compare(cv2.resize(logits, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), 0, cv2.CMP_GE)
        return coco.encode(np.asfortranarray(mask))["counts"].decode("ascii")

    values = torch.nn.functional.interpolate(tensor, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
    bits = np.packbits(values[0, 0].numpy() >= 0, axis=1).tobytes()
    ways = {"torch": with_torch, "opencv": with_opencv, "deflate": lambda: zlib.compress(bits, 1)}
    print(json.dumps({name: timing.python(run) for name, run in ways.items()}))


def rows(rounds: int) -> list[timing.Row]:
    times = timing.Times()
    with tempfile.TemporaryDirectory() as folder:
        print(f"installing {OPENCV} into {folder}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, OPENCV], check=True)
        binary = timing.build("postprocess", Path(folder) / "postprocess.test")
        peers = {**os.environ, "PYTHONPATH": folder}
        with timing.one_core():
            for _ in range(rounds):
                for name, (nanoseconds, _) in timing.go(binary, "postprocess", OURS).items():
                    times.add({name: nanoseconds})
                out = subprocess.run(
                    [sys.executable, __file__, "--peer"],
                    env=peers,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
                times.add(json.loads(out))
    return [
        timing.Row(what, times[own], floor, label, times[peer], target)
        for what, own, floor, peer, label, target in (
            ("logits 112² → 1080p → COCO RLE", "LogitsToRLE", CROSSINGS, "torch", "torch + pycocotools", 8),
            ("logits 112² → 1080p → COCO RLE", "LogitsToRLE", CROSSINGS, "opencv", "OpenCV + pycocotools", 3),
            (
                "1-bit PNG of a 1080p mask",
                "MaskToPNG",
                times["deflate"],
                "ImagePNG",
                "image/png, image.Gray",
                20,
            ),
        )
    ]


if __name__ == "__main__":
    if "--peer" in sys.argv:
        time_peers()
    else:
        timing.main(__doc__, rows)
