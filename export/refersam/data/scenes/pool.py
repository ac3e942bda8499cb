"""A pool of rendered scenes on disk, so that drawing them is paid for once and shared by every training run.

A pool folder holds, for N scenes stretched to S x S:

    images.npy        uint8 [N, S, S, 3]   RGB, resized as the gateway does it (antialiased bilinear)
    labels.npy        uint8 [N, S, S]      0 is background, i + 1 is object i (visible pixels)
    things.npy        int16 [N, MAX_OBJECTS]   class of object i, -1 where there is none
    expressions.jsonl one line a scene: a list of [text, kind, targets, thing, attribute, relation, reference]
    pool.json         what it was made of; written last, so a folder without it is unfinished

    python -m refersam.data.pool --out var/pool --count 40000 --size 224
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from refersam.data import transforms
from refersam.data.sample import Sample
from refersam.data.scenes.expressions import Expression
from refersam.data.scenes.questions import PICTURE_LABEL, classes_at, draw, label_map, phrases, question

MAX_OBJECTS = 6


@dataclass(frozen=True)
class Pool:
    """An opened pool, a data set. Arrays are memory maps and must not be written to."""

    images: np.ndarray
    labels: np.ndarray
    things: np.ndarray
    expressions: list[list[Expression]]

    @classmethod
    def open(cls, folder: Path, side: int) -> Pool:
        """Opens a pool for squares of at most `side` pixels.

        Raises FileNotFoundError for an unfinished pool, ValueError for one of smaller pictures.
        """
        if not (folder / "pool.json").exists():
            raise FileNotFoundError(
                f"{folder} holds no finished pool: python -m refersam.data.pool --out {folder}"
            )
        about = json.loads((folder / "pool.json").read_text())
        if about["size"] < side:
            raise ValueError(
                f"{folder} holds pictures of side {about['size']}, smaller than the {side} to train on"
            )
        lines = (folder / "expressions.jsonl").read_text().splitlines()
        return cls(
            images=np.load(folder / "images.npy", mmap_mode="r"),
            labels=np.load(folder / "labels.npy", mmap_mode="r"),
            things=np.load(folder / "things.npy"),
            expressions=[[Expression(*fields) for fields in json.loads(line)] for line in lines],
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        labels = np.asarray(self.labels[index])

        def answer(expression: Expression) -> np.ndarray:
            return np.isin(labels, [target + 1 for target in expression.targets])

        return Sample(
            np.asarray(self.images[index]),
            tuple(question(e, lambda e=e: answer(e)) for e in self.expressions[index]),
            {PICTURE_LABEL: classes_at(labels, self.things[index])},
        )


def _row(job: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, list[int], str]:
    index, size, count = job
    scene = draw("train", index)
    labels = transforms.square_map(label_map(scene), size, transforms.STRETCH)
    things = [thing.thing for thing in scene.objects]
    spoken = [dataclasses.astuple(expression) for expression in phrases(scene, count)]
    picture = transforms.square(scene.image, size, transforms.STRETCH)
    return picture, labels, things, json.dumps(spoken)


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
