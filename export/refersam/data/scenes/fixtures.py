"""Writes scenes with questions and right answers for the end-to-end tests of the service.

The scenes come from the far end of the test split, which neither training nor `refersam.evaluate` touches.

    python -m refersam.data.scenes.fixtures --out tests/testdata

writes `scene_00.jpg` … and `scenes.json`: a list of {"file", "width", "height", "questions"}. A question is
{"phrase", "kind", "mask"}; its mask is the COCO RLE of the right answer, empty when nothing is meant.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as coco

from refersam.data.scenes.drawing import SPLITS
from refersam.data.scenes.expressions import target_mask
from refersam.data.scenes.questions import draw, phrases

QUALITY = 90
"""JPEG quality of the pictures: about 20 kB each."""


def rle(mask: np.ndarray) -> dict[str, object]:
    """COCO run lengths of a bool [H, W] mask: "size" is [H, W], "counts" the compressed string."""
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def write(out: Path, count: int, questions: int) -> None:
    """Writes `count` scenes with `questions` questions each into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    first = len(SPLITS["test"]) - count
    about = []
    for index in range(count):
        scene = draw("test", first + index)
        name = f"scene_{index:02d}.jpg"
        Image.fromarray(scene.image).save(out / name, "JPEG", quality=QUALITY)
        height, width = scene.image.shape[:2]
        asked = [
            {"phrase": expression.text, "kind": expression.kind, "mask": rle(target_mask(scene, expression))}
            for expression in phrases(scene, questions)
        ]
        about.append({"file": name, "width": width, "height": height, "questions": asked})
    (out / "scenes.json").write_text(json.dumps(about, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.data.scenes.fixtures",
        description="Write scenes with right answers for the end-to-end tests.",
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40, help="scenes (default %(default)s)")
    parser.add_argument("--questions", type=int, default=4, help="questions a scene (default %(default)s)")
    args = parser.parse_args()
    write(args.out, args.count, args.questions)


if __name__ == "__main__":
    main()
