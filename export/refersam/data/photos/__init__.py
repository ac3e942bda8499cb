"""Photographs with masks, asked about by grammar: `photos:FOLDER`; `collection` says what the folder holds.

The split `train` has, behind its photographs, composites of them (`composites`), half as many again; `dev`
and `test` are photographs as they are. No photograph comes with this repository.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from refersam.data.photos import collection, names
from refersam.data.photos.collection import Photograph, Thing
from refersam.data.photos.composites import Composer
from refersam.data.photos.grammar import Asked, Speaker
from refersam.data.sample import Question, Sample

PHRASES = 8
"""Questions about each picture."""
ABSENT = 2
"""At least so many of them are about what is not there."""
COMPOSITES = 0.5
"""Composites of the split `train`, as a share of its photographs."""


class Photos:
    """A split. Sample i is a photograph, or from `len(photographs)` on a composite."""

    def __init__(self, photographs: list[Photograph], composites: int = 0) -> None:
        self.photographs, self.composites = photographs, composites
        self.composer = Composer(photographs)

    def __len__(self) -> int:
        return len(self.photographs) + self.composites

    def scene(self, index: int) -> tuple[np.ndarray, list[Thing], frozenset[str], str]:
        """A picture, its things with their colours, all names known to be in it, and its set."""
        if index < len(self.photographs):
            photograph = self.photographs[index]
            picture, things = photograph.picture(), photograph.things()
            labelled, label = photograph.names, photograph.set
        else:
            picture, things, labelled, label = self.composer.compose(index - len(self.photographs))
        return picture, collection.coloured(picture, things), labelled, label

    def __getitem__(self, index: int) -> Sample:
        picture, things, labelled, label = self.scene(index)
        rng = np.random.default_rng([32, index])
        asked = Speaker(things, vocabulary(label, rng), labelled).draw(PHRASES, ABSENT, rng)
        return Sample(picture, tuple(question(each, things, picture.shape[:2]) for each in asked))


def vocabulary(label: str, rng: np.random.Generator) -> list[str]:
    """Names that a picture of a set may be asked for in vain, for this draw."""
    # VOC labels 20 names; any other may be there unlabelled, so they are seldom asked for.
    return list(names.VOC if label == "voc" and rng.random() < 0.85 else names.NAMES)


def question(asked: Asked, things: list[Thing], size: tuple[int, int]) -> Question:
    """A phrase of the grammar as a question."""
    return Question(asked.phrase, answer_of(asked, things, size), asked.kind)


def answer_of(asked: Asked, things: list[Thing], size: tuple[int, int]) -> Callable[[], np.ndarray]:
    """Makes the union of the masks that a phrase means."""

    def answer() -> np.ndarray:
        mask = np.zeros(size, bool)
        for index in asked.targets:
            mask |= things[index].mask
        return mask

    return answer


def load(place: Path | None, split: str, side: int) -> Photos:
    """Opens a split of the photographs in the folder `place`; `val` is another word for `dev`."""
    if place is None:
        raise ValueError("photographs lie in a folder; name it: photos:DIR")
    found = collection.read(place, "dev" if split == "val" else split)
    return Photos(found, round(COMPOSITES * len(found)) if split == "train" else 0)
