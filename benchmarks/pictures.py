"""Times JPEG → the square of pixels that a model reads against Pillow and Go's libraries.

    .venv/bin/python benchmarks/pictures.py [--rounds 7]    # needs Go, gcc and libjpeg's header

The pictures are made here: smooth noise of many scales, shapes and a sensor's grain, 4:2:0, quality 90.
Pillow decodes and resizes as training chains do. Go's way is image/jpeg and x/image/draw.BiLinear. All of it
is one run on one core, the rounds of all take turns, and figures are medians. The squares of the build with
libjpeg-turbo are compared with Pillow's, byte by byte, before anything is timed. The floor stands with
BenchmarkStretch in preprocess/bench_test.go.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIDE = 448  # benchSide in preprocess/bench_test.go
SECONDS = 0.5  # a measurement
SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080), "4032x3024": (4032, 3024)}
BUILDS = {"libjpeg-turbo": ("1", "nomsgpack,libjpeg"), "pure Go": ("0", "nomsgpack")}


def photograph(width: int, height: int) -> Image.Image:
    """Noise whose power falls with the frequency, as that of photographs does, and a little grain."""
    rng = np.random.default_rng(1)
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(8):
        cells = (2 + 2**octave * width // 640, 2 + 2**octave * height // 640)
        layer = rng.normal(0, 1, (cells[1], cells[0], 3)) * 60 / 1.6**octave
        planes = [
            Image.fromarray(layer[..., c].astype(np.float32)).resize(
                (width, height), Image.Resampling.BICUBIC
            )
            for c in range(3)
        ]
        total += np.stack([np.asarray(plane) for plane in planes], -1)
    y, x = np.mgrid[0:height, 0:width]
    for cx, cy, r in rng.random((12, 3)):
        total[(x - cx * width) ** 2 + (y - cy * height) ** 2 < (r * height / 4) ** 2] += rng.normal(0, 50, 3)
    total += rng.normal(0, 3, total.shape)
    return Image.fromarray((128 + total).clip(0, 255).astype(np.uint8))


def pillow(data: bytes) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return image.resize((SIDE, SIDE), Image.Resampling.BILINEAR).tobytes()


def time_pillow(data: bytes) -> float:
    pillow(data)
    runs, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < SECONDS:
        pillow(data)
        runs += 1
    return took / runs * 1e9


def time_go(binary: Path, folder: Path, name: str) -> dict[str, float]:
    """Nanoseconds by picture."""
    command = [binary, "-test.run=^$", f"-test.bench=^Benchmark{name}$", "-test.cpu=1"]
    command.append(f"-test.benchtime={SECONDS}s")
    env = {**os.environ, "REFERSAM_BENCH_PICTURES": str(folder)}
    text = subprocess.run(
        command, cwd=ROOT / "preprocess", env=env, check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"^Benchmark\w+/(\S+)\.jpg\s+\d+\s+([\d.]+) ns/op", text, re.MULTILINE)
    return {picture: float(nanoseconds) for picture, nanoseconds in found}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()

    times = defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder, binaries = Path(name), {}
        pictures = {}
        for size, (width, height) in SIZES.items():
            photograph(width, height).save(folder / f"{size}.jpg", quality=90, subsampling="4:2:0")
            pictures[size] = (folder / f"{size}.jpg").read_bytes()
        for build, (cgo, tags) in BUILDS.items():
            binaries[build] = folder / build.replace(" ", "-")
            env = {**os.environ, "CGO_ENABLED": cgo, "GOFLAGS": f"-tags={tags}"}
            program = folder / f"{binaries[build].name}-refersam"
            for command in (
                ["go", "test", "-c", "-o", binaries[build], "./preprocess"],
                ["go", "build", "-o", program, "./cmd/refersam"],
            ):
                subprocess.run(command, cwd=ROOT, env=env, check=True)
            for size, data in pictures.items():
                command = [program, "preprocess", folder / f"{size}.jpg", "--size", str(SIDE), "-o", "-"]
                square = subprocess.run(command, check=True, capture_output=True).stdout
                ours = np.asarray(Image.open(io.BytesIO(square)).convert("RGB"), np.int16)
                off = np.abs(ours - np.frombuffer(pillow(data), np.uint8).reshape(ours.shape))
                print(f"{build}, {size}: {np.count_nonzero(off)} of {off.size} samples differ from Pillow's, "
                      f"by {off.max()} at most, {off.mean():.4f} in the mean")  # fmt: skip
                if build == "libjpeg-turbo" and off.any():
                    sys.exit("the pixels are not Pillow's")
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for this process and those it starts
        for _ in range(args.rounds):
            for size, data in pictures.items():
                times["Pillow", size].append(time_pillow(data))
            for build, binary in binaries.items():
                for size, nanoseconds in time_go(binary, folder, "Stretch").items():
                    times[build, size].append(nanoseconds)
            for size, nanoseconds in time_go(binaries["pure Go"], folder, "Standard").items():
                times["image/jpeg + x/image/draw", size].append(nanoseconds)

    ms = {key: statistics.median(values) / 1e6 for key, values in times.items()}
    print(f"\nJPEG → {SIDE}², medians of {args.rounds} rounds, ms\n")
    print("| picture | build | refersam | peer | ms | ratio | target |")
    print("|---|---|---|---|---|---|---|")
    for build, peer, target in (
        ("libjpeg-turbo", "Pillow", 2.5),
        ("pure Go", "image/jpeg + x/image/draw", 2),
    ):
        for size in SIZES:
            own, other = ms[build, size], ms[peer, size]
            aim = "–" if size == "640x480" and peer == "Pillow" else target
            print(f"| {size} | {build} | {own:.2f} | {peer} | {other:.2f} | {other / own:.1f} | {aim} |")


if __name__ == "__main__":
    main()
