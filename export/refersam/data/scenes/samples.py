"""Writes the sample pictures of the web page, with phrases to try on them.

    python -m refersam.data.scenes.samples --out gateway/web/samples

writes the pictures and `samples.json`: a list of {"file", "width", "height", "phrases"}. The scenes are from
the test split: no model has trained on them.
"""

import argparse
import json
from pathlib import Path

from PIL import Image

from refersam.data.scenes.drawing import scene_of

WIDTH, HEIGHT = 640, 480

QUALITY = 90
"""JPEG quality of the pictures: at most 80 kB each."""

SAMPLES = {
    "ducks.jpg": (
        51164,
        (
            "the duck on the left",
            "the bigger duck",
            "both ducks",
            "the crab below the croissant",
            "the elephant",
        ),
    ),
    "dogs.jpg": (
        52316,
        ("the dog on the right", "the dog next to the cat", "all the dogs", "the doughnut", "the drum"),
    ),
    "strawberries.jpg": (
        50038,
        (
            "the biggest strawberry",
            "the smallest strawberry",
            "all the strawberries",
            "the bunny",
            "the pumpkin below the turtle",
        ),
    ),
}
"""File name → index in the test split, and phrases."""


def write(out: Path) -> None:
    """Writes the pictures and `samples.json` into `out`, which is made when missing."""
    out.mkdir(parents=True, exist_ok=True)
    about = []
    for name, (index, phrases) in SAMPLES.items():
        scene = scene_of("test", index, WIDTH, HEIGHT)
        Image.fromarray(scene.image).save(out / name, "JPEG", quality=QUALITY)
        about.append({"file": name, "width": WIDTH, "height": HEIGHT, "phrases": list(phrases)})
    (out / "samples.json").write_text(json.dumps(about, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.data.scenes.samples",
        description="Write the sample pictures of the web page.",
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the pictures and samples.json")
    write(parser.parse_args().out)


if __name__ == "__main__":
    main()
