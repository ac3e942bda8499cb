"""Times logits → mask → COCO RLE against torch, OpenCV and pycocotools, and PNGs against image/png.

    .venv/bin/python benchmarks/masks.py [--rounds 7]       # needs Go and a package index

Logits of 112² become a mask of 1920×1080: a dozen patches, whose outlines are longer than most things have.
torch and pycocotools come from .venv, OpenCV from its package into a folder that is thrown away. All of it is
one run on one core, the rounds of all take turns, and figures are medians. OpenCV's INTER_LINEAR has another
grid than the model's training chain, so its mask is another; it is here for its speed. Floors stand with the
benchmarks in postprocess/bench_test.go; a copy of the mask's bytes is timed in this run.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WIDTH, HEIGHT = 1920, 1080
SECONDS = 0.5  # a measurement
OURS = ("LogitsToRLE", "MaskToPNG", "ImagePNG")
OPENCV = "opencv-python-headless"


def time_peers() -> None:
    """Prints nanoseconds by what was done, and the counts string of torch's mask."""
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
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)

    def with_torch() -> str:
        values = torch.nn.functional.interpolate(tensor, (HEIGHT, WIDTH), mode="bilinear", align_corners=True)
        mask = (values[0, 0] >= 0).numpy().view(np.uint8)
        return coco.encode(np.asfortranarray(mask))["counts"].decode("ascii")

    def with_opencv() -> str:
        mask = cv2.compare(cv2.resize(logits, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), 0, cv2.CMP_GE)
        return coco.encode(np.asfortranarray(mask))["counts"].decode("ascii")

    def measure(run: Callable[[], object]) -> float:
        run()
        runs, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < SECONDS:
            run()
            runs += 1
        return took / runs * 1e9

    ways = {"torch": with_torch, "opencv": with_opencv, "copy": pixels.copy}
    print(json.dumps({name: measure(run) for name, run in ways.items()}))


def time_ours(binary: Path) -> dict[str, float]:
    command = [binary, "-test.run=^$", f"-test.bench=^Benchmark({'|'.join(OURS)})$", "-test.cpu=1"]
    command.append(f"-test.benchtime={SECONDS}s")
    text = subprocess.run(
        command, cwd=ROOT / "postprocess", check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"^Benchmark(\S+)\s+\d+\s+([\d.]+) ns/op", text, re.MULTILINE)
    return {name: float(nanoseconds) for name, nanoseconds in found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        time_peers()
        return

    times = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        print(f"installing {OPENCV} into {folder}", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, "--target", folder, OPENCV], check=True)
        binary = Path(folder) / "postprocess.test"
        go = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-tags=nomsgpack"}
        subprocess.run(["go", "test", "-c", "-o", binary, "./postprocess"], cwd=ROOT, env=go, check=True)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for this process and those it starts
        peers = {**os.environ, "PYTHONPATH": folder}
        for _ in range(args.rounds):
            out = subprocess.run(
                [sys.executable, __file__, "--peer"], env=peers, check=True, capture_output=True, text=True
            ).stdout
            for name, nanoseconds in (time_ours(binary) | json.loads(out)).items():
                times[name].append(nanoseconds)

    ms = {name: statistics.median(values) / 1e6 for name, values in times.items()}
    print(f"\nmedians of {args.rounds} rounds, ms; a copy of the mask's bytes takes {ms['copy']:.3f}\n")
    print("| what | refersam | peer | ms | ratio | target |")
    print("|---|---|---|---|---|---|")
    for what, own, peer, label, target in (
        ("logits 112² → 1080p → COCO RLE", "LogitsToRLE", "torch", "torch + pycocotools", 8),
        ("logits 112² → 1080p → COCO RLE", "LogitsToRLE", "opencv", "OpenCV + pycocotools", 3),
        ("1-bit PNG of a 1080p mask", "MaskToPNG", "ImagePNG", "image/png on image.Gray", 20),
    ):
        ratio = ms[peer] / ms[own]
        print(f"| {what} | {ms[own]:.3f} | {label} | {ms[peer]:.2f} | {ratio:.1f} | {target} |")


if __name__ == "__main__":
    main()
