"""A pool of rendered scenes on disk, so that drawing them is paid for once and shared by every training run.

A pool folder holds, for N scenes stretched to S x S:

    images.npy        uint8 [N, S, S, 3]   RGB, resized as the gateway does it (antialiased bilinear)
    labels.npy        uint8 [N, S, S]      0 is background, i + 1 is object i (visible pixels)
    things.npy        int16 [N, MAX_OBJECTS]   class of object i, -1 where there is none
    expressions.jsonl one line a scene: a list of [text, kind, targets, thing, attribute, relation, reference]
    pool.json         what it was made of; written last, so a folder without it is unfinished

    python -m refersam.data.pool --out var/pool --count 40000 --size 224
"""

import argparse
import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from refersam.data import scenes
from refersam.data.expressions import Expression, make_expressions

MAX_OBJECTS = 6
# Canvas sides in pixels. Canvases are stretched to a square, so the model meets other aspect ratios than 1.
MIN_SIDE, MAX_SIDE = 256, 384


@dataclass(frozen=True)
class Pool:
    """An opened pool. Arrays are memory maps and must not be written to."""

    images: np.ndarray
    labels: np.ndarray
    things: np.ndarray
    expressions: list[list[Expression]]
    size: int
    """Side of the pictures that `pictures` gives, at most that of those on disk."""

    def __len__(self) -> int:
        return len(self.images)

    def pictures(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [B, size, size, 3] and labels uint8 [B, size, size] of some scenes."""
        images, labels = self.images[rows], self.labels[rows]
        if images.shape[1] == self.size:
            return images, labels
        return (
            np.stack([stretch(image, self.size) for image in images]),
            np.stack([stretch_labels(label, self.size) for label in labels]),
        )


def draw(split: str, index: int) -> scenes.Scene:
    """Scene `index` of a split on a canvas whose sides are drawn from the scene's own seed."""
    seed = scenes.SPLITS[split][index]
    width, height = np.random.default_rng([seed, 11]).integers(MIN_SIDE, MAX_SIDE + 1, 2)
    return scenes.make_scene(seed, int(width), int(height))


def phrases(scene: scenes.Scene, count: int) -> list[Expression]:
    """`count` expressions of a scene, a function of its seed alone; a larger count only appends."""
    return make_expressions(scene, np.random.default_rng([scene.seed, 12]), count)


def label_map(scene: scenes.Scene) -> np.ndarray:
    """uint8 [H, W]: 0 is background, i + 1 is object i."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for i, thing in enumerate(scene.objects):
        labels[thing.mask] = i + 1
    return labels


def stretch(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size, size, 3], antialiased bilinear, aspect ratio not kept."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def stretch_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """uint8 [H, W] -> uint8 [size, size], the label nearest to each pixel's centre."""
    return np.array(Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST))


def _row(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, list[int], str]:
    index, size, count = job
    scene = draw("train", index)
    labels = stretch_labels(label_map(scene), size)
    things = [thing.thing for thing in scene.objects]
    spoken = [dataclasses.astuple(expression) for expression in phrases(scene, count)]
    return stretch(scene.image, size), labels, things, json.dumps(spoken)


def build(out: Path, count: int, size: int, expressions: int, workers: int) -> Iterator[int]:
    """Draws a pool of training scenes into `out` and yields after each one how many are done."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "pool.json").unlink(missing_ok=True)
    images = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, (count, size, size, 3))
    labels = np.lib.format.open_memmap(out / "labels.npy", "w+", np.uint8, (count, size, size))
    things = np.full((count, MAX_OBJECTS), -1, np.int16)
    jobs = ((index, size, expressions) for index in range(count))
    with multiprocessing.Pool(workers) as processes, (out / "expressions.jsonl").open("w") as spoken:
        for i, (image, label, classes, line) in enumerate(processes.imap(_row, jobs, chunksize=32)):
            images[i], labels[i], things[i, : len(classes)] = image, label, classes
            spoken.write(line + "\n")
            yield i + 1
    images.flush()
    labels.flush()
    np.save(out / "things.npy", things)
    (out / "pool.json").write_text(json.dumps({"count": count, "size": size, "expressions": expressions}))


def load(folder: Path, size: int) -> Pool:
    """Opens a pool for pictures of side `size`.

    Raises FileNotFoundError for an unfinished pool, ValueError for one of smaller pictures.
    """
    if not (folder / "pool.json").exists():
        raise FileNotFoundError(
            f"{folder} holds no finished pool: python -m refersam.data.pool --out {folder}"
        )
    about = json.loads((folder / "pool.json").read_text())
    if about["size"] < size:
        raise ValueError(
            f"{folder} holds pictures of side {about['size']}, smaller than the {size} to train on"
        )
    lines = (folder / "expressions.jsonl").read_text().splitlines()
    return Pool(
        images=np.load(folder / "images.npy", mmap_mode="r"),
        labels=np.load(folder / "labels.npy", mmap_mode="r"),
        things=np.load(folder / "things.npy"),
        expressions=[[Expression(*fields) for fields in json.loads(line)] for line in lines],
        size=size,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw a pool of training scenes.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40_000, help="scenes (default %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures (default %(default)s)")
    parser.add_argument("--expressions", type=int, default=8, help="phrases a scene (default %(default)s)")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    args = parser.parse_args()
    for done in build(args.out, args.count, args.size, args.expressions, args.workers):
        if done % 1000 == 0:
            print(f"{done} of {args.count} scenes", flush=True)


if __name__ == "__main__":
    main()
