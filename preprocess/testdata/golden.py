"""Writes the pictures of decode/ and the golden data that Pillow makes of them and of Resize's inputs.

Run in this folder with Pillow 13 and numpy; the files are committed, so tests need neither:

    python golden.py

decode/NAME holds an encoded picture, decode/NAME.rgb the samples (RGB, row by row) that Pillow decodes from
it, upright. golden.json lists the sizes and, for the resizer, SHA-256 of the samples.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL
from kinds import XMP, Bmp, Gif, Png, Tiff, run_lengths
from kinds import exif as orientation_block
from PIL import Image, ImageFile, ImageOps

HERE = Path(__file__).parent


def noise(width: int, height: int, seed: int) -> np.ndarray:
    """Uint8 [height, width, 3] of a linear congruential generator that the Go test repeats."""
    state = seed
    out = bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3)


def scene(width: int, height: int) -> Image.Image:
    """Gradients, saturated shapes and a little noise: chroma edges show how they are upsampled."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pix = np.stack([255 * x / width, 255 * y / height, 127 + 120 * np.sin(x / 5 + y / 7)], axis=-1)
    pix[(x - width / 3) ** 2 + (y - height / 2) ** 2 < (height / 4) ** 2] = (250, 20, 30)
    pix[(x > width * 0.6) & (x < width * 0.8) & (y > height * 0.2) & (y < height * 0.7)] = (10, 40, 240)
    pix += np.random.default_rng(7).normal(0, 4, pix.shape)
    return Image.fromarray(pix.clip(0, 255).astype(np.uint8))


def with_alpha(image: Image.Image) -> Image.Image:
    """Alpha from 0 to 255: what is fully transparent keeps its colour."""
    ramp = np.linspace(0, 255, image.width).astype(np.uint8)
    image = image.copy()
    image.putalpha(Image.fromarray(np.tile(ramp, (image.height, 1))))
    return image


def encode(image: Image.Image, fmt: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def exif(orientation: int) -> Image.Exif:
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def resampled(jpeg: bytes, factors: int, size: tuple[int, int]) -> bytes:
    """The JPEG with other luma sampling factors and a size that needs as many blocks.

    Pillow writes no 4:4:0 and no 4:1:1. The blocks land in other places, which makes no worse a test.
    """
    frame = jpeg.index(b"\xff\xc0")
    header = struct.pack(">HH", *reversed(size)) + jpeg[frame + 9 : frame + 11] + bytes([factors])
    return jpeg[: frame + 5] + header + jpeg[frame + 12 :]


def scans(image: Image.Image) -> bytes:
    """A sequential JPEG with a scan for each component, made of grey ones; Pillow writes no such thing."""
    parts = [encode(plane, "JPEG", quality=90) for plane in image.convert("YCbCr").split()]
    frame, scan = parts[0].index(b"\xff\xc0"), parts[0].index(b"\xff\xda")
    components = b"".join(bytes([i, 0x11, 0]) for i in (1, 2, 3))
    data = parts[0][:frame] + b"\xff\xc0" + struct.pack(">H", 17) + parts[0][frame + 4 : frame + 9]
    data += b"\x03" + components + parts[0][frame + 13 : scan]
    for i, part in enumerate(parts, 1):
        data += b"\xff\xda\0\x08\x01" + bytes([i, 0, 0, 63, 0]) + part[scan + 10 : -2]
    return data + b"\xff\xd9"


def ycck(cmyk: bytes) -> bytes:
    """The JPEG with the word that its inks are stored as YCbCr and black."""
    transform = cmyk.index(b"Adobe") + 11
    return cmyk[:transform] + b"\2" + cmyk[transform + 1 :]


def png(header: bytes, rows: bytes) -> bytes:
    """A PNG of an IHDR chunk's data and filtered rows."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def png16(color_type: int, samples: np.ndarray) -> bytes:
    """A 16-bit PNG of samples [height, width, channels]."""
    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return png(struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0), rows)


def adam7(image: Image.Image) -> bytes:
    """An interlaced PNG, which Pillow does not write."""
    pixels = np.asarray(image)
    starts, steps = ((0, 0), (4, 0), (0, 4), (2, 0), (0, 2), (1, 0), (0, 1)), (8, 8, 4, 4, 2, 2, 1)
    rows = b"".join(
        b"\0" + row.tobytes()
        for (x, y), across, down in zip(starts, steps, (8, 8, 8, 4, 4, 2, 2), strict=True)
        for row in pixels[y::down, x::across]
        if row.size
    )
    return png(struct.pack(">IIBBBBB", image.width, image.height, 8, 2, 0, 0, 1), rows)


def top_down(bmp: bytes) -> bytes:
    """The BMP with a negative height: the same rows, from the top."""
    return bmp[:22] + struct.pack("<i", -struct.unpack("<i", bmp[22:26])[0]) + bmp[26:]


def gif(screen: tuple[int, int], at: tuple[int, int], transparent: int | None, interlaced: bool) -> bytes:
    """A GIF of one 6×5 frame at a position on its screen, with a palette of 8 colours."""
    palette = bytes(noise(8, 1, 5))
    indices = bytes((x + y) % 8 for y in range(5) for x in range(6))
    frame = Image.frombytes("P", (6, 5), indices)
    frame.putpalette(palette)
    data = encode(frame, "GIF", interlace=int(interlaced), optimize=False)
    descriptor = data.index(b",")
    control = b"" if transparent is None else b"!\xf9\x04\x01\0\0" + bytes([transparent, 0])
    head = b"GIF89a" + struct.pack("<HH", *screen) + data[10:descriptor].split(b"!\xf9")[0]
    return head + control + b"," + struct.pack("<HH", *at) + data[descriptor + 5 :]


def offset_webp() -> bytes:
    """An animated WebP whose first frame does not cover its canvas."""
    still = encode(scene(12, 10), "WEBP", quality=80)[12:]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    def u24(value: int) -> bytes:
        return struct.pack("<I", value)[:3]

    body = (
        chunk(b"VP8X", bytes([2, 0, 0, 0]) + u24(20 - 1) + u24(16 - 1))
        + chunk(b"ANIM", bytes(6))
        + chunk(b"ANMF", u24(4 // 2) + u24(2 // 2) + u24(12 - 1) + u24(10 - 1) + u24(100) + b"\0" + still)
    )
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def segment(data: bytes) -> bytes:
    """An APP1 segment of a JPEG."""
    return b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data


def exif_segment(block: bytes) -> bytes:
    return segment(b"Exif\0\0" + block)


def pictures() -> Iterator[tuple[str, bytes]]:
    image = scene(47, 35)
    small = scene(13, 9)
    jpegs = {
        name: encode(image, "JPEG", quality=90, subsampling=name) for name in ("4:4:4", "4:2:2", "4:2:0")
    }
    for name, data in jpegs.items():
        yield f"{name.replace(':', '')}.jpg", data
    yield "440.jpg", resampled(jpegs["4:2:2"], 0x12, (35, 47))
    yield "411.jpg", resampled(jpegs["4:2:0"], 0x41, (90, 20))
    yield "even.jpg", encode(scene(32, 16), "JPEG", quality=75, subsampling="4:2:0")
    yield "narrow.jpg", encode(scene(4, 11), "JPEG", quality=90, subsampling="4:2:0")
    yield "narrow422.jpg", encode(scene(3, 11), "JPEG", quality=90, subsampling="4:2:2")
    yield "pixel.jpg", encode(scene(1, 1), "JPEG", quality=90, subsampling="4:2:0")
    yield "progressive.jpg", encode(image, "JPEG", quality=90, progressive=True)
    yield "gray.jpg", encode(small.convert("L"), "JPEG", quality=90)
    yield "cmyk.jpg", encode(small.convert("CMYK"), "JPEG", quality=95)
    yield "rgb.jpg", encode(small, "JPEG", quality=95, keep_rgb=True)
    yield "noend.jpg", encode(small, "JPEG", quality=90)[:-2]
    for orientation in range(1, 9):
        yield f"exif{orientation}.jpg", encode(small, "JPEG", quality=95, exif=exif(orientation))

    yield "rgb.png", encode(small, "PNG")
    yield "rgba.png", encode(with_alpha(small), "PNG")
    yield "gray.png", encode(small.convert("L"), "PNG")
    yield "gray-alpha.png", encode(with_alpha(small).convert("LA"), "PNG")
    yield "bilevel.png", encode(small.convert("1"), "PNG")
    yield "palette.png", encode(small.quantize(16), "PNG")
    yield "palette-alpha.png", encode(small.quantize(200), "PNG", transparency=bytes(range(200)))
    yield "keyed.png", encode(small, "PNG", transparency=small.getpixel((3, 3)))
    yield "exif6.png", encode(small, "PNG", exif=exif(6))
    deep = (np.random.default_rng(3).integers(0, 1 << 16, (6, 7, 4))).astype(np.uint16)
    yield "gray16.png", png16(0, deep[:, :, :1])
    yield "rgb16.png", png16(2, deep[:, :, :3])
    yield "gray-alpha16.png", png16(4, deep[:, :, :2])
    yield "rgba16.png", png16(6, deep)

    yield "lossy.webp", encode(image, "WEBP", quality=85)
    yield "lossy-even.webp", encode(scene(32, 16), "WEBP", quality=60)
    yield "lossy-pixel.webp", encode(scene(1, 1), "WEBP", quality=85)
    yield "lossy-alpha.webp", encode(with_alpha(small), "WEBP", quality=85, exact=True)
    yield "lossless.webp", encode(small, "WEBP", lossless=True)
    yield "lossless-alpha.webp", encode(with_alpha(small), "WEBP", lossless=True, exact=True)
    yield "exif8.webp", encode(small, "WEBP", quality=85, exif=exif(8))
    animation = {"save_all": True, "append_images": [ImageOps.invert(small)], "duration": 50}
    yield "animated.webp", encode(small, "WEBP", quality=85, **animation)
    yield "animated-offset.webp", offset_webp()

    yield "whole.gif", encode(image.quantize(64), "GIF")
    yield "gray.gif", encode(small.convert("L"), "GIF")
    yield "animated.gif", encode(small, "GIF", **animation)
    yield "offset.gif", gif((12, 9), (3, 2), None, False)
    yield "offset-transparent.gif", gif((12, 9), (3, 2), 5, False)
    yield "interlaced.gif", gif((6, 5), (0, 0), 2, True)
    yield "oversize.gif", gif((4, 4), (1, 1), None, False)

    yield "large.jpg", encode(scene(200, 150), "JPEG", quality=90, subsampling="4:2:0", exif=exif(6))
    yield "restart.jpg", encode(image, "JPEG", quality=90, restart_marker_blocks=2)
    yield "progressive-gray.jpg", encode(small.convert("L"), "JPEG", quality=90, progressive=True)
    yield "progressive-cmyk.jpg", encode(small.convert("CMYK"), "JPEG", quality=95, progressive=True)
    yield "interlaced.png", adam7(small)
    wide = scene(133, 21)  # long enough for kernels that take 32 pixels at once
    for name in ("4:4:4", "4:2:2", "4:2:0"):
        yield f"wide{name.replace(':', '')}.jpg", encode(wide, "JPEG", quality=95, subsampling=name)
    yield "scans.jpg", scans(image)
    yield "ycck.jpg", ycck(encode(small.convert("CMYK"), "JPEG", quality=95))

    yield "rgb.bmp", encode(small, "BMP")
    yield "rgba.bmp", encode(with_alpha(small), "BMP")
    yield "gray.bmp", encode(small.convert("L"), "BMP")
    yield "bilevel.bmp", encode(small.convert("1"), "BMP")
    yield "palette.bmp", encode(small.quantize(200), "BMP")
    yield "top-down.bmp", top_down(encode(small, "BMP"))

    yield "rgb.tiff", encode(small, "TIFF")
    yield "rgba.tiff", encode(with_alpha(small), "TIFF")
    yield "gray.tiff", encode(small.convert("L"), "TIFF")
    yield "bilevel.tiff", encode(small.convert("1"), "TIFF")
    yield "palette.tiff", encode(small.quantize(200), "TIFF")
    yield "gray16.tiff", encode(Image.fromarray(deep[:, :, 0].copy()), "TIFF")
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        name = compression.removeprefix("tiff_").replace("_", "-")
        yield f"{name}.tiff", encode(small, "TIFF", compression=compression)
    yield "exif7.tiff", encode(small, "TIFF", tiffinfo={0x0112: 7})

    yield "reversed.tiff", Tiff(fill_order=2).encode()
    yield "reversed-bilevel.tiff", Tiff(fill_order=2, photometric=0, bits=1, samples=1, rows=4).encode()
    yield "reversed-lzw.tiff", Tiff(fill_order=2, compression=5, photometric=3, bits=4, samples=1).encode()
    yield "planes.tiff", Tiff(planar=2, rows=4).encode()
    yield (
        "planes-lzw16.tiff",
        Tiff(planar=2, bits=16, compression=5, predictor=2, tile=(16, 16), size=(20, 18)).encode(),
    )
    yield "extra.tiff", Tiff(samples=4, extra=(0,)).encode()
    yield "extras.tiff", Tiff(samples=5, extra=(2, 0), compression=8, predictor=2).encode()
    yield "premultiplied.tiff", Tiff(samples=4, extra=(1,)).encode()
    yield "gray-alpha.tiff", Tiff(photometric=1, samples=2, extra=(2,)).encode()
    yield "white.tiff", Tiff(photometric=0, samples=1, bits=2, order=">").encode()
    yield "cmyk.tiff", Tiff(photometric=5, samples=4, compression=32773).encode()
    yield "tiles.tiff", Tiff(tile=(16, 16), size=(33, 17), order=">").encode()
    yield "big.tiff", Tiff(big=True, rows=2).encode()
    yield "exif6-long.tiff", Tiff(change={0x112: (4, (6,))}).encode()

    runs = run_lengths(random.Random(5), (13, 9), four=False, wild=False)
    yield "runs8.bmp", Bmp(bits=8, compression=1, runs=runs).encode()
    runs = run_lengths(random.Random(6), (13, 9), four=True, wild=True)
    yield "runs4.bmp", Bmp(bits=4, compression=2, runs=runs).encode()
    yield "core.bmp", Bmp(header=12, bits=4).encode()
    yield "555.bmp", Bmp(bits=16).encode()
    yield "565.bmp", Bmp(bits=16, compression=3, masks=(0xF800, 0x7E0, 0x1F), top_down=True).encode()
    yield (
        "masks.bmp",
        Bmp(header=124, bits=32, compression=3, masks=(0xFF, 0xFF00, 0xFF0000, 0xFF000000)).encode(),
    )

    yield "surplus.png", Png(surplus=b"\0").encode()
    yield (
        "interlaced4.png",
        Png(colour_type=3, bits=4, interlaced=True, palette=9, chunks=3, surplus=b"more").encode(),
    )
    yield "bits2.png", Png(colour_type=0, bits=2, behind=b"behind").encode()
    yield "late-exif6.png", Png(after=[(b"eXIf", orientation_block((6,)))]).encode()
    yield "surplus.gif", Gif(surplus=b"surplus", more=5).encode()
    yield "short-palette.gif", Gif(palette=4, interlaced=True).encode()
    for kind in (4, 5, 9, 12):
        block = exif_segment(orientation_block((6,), kind))
        yield f"exif6-type{kind}.jpg", jpegs["4:2:0"][:2] + block + jpegs["4:2:0"][2:]
    yield (
        "xmp6.jpg",
        jpegs["4:2:0"][:2] + segment(b"http://ns.adobe.com/xap/1.0/\0" + XMP) + jpegs["4:2:0"][2:],
    )


def decode(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    if image.mode.startswith(
        "I;16"
    ):  # convert() would clip at 255 what it shifts down for every other 16-bit mode
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return ImageOps.exif_transpose(image).convert("RGB")


def main() -> None:
    folder = HERE / "decode"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    decoded = []
    for name, data in pictures():
        image = decode(data)
        (folder / name).write_bytes(data)
        (folder / f"{name}.rgb").write_bytes(image.tobytes())
        decoded.append({"name": name, "width": image.width, "height": image.height})

    resized = []
    shapes = [
        ((64, 48), (32, 32)), ((640, 427), (256, 256)), ((427, 640), (256, 256)), ((100, 37), (256, 256)),
        ((33, 300), (128, 64)), ((1, 1), (5, 7)), ((1, 50), (9, 3)), ((50, 1), (3, 9)), ((97, 89), (1, 1)),
        ((97, 89), (97, 31)), ((97, 89), (31, 89)), ((20, 20), (20, 20)), ((255, 257), (256, 256)),
        ((28, 33), (22, 21)), ((28, 33), (22, 20)), ((15, 15), (17, 14)), ((2, 3), (3, 2)),
        ((3000, 3), (7, 2)),
    ]  # fmt: skip
    for seed, (size, out) in enumerate(shapes):
        image = Image.fromarray(noise(*size, seed)).resize(out, Image.Resampling.BILINEAR)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        resized.append({"seed": seed, "size": size, "out": out, "sha256": digest})

    large = folder / "large.jpg"
    reduced = []
    for denominator, out in ((1, (40, 50)), (2, (37, 50)), (4, (18, 24)), (8, (5, 6))):
        image = Image.open(large)
        image.draft(None, (image.width // denominator, image.height // denominator))
        image = ImageOps.exif_transpose(image)
        if image.size != (-(-150 // denominator), -(-200 // denominator)):
            raise ValueError(f"Pillow reduces to {image.size}")
        digest = hashlib.sha256(image.resize(out, Image.Resampling.BILINEAR).tobytes()).hexdigest()
        reduced.append({"denominator": denominator, "out": out, "sha256": digest})

    ImageFile.LOAD_TRUNCATED_IMAGES = True
    lenient = []
    for name in ("large.jpg", "progressive.jpg", "gray.jpg", "cmyk.jpg"):
        header = (folder / name).read_bytes().rindex(b"\xff\xda")  # of the last scan
        size = ((folder / name).stat().st_size + header) // 2
        image = decode((folder / name).read_bytes()[:size])
        digest = hashlib.sha256(image.tobytes()).hexdigest()
        lenient.append({"name": name, "bytes": size, "sha256": digest})

    golden = {
        "pillow": PIL.__version__,
        "decode": decoded,
        "resize": resized,
        "reduce": reduced,
        "lenient": lenient,
    }
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
