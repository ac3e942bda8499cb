"""Phrases about scenes, by grammar, each with exactly the objects that it means.

A phrase is made only where the scene leaves no doubt: places and relations must hold by MARGIN, sizes by
SIZE_RATIO, and they must fail for every other object of the same name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from refersam.data.scenes.drawing import Scene
from refersam.data.scenes.things import THINGS

KINDS = ("name", "place", "size", "relation", "plural", "none")
ATTRIBUTES = ("left", "right", "top", "bottom", "middle", "smallest", "biggest")
RELATIONS = ("left of", "right of", "above", "below", "next to")

MARGIN = 0.08
"""Least distance of two centres in different places, as a fraction of the picture's shorter side."""

SIZE_RATIO = 1.35
"""How much larger in area the bigger of two objects must be, as drawn and as visible."""

NEAR = 0.45
"""Objects are next to each other when their centres are closer than this fraction of the shorter side."""

NEXT_RATIO = 1.4
"""How much farther away every other object of the same name must be for "next to" to be clear."""

CLEAR_SIDE = 0.4
"""A thing that occurs once is on the left when its centre lies in this fraction of the width, and so on."""

MIDDLE = 0.15
"""A thing is in the middle when its centre is this near to the picture's, as a part of the shorter side."""

KIND_MIX = {"name": 0.22, "place": 0.22, "size": 0.12, "relation": 0.20, "plural": 0.14, "none": 0.10}
"""Share of each kind over many scenes."""

_OFFERS = {"name": 0.135, "place": 0.175, "size": 0.23, "relation": 0.20, "plural": 0.20, "none": 0.053}
"""Weight of each kind in a scene that supports it, set so that KIND_MIX comes out: nearly half of the scenes
repeat nothing and so have no sizes and plurals."""

_NEEDED_WEIGHT = 8.0
"""How much likelier a place or relation is when it decides between objects of the same name."""


@dataclass(frozen=True)
class Expression:
    """A phrase and what it means.

    Attributes:
        text: the phrase.
        kind: one of KINDS.
        targets: indices into the scene's objects; empty for a phrase that means nothing here.
        thing: index into THINGS of what is asked for.
        attribute: one of ATTRIBUTES, when the phrase names one.
        relation: one of RELATIONS, when the phrase names one.
        reference: index into THINGS of the other side of the relation.
    """

    text: str
    kind: str
    targets: tuple[int, ...]
    thing: int
    attribute: str | None = None
    relation: str | None = None
    reference: int | None = None


_WORDINGS = {
    "name": ("the {n}", "{n}", "the {n}", "{n}", "{a} {n}"),
    "plural": ("all the {p}", "all {p}", "every {n}", "each {n}", "all of the {p}"),
    "left": (
        "the left {n}", "left {n}", "the {n} on the left", "{n} on the left", "the leftmost {n}",
        "leftmost {n}", "the {n} on the left side", "the {n} farthest to the left", "{n} at left", "{n} left",
        "the left-hand {n}",
    ),
    "right": (
        "the right {n}", "right {n}", "the {n} on the right", "{n} on the right", "the rightmost {n}",
        "rightmost {n}", "the {n} on the right side", "the {n} farthest to the right", "{n} at right",
        "{n} right", "the right-hand {n}",
    ),
    "top": (
        "the top {n}", "top {n}", "the {n} at the top", "{n} at the top", "the upper {n}", "the topmost {n}",
        "the highest {n}", "the uppermost {n}", "upper {n}", "{n} at top",
    ),
    "bottom": (
        "the bottom {n}", "bottom {n}", "the {n} at the bottom", "{n} at the bottom", "the lower {n}",
        "the lowest {n}", "the bottommost {n}", "lower {n}", "{n} at bottom",
    ),
    "middle": (
        "the middle {n}", "middle {n}", "the {n} in the middle", "{n} in the middle", "the {n} in the center",
        "{n} in the centre", "the central {n}", "center {n}", "the {n} in the centre",
    ),
    "smallest": (
        "the smallest {n}", "smallest {n}", "the tiniest {n}", "the small {n}", "the little {n}", "small {n}",
    ),
    "biggest": (
        "the biggest {n}", "biggest {n}", "the largest {n}", "largest {n}", "the big {n}", "the large {n}",
    ),
    "left of": (
        "the {n} left of the {r}", "{n} left of the {r}", "{n} left of {r}",
        "the {n} to the left of the {r}", "{n} to the left of the {r}", "the {n} on the left of the {r}",
        "the {n} that is left of the {r}",
    ),
    "right of": (
        "the {n} right of the {r}", "{n} right of the {r}", "{n} right of {r}",
        "the {n} to the right of the {r}", "{n} to the right of the {r}", "the {n} on the right of the {r}",
        "the {n} that is right of the {r}",
    ),
    "above": (
        "the {n} above the {r}", "{n} above the {r}", "{n} above {r}", "the {n} over the {r}",
        "the {n} that is above the {r}",
    ),
    "below": (
        "the {n} below the {r}", "{n} below the {r}", "{n} below {r}", "the {n} under the {r}",
        "{n} beneath the {r}", "the {n} underneath the {r}",
    ),
    "next to": (
        "the {n} next to the {r}", "{n} next to the {r}", "{n} next to {r}", "the {n} beside the {r}",
        "the {n} near the {r}", "the {n} closest to the {r}", "{n} nearest to the {r}",
        "the {n} close to the {r}",
    ),
}  # fmt: skip
"""Ways to say a kind, an attribute or a relation.

n stands for a name of the thing, a for its article, p for its plural, r for a name of the reference.
"""

_WORDINGS_OF_TWO = {
    "plural": ("both {p}", "both {p}", "both of the {p}", "the two {p}", "two {p}"),
    "smallest": ("the smaller {n}", "smaller {n}", "the smaller of the two {p}"),
    "biggest": ("the bigger {n}", "bigger {n}", "the larger {n}", "larger {n}", "the bigger of the two {p}"),
}

_WORDINGS_OF_THREE = {"plural": ("the three {p}", "all three {p}", "three {p}")}

_BARE_PLURALS = ("the {p}", "{p}")
"""Only for names whose plural differs: "the sheep" may mean one."""

_FRAMES = ("please find {e}", "show me {e}", "select {e}", "find {e}", "can you segment {e}")
_FRAME_PROBABILITY = 0.025
_CAPITAL_PROBABILITY = 0.06
_USUAL_NAME_PROBABILITY = 0.6


class _Meaning(NamedTuple):
    """An Expression before it is put into words."""

    kind: str
    targets: tuple[int, ...]
    thing: int
    attribute: str | None = None
    relation: str | None = None
    reference: int | None = None


def target_mask(scene: Scene, expression: Expression) -> np.ndarray:
    """Returns the pixels that the expression means, bool [H, W]; all False when it means nothing."""
    mask = np.zeros(scene.image.shape[:2], bool)
    for target in expression.targets:
        mask |= scene.objects[target].mask
    return mask


def make_expressions(scene: Scene, rng: np.random.Generator, count: int) -> list[Expression]:
    """Draws `count` phrases with different texts about a scene, of the kinds that it supports."""
    meanings = list(_meanings(scene))
    amounts = Counter(o.thing for o in scene.objects)
    weights = np.array([_NEEDED_WEIGHT if amounts[m.thing] > 1 else 1.0 for m in meanings])
    by_kind = {kind: [i for i, m in enumerate(meanings) if m.kind == kind] for kind in KINDS}
    kinds = [kind for kind in KINDS if by_kind[kind] or kind == "none"]
    offers = np.array([_offer(kind, weights[by_kind[kind]]) for kind in kinds])
    made: dict[str, Expression] = {}
    while len(made) < count:
        kind = kinds[_draw(rng, offers)]
        if kind == "none":
            meaning = _absent(rng, amounts)
        else:
            meaning = meanings[by_kind[kind][_draw(rng, weights[by_kind[kind]])]]
        text = _word(rng, meaning, _templates(rng, meaning, amounts[meaning.thing]))
        made.setdefault(text.lower(), Expression(text, *meaning))
    return list(made.values())


def _offer(kind: str, weights: np.ndarray) -> float:
    """Weight of a kind: places and relations are offered less where nothing hangs on them."""
    if kind in ("place", "relation") and weights.max() < _NEEDED_WEIGHT:
        return _OFFERS[kind] / 2
    return _OFFERS[kind]


def _draw(rng: np.random.Generator, weights: np.ndarray) -> int:
    """Draws an index with probability in proportion to its weight."""
    ends = np.cumsum(weights)
    return int(np.searchsorted(ends, rng.random() * ends[-1], side="right"))


def _meanings(scene: Scene) -> Iterator[_Meaning]:
    """Yields everything that can be said about what is in the scene without a doubt."""
    height, width = scene.image.shape[:2]
    side = min(height, width)
    groups: dict[int, list[int]] = {}
    for index, o in enumerate(scene.objects):
        groups.setdefault(o.thing, []).append(index)
    for thing, group in groups.items():
        if len(group) == 1:
            yield _Meaning("name", tuple(group), thing)
        else:
            yield _Meaning("plural", tuple(group), thing)
            yield from _sizes(scene, thing, group)
        for attribute, target in _places([scene.objects[i].centre for i in group], width, height):
            yield _Meaning("place", (group[target],), thing, attribute=attribute)
        for reference, others in groups.items():
            if reference == thing or len(others) > 1:
                continue
            x, y = scene.objects[others[0]].centre
            centres = [scene.objects[i].centre for i in group]
            offsets = [((cx - x) / side, (cy - y) / side) for cx, cy in centres]
            for relation, target in _relations(offsets):
                yield _Meaning("relation", (group[target],), thing, relation=relation, reference=reference)


def _sizes(scene: Scene, thing: int, group: Sequence[int]) -> Iterator[_Meaning]:
    drawn = [scene.objects[i].size for i in group]
    visible = [int(np.count_nonzero(scene.objects[i].mask)) for i in group]
    order = sorted(range(len(group)), key=drawn.__getitem__)

    def clear(small: int, big: int) -> bool:
        return drawn[big] >= SIZE_RATIO * drawn[small] and visible[big] >= SIZE_RATIO * visible[small]

    biggest, smallest = order[-1], order[0]
    if all(clear(i, biggest) for i in order[:-1]):
        yield _Meaning("size", (group[biggest],), thing, attribute="biggest")
    if all(clear(smallest, i) for i in order[1:]):
        yield _Meaning("size", (group[smallest],), thing, attribute="smallest")


def _places(centres: Sequence[tuple[float, float]], width: int, height: int) -> Iterator[tuple[str, int]]:
    """Yields (place, position in centres) for objects of one name."""
    side = min(width, height)
    for axis, extent, low, high in ((0, width, "left", "right"), (1, height, "top", "bottom")):
        order = sorted(range(len(centres)), key=lambda i: centres[i][axis])
        values = [centres[i][axis] for i in order]
        if len(values) == 1:
            if values[0] <= CLEAR_SIDE * extent:
                yield low, 0
            elif values[0] >= (1 - CLEAR_SIDE) * extent:
                yield high, 0
            continue
        if values[1] - values[0] >= MARGIN * side:
            yield low, order[0]
        if values[-1] - values[-2] >= MARGIN * side:
            yield high, order[-1]
    middle = _middle(centres, width, height)
    if middle is not None:
        yield "middle", middle


def _middle(centres: Sequence[tuple[float, float]], width: int, height: int) -> int | None:
    """Which object is in the middle: nearest to the centre, and of three also between the others."""
    side = min(width, height)
    distances = [math.hypot(x - width / 2, y - height / 2) / side for x, y in centres]
    order = sorted(range(len(centres)), key=distances.__getitem__)
    nearest = order[0]
    if len(order) > 1 and distances[order[1]] - distances[nearest] < 2 * MARGIN:
        return None
    if len(order) < 3:
        return nearest if distances[nearest] <= MIDDLE else None
    for axis in (0, 1):
        gaps = sorted((centres[i][axis] - centres[nearest][axis]) / side for i in order[1:])
        if gaps[0] <= -MARGIN and gaps[-1] >= MARGIN:
            return nearest
    return None


def _relations(offsets: Sequence[tuple[float, float]]) -> Iterator[tuple[str, int]]:
    """Yields (relation, position in offsets) for objects of one name around a reference.

    Args:
        offsets: x, y of each object's centre minus the reference's, in shorter sides.
    """
    for relation, axis, sign in (
        ("left of", 0, -1), ("right of", 0, 1), ("above", 1, -1), ("below", 1, 1),
    ):  # fmt: skip
        along = [sign * offset[axis] for offset in offsets]
        across = [abs(offset[1 - axis]) for offset in offsets]
        on_that_side = [i for i, value in enumerate(along) if value > 0]
        if len(on_that_side) == 1:
            target = on_that_side[0]
            if along[target] >= 2 * MARGIN and across[target] <= along[target]:
                yield relation, target
    distances = [math.hypot(x, y) for x, y in offsets]
    order = sorted(range(len(offsets)), key=distances.__getitem__)
    nearest = distances[order[0]]
    alone = len(order) == 1
    if nearest <= NEAR and (alone or distances[order[1]] >= max(NEXT_RATIO * nearest, nearest + 2 * MARGIN)):
        yield "next to", order[0]


def _absent(rng: np.random.Generator, amounts: Counter[int]) -> _Meaning:
    """Draws a meaning about a thing that is not in the scene: mostly its name, else of another kind."""
    missing = [thing for thing in range(len(THINGS)) if thing not in amounts]
    thing = missing[rng.integers(len(missing))]
    shape = rng.random()
    if shape < 0.17:
        return _Meaning("none", (), thing, attribute=ATTRIBUTES[rng.integers(len(ATTRIBUTES))])
    if shape < 0.30:
        present = sorted(amounts)
        reference = present[rng.integers(len(present))]
        relation = RELATIONS[rng.integers(len(RELATIONS))]
        return _Meaning("none", (), thing, relation=relation, reference=reference)
    return _Meaning("none", (), thing)


def _templates(rng: np.random.Generator, meaning: _Meaning, amount: int) -> tuple[str, ...]:
    """Returns the ways to say a meaning whose thing occurs `amount` times."""
    key = meaning.attribute or meaning.relation or meaning.kind
    if key == "none":
        key, amount = ("plural", 2) if rng.random() < 0.15 else ("name", 0)
    templates = _WORDINGS[key]
    if amount == 2:
        templates += _WORDINGS_OF_TWO.get(key, ())
    elif amount == 3:
        templates += _WORDINGS_OF_THREE.get(key, ())
    return templates + _BARE_PLURALS if meaning.kind == "plural" else templates


def _word(rng: np.random.Generator, meaning: _Meaning, templates: Sequence[str]) -> str:
    """Puts a meaning into words."""
    name, plural = _name(rng, meaning.thing)
    if name == plural:
        templates = [template for template in templates if template not in _BARE_PLURALS]
    reference = "" if meaning.reference is None else _name(rng, meaning.reference)[0]
    article = "an" if name[0] in "aeiou" else "a"
    text = templates[rng.integers(len(templates))].format(n=name, p=plural, r=reference, a=article)
    if rng.random() < _FRAME_PROBABILITY:
        text = _FRAMES[rng.integers(len(_FRAMES))].format(e=text)
    if rng.random() < _CAPITAL_PROBABILITY:
        text = text[0].upper() + text[1:]
    return text


def _name(rng: np.random.Generator, thing: int) -> tuple[str, str]:
    """Draws one of a thing's names, with its plural."""
    names, plurals = THINGS[thing].names, THINGS[thing].plurals
    usual = len(names) == 1 or rng.random() < _USUAL_NAME_PROBABILITY
    which = 0 if usual else rng.integers(1, len(names))
    return names[which], plurals[which]
