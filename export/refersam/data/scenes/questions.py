"""Scenes as samples: their expressions as questions, with the labels that drawn scenes have for nothing.

Class 0 stands for "none" in every label; a thing, attribute or relation i is class i + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from refersam.data.sample import Question, Sample
from refersam.data.scenes.drawing import SPLITS, Scene, make_scene
from refersam.data.scenes.expressions import (
    ATTRIBUTES,
    RELATIONS,
    Expression,
    make_expressions,
    target_mask,
)
from refersam.data.scenes.things import THINGS

MIN_SIDE, MAX_SIDE = 256, 384
"""Canvas sides in pixels. Canvases become squares, so the model meets other aspect ratios than 1."""

EASY_KINDS = ("name", "none", "plural")

PHRASES = 4
"""Questions about each scene that is drawn anew."""

PICTURE_LABEL = "classes"
"""Name of the label map of a picture: the thing that is seen at each pixel."""

CLASSES = {
    PICTURE_LABEL: len(THINGS) + 1,
    "thing": len(THINGS) + 1,
    "reference": len(THINGS) + 1,
    "attribute": len(ATTRIBUTES) + 1,
    "relation": len(RELATIONS) + 1,
}
"""Number of classes of each label. A `thing` is what is asked for, a `reference` what it is related to."""


def draw(split: str, index: int) -> Scene:
    """Scene `index` of a split. The sides of its canvas are drawn from the scene's own seed."""
    seed = SPLITS[split][index]
    width, height = np.random.default_rng([seed, 11]).integers(MIN_SIDE, MAX_SIDE + 1, 2)
    return make_scene(seed, int(width), int(height))


def phrases(scene: Scene, count: int) -> list[Expression]:
    """`count` expressions of a scene, a function of its seed alone; a larger count only appends."""
    return make_expressions(scene, np.random.default_rng([scene.seed, 12]), count)


def label_map(scene: Scene) -> np.ndarray:
    """uint8 [H, W]: 0 is background, i + 1 is object i."""
    labels = np.zeros(scene.image.shape[:2], np.uint8)
    for i, thing in enumerate(scene.objects):
        labels[thing.mask] = i + 1
    return labels


def classes_at(labels: np.ndarray, things: Sequence[int]) -> np.ndarray:
    """int64 [H, W], the class of the thing at each pixel, from a `label_map` and the thing of each object."""
    return np.array([0, *(thing + 1 for thing in things)])[labels]


def question(expression: Expression, answer: Callable[[], np.ndarray]) -> Question:
    """An expression and its mask as a question."""
    attribute, relation = expression.attribute, expression.relation
    return Question(
        phrase=expression.text,
        answer=answer,
        kind=expression.kind,
        easy=expression.kind in EASY_KINDS,
        labels={
            "thing": class_of(expression.thing),
            "reference": class_of(expression.reference),
            "attribute": class_of(ATTRIBUTES.index(attribute) if attribute else None),
            "relation": class_of(RELATIONS.index(relation) if relation else None),
        },
    )


def class_of(index: int | None) -> int:
    return 0 if index is None else index + 1


class Drawn:
    """The scenes of a split, each drawn when it is asked for, with PHRASES questions."""

    def __init__(self, split: str) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(SPLITS[self.split])

    def __getitem__(self, index: int) -> Sample:
        scene = draw(self.split, index)
        return Sample(
            scene.image,
            tuple(
                question(expression, lambda expression=expression: target_mask(scene, expression))
                for expression in phrases(scene, PHRASES)
            ),
            {PICTURE_LABEL: classes_at(label_map(scene), [thing.thing for thing in scene.objects])},
        )
