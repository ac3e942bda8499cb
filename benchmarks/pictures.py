"""Times JPEG → the square of pixels that a model reads against Pillow and Go's libraries.

    .venv/bin/python benchmarks/pictures.py [--rounds 7]    # needs Go, gcc and libjpeg's header

The pictures are made here: smooth noise of many scales, shapes and a sensor's grain, 4:2:0, quality 90.
Pillow decodes and resizes as training chains do. Go's way is image/jpeg and x/image/draw.BiLinear. All of it
is one run on one core, the rounds of all take turns, and figures are medians. The squares of the build with
libjpeg-turbo are compared with Pillow's, byte by byte, before anything is timed. The floor is a copy of the
decoded pixels, which are written once and read once; entropy decoding is what takes the time.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import timing
from PIL import Image

SIDE = 448  # benchSide in preprocess/bench_test.go
SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080), "4032x3024": (4032, 3024)}
LIBJPEG = {"CGO_ENABLED": "1", "GOFLAGS": "-tags=nomsgpack,libjpeg"}
BUILDS = {"libjpeg-turbo": LIBJPEG, "pure Go": timing.PURE_GO}


def photograph(width: int, height: int) -> Image.Image:
    """Noise with less power at higher frequencies, like photographs, and a little grain."""
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


def check(build: str, env: Mapping[str, str], pictures: Mapping[str, bytes], folder: Path) -> None:
    """Prints how far a build's squares are from Pillow's, and exits if they must be equal but are not."""
    program = folder / "refersam"
    command = ["go", "build", "-o", program, "./cmd/refersam"]
    subprocess.run(command, cwd=timing.ROOT, env=os.environ | env, check=True)
    for size, data in pictures.items():
        command = [program, "preprocess", folder / f"{size}.jpg", "--size", str(SIDE), "-o", "-"]
        square = subprocess.run(command, check=True, capture_output=True).stdout
        ours = np.asarray(Image.open(io.BytesIO(square)).convert("RGB"), np.int16)
        off = np.abs(ours - np.frombuffer(pillow(data), np.uint8).reshape(ours.shape))
        print(f"{build}, {size}: {np.count_nonzero(off)} of {off.size} samples differ from Pillow's, "
              f"by {off.max()} at most, {off.mean():.4f} in the mean")  # fmt: skip
        if env is LIBJPEG and off.any():
            sys.exit("the pixels are not Pillow's")


def time_go(binary: Path, folder: Path, name: str) -> dict[str, float]:
    """Nanoseconds by picture."""
    measured = timing.go(binary, "preprocess", name, {"REFERSAM_BENCH_PICTURES": str(folder)})
    return {Path(picture).stem: nanoseconds for picture, (nanoseconds, _) in measured.items()}


def rows(rounds: int) -> list[timing.Row]:
    times = {name: timing.Times() for name in (*BUILDS, "Pillow", "standard", "copy")}
    with tempfile.TemporaryDirectory() as name:
        folder, binaries, pictures, pixels = Path(name), {}, {}, {}
        for size, (width, height) in SIZES.items():
            photograph(width, height).save(folder / f"{size}.jpg", quality=90, subsampling="4:2:0")
            pictures[size] = (folder / f"{size}.jpg").read_bytes()
            pixels[size] = np.ones((height, width, 3), np.uint8)
        for build, env in BUILDS.items():
            binaries[build] = timing.build("preprocess", folder / build.replace(" ", "-"), env)
            check(build, env, pictures, folder)
        with timing.one_core():
            for _ in range(rounds):
                for size, data in pictures.items():
                    times["Pillow"].add({size: timing.python(lambda data=data: pillow(data))})
                    times["copy"].add({size: timing.python(pixels[size].copy)})
                for build, binary in binaries.items():
                    times[build].add(time_go(binary, folder, "Stretch"))
                times["standard"].add(time_go(binaries["pure Go"], folder, "Standard"))

    table = []
    for build, peer, label, target in (
        ("libjpeg-turbo", "Pillow", "Pillow", 2.5),
        ("pure Go", "standard", "image/jpeg + x/image/draw", 2),
    ):
        for size in SIZES:
            aim = None if size == "640x480" and peer == "Pillow" else target
            what = f"JPEG {size} → {SIDE}², {build}"
            own, floor, theirs = times[build][size], times["copy"][size], times[peer][size]
            table.append(timing.Row(what, own, floor, label, theirs, aim))
    return table


if __name__ == "__main__":
    timing.main(__doc__, rows)
