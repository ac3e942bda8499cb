"""Says what Pillow makes of pictures; the Go test pillow_test.go runs it.

    pillow.py kinds    writes the pictures of kinds.py, each with its name and Pillow's verdict
    pillow.py          reads pictures and writes the verdict on each

A picture is its length, four bytes, lowest first, and its bytes; a name is the same. A verdict is width and
height and the samples (RGB, row by row, upright), or zeros and a text.
"""

from __future__ import annotations

import io
import struct
import sys
import warnings
from pathlib import Path

from golden import decode
from kinds import carriers, kinds
from PIL import Image

HERE = Path(__file__).parent


def text(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def verdict(data: bytes) -> bytes:
    try:
        if (size := Image.open(io.BytesIO(data)).size)[0] * size[1] > 1 << 20:
            raise ValueError(f"{size} is too large for this test")
        image = decode(data)
    except Exception as error:
        return struct.pack("<II", 0, 0) + text(f"{type(error).__name__}: {error}".encode())
    return struct.pack("<II", *image.size) + text(image.tobytes())


def main() -> None:
    warnings.simplefilter("ignore")
    out = sys.stdout.buffer
    if sys.argv[1:] == ["kinds"]:
        jpeg, webp = ((HERE / "decode" / name).read_bytes() for name in ("411.jpg", "lossy.webp"))
        for name, data in (*kinds(), *carriers(jpeg, webp)):
            out.write(text(name.encode()) + text(data) + verdict(data))
        return
    while header := sys.stdin.buffer.read(4):
        out.write(verdict(sys.stdin.buffer.read(struct.unpack("<I", header)[0])))
        out.flush()


if __name__ == "__main__":
    main()
