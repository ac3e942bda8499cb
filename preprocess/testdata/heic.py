"""Writes heic/: small HEIC pictures, and what pillow-heif makes of them (heic.json and .rgb).

Run in this folder with Pillow, numpy and pillow-heif; the files are committed:

    python heic.py
"""

from __future__ import annotations

import io
import json

import pillow_heif
from golden import HERE, exif, scene, with_alpha
from PIL import Image

pillow_heif.register_heif_opener()


def encode(image: Image.Image, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, "HEIF", quality=90, **options)
    return out.getvalue()


def turned(data: bytes, property: bytes, value: int) -> bytes:
    """The picture with its property `pixi`, which says nothing new, made one that turns it."""
    at = data.index(b"pixi")
    return data[:at] + property + bytes([value]) + data[at + 5 :]


def main() -> None:
    image = scene(70, 50)
    whole = encode(scene(128, 64), chroma=444)  # whole blocks, so that nothing is cut off
    photograph = Image.open(HERE / "../../gateway/web/samples/dogs.jpg")
    pictures = {
        "420": encode(photograph.resize((70, 50)), chroma=420),
        "422": encode(photograph.resize((70, 50)), chroma=422),
        "444": encode(image, chroma=444),
        "odd": encode(photograph.resize((267, 49)), chroma=420),
        "gray": encode(image.convert("L")),
        "alpha": encode(with_alpha(image), chroma=444),
        "several": encode(image, chroma=444, save_all=True, append_images=[scene(40, 40)]),
        "exif6": encode(image, chroma=444, exif=exif(6)),  # readers must not turn it
        "irot1": turned(whole, b"irot", 1),
        "irot2": turned(whole, b"irot", 2),
        "irot3": turned(whole, b"irot", 3),
        "imir": turned(whole, b"imir", 1),
        "irot1-exif6": turned(encode(scene(128, 64), chroma=444, exif=exif(6)), b"irot", 1),
    }
    folder = HERE / "heic"
    folder.mkdir(exist_ok=True)
    sizes = {}
    for name, data in pictures.items():
        (folder / f"{name}.heic").write_bytes(data)
        decoded = Image.open(io.BytesIO(data)).convert("RGB")
        (folder / f"{name}.rgb").write_bytes(decoded.tobytes())
        sizes[name] = decoded.size
    (folder / "sizes.json").write_text(json.dumps(sizes) + "\n")


if __name__ == "__main__":
    main()
