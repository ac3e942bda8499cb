"""Phrases about the things of a photograph, and which of the things they mean.

Everything is decided from the masks alone, at whatever size they are given, so that a training step may flip
and zoom a picture first and ask afterwards. A phrase is made only where the right answer is plain: a gap
between two places, a clear difference of size, a name that no doubtful thing has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from refersam.data.photos import names
from refersam.data.photos.collection import Thing

LEAST = 0.003
"""Share of the picture under which a thing is not asked about; a name with such a thing is left alone."""
GAP = 0.12
"""Least distance between two centres, as a share of the longer side, that "left" or "above" may rest on."""
SIZE_RATIO = 1.5
"""Least ratio of two areas that "bigger" may rest on."""

WEIGHTS = {
    "name": 1.0,
    "synonym": 0.5,
    "hypernym": 0.5,
    "place": 2.0,
    "size": 1.0,
    "relation": 1.2,
    "plural": 1.0,
    "count": 0.5,
    "colour": 1.0,
    "ordinal": 0.8,
    "negation": 0.4,
}
KINDS = (*WEIGHTS, "none")
"""Kinds of phrase, with their weights in a draw; `none` is what a picture does not hold."""

ONE = ("the {}", "the {}", "the {}", "{}", "a {}", "find the {}", "the {} in the picture", "that {}")
SIDES = {
    "left": (
        "the {} on the left",
        "the left {}",
        "leftmost {}",
        "{} on the left side",
        "the {} to the left",
        "left {}",
    ),
    "right": (
        "the {} on the right",
        "the right {}",
        "rightmost {}",
        "{} on the right side",
        "the {} to the right",
        "right {}",
    ),
    "top": ("the top {}", "the upper {}", "the {} at the top", "the highest {}"),
    "bottom": ("the bottom {}", "the lower {}", "the {} at the bottom", "the lowest {}"),
    "middle": ("the {} in the middle", "the middle {}", "the center {}", "the {} between the others"),
}
BIGGEST = ("the biggest {}", "the largest {}", "biggest {}", "the big {}")
SMALLEST = ("the smallest {}", "the littlest {}", "smallest {}", "the small {}")
BIGGER = ("the bigger {}", "the larger {}", "the larger of the two {s}", "the bigger of the {s}")
SMALLER = ("the smaller {}", "the little {}", "the smaller of the two {s}")
ALL = ("all the {s}", "the {s}", "all {s}", "every {}", "{s}")
BOTH = ("both {s}", "both the {s}", "the two {s}")
RELATIONS = {
    "left": ("the {} left of the {o}", "the {} to the left of the {o}"),
    "right": ("the {} right of the {o}", "the {} to the right of the {o}"),
    "above": ("the {} above the {o}", "the {} over the {o}"),
    "below": ("the {} below the {o}", "the {} under the {o}"),
    "near": ("the {} next to the {o}", "the {} beside the {o}", "the {} near the {o}", "the {} by the {o}"),
}


@dataclass(frozen=True)
class Asked:
    """A phrase. `targets` are indices of things, none when the phrase means nothing in the picture; `name` is
    the name of what is asked for, `reference` of what it is related to, "" for neither.
    """

    kind: str
    phrase: str
    targets: tuple[int, ...]
    name: str = ""
    reference: str = ""


@dataclass(frozen=True)
class Seen:
    """A thing as far as phrases go, in shares of the longer side of the picture."""

    index: int
    x: float
    y: float
    area: float
    left: float
    top: float
    right: float
    bottom: float


class Speaker:
    """Phrases about one picture. `vocabulary` are the names that may be asked for in vain."""

    def __init__(
        self, things: Sequence[Thing], vocabulary: Sequence[str], labelled: frozenset[str] = frozenset()
    ):
        self.things = things
        self.present = {thing.name for thing in things} | labelled
        self.present |= {names.SAME[name] for name in self.present & names.SAME.keys()}
        self.vocabulary = [name for name in vocabulary if name not in self.present]
        self.sure: dict[str, list[Seen]] = {}
        self.all_of: dict[str, list[int]] = {}
        doubtful = set()
        for index, thing in enumerate(things):
            seen = see(index, thing.mask)
            self.all_of.setdefault(thing.name, []).append(index)
            if seen is None or seen.area < LEAST or not thing.single:
                doubtful.add(thing.name)
            else:
                self.sure.setdefault(thing.name, []).append(seen)
        # What `all` means is known where every thing is large enough, several in one mask or not.
        small = {thing.name for thing in things if thing.mask.mean() < LEAST}
        self.all_of = {name: found for name, found in self.all_of.items() if name not in small}
        self.sure = {name: found for name, found in self.sure.items() if name not in doubtful}

    def draw(
        self, count: int, absent: int, rng: np.random.Generator, weights: Mapping[str, float] = WEIGHTS
    ) -> list[Asked]:
        """`count` phrases by the weights of their kinds; at least `absent` of them are of the kind `none`."""
        offers = list(self.offers(rng))
        if not self.vocabulary:
            absent = 0
        keep = min(len(offers), max(0, count - absent))
        chosen: list[Asked] = []
        if keep:
            # A kind weighs the same however many phrases of it a picture offers.
            kinds = [offer.kind for offer in offers]
            shares = np.array([weights[kind] / kinds.count(kind) ** 0.5 for kind in kinds])
            order = rng.choice(len(offers), keep, replace=False, p=shares / shares.sum())
            chosen = [offers[i] for i in order]
        while self.vocabulary and len(chosen) < count:
            chosen.append(self.absent(rng))
        return chosen

    def offers(self, rng: np.random.Generator) -> Iterator[Asked]:
        """Every kind of phrase that the picture allows, worded at random."""
        for name, found in self.sure.items():
            if len(found) == 1:
                yield from self._one(name, found[0], rng)
            else:
                yield from self._several(name, found, rng)
            yield from self._relations(name, found, rng)
            yield from self._colours(name, found, rng)
        for name, indices in self.all_of.items():
            if len(indices) > 1 or name not in self.sure:
                yield Asked("plural", self._word(name, pick(rng, ALL), rng), tuple(indices), name)
        yield from self._groups(rng)

    def absent(self, rng: np.random.Generator) -> Asked:
        """A phrase about a name of the vocabulary that is not there, in two of three of a kind that is."""
        groups = {names.GROUP_OF[name] for name in self.present if name in names.GROUP_OF}
        near = [name for name in self.vocabulary if names.GROUP_OF.get(name) in groups]
        name = pick(rng, near if near and rng.random() < 0.65 else self.vocabulary)
        forms = [*ONE, *ONE, *SIDES["left"][:2], *SIDES["right"][:2], BIGGEST[0], *ALL[:3]]
        form, reference = pick(rng, forms), ""
        if rng.random() < 0.15 and self.sure:
            reference = pick(rng, list(self.sure))
            form = pick(rng, RELATIONS[pick(rng, list(RELATIONS))])
        return Asked("none", self._word(name, form, rng, reference), (), name, reference)

    def _one(self, name: str, seen: Seen, rng: np.random.Generator) -> Iterator[Asked]:
        target = (seen.index,)
        yield Asked("name", fill(pick(rng, ONE), name), target, name)
        if name in names.SYNONYMS:
            yield Asked("synonym", fill(pick(rng, ONE), pick(rng, names.SYNONYMS[name])), target, name)
        # People say a place also of the only one; the phrase must then be true of it.
        columns = self._columns()
        for side, true in (("left", seen.x < 0.35 * columns), ("right", seen.x > 0.65 * columns)):
            if true and rng.random() < 0.3:
                yield Asked("name", self._word(name, pick(rng, SIDES[side][:4]), rng), target, name)
        if rng.random() < 0.2:
            yield Asked("plural", self._word(name, pick(rng, ALL[:3]), rng), target, name)

    def _several(self, name: str, found: list[Seen], rng: np.random.Generator) -> Iterator[Asked]:
        def said(kind: str, forms: Sequence[str], targets: Sequence[Seen]) -> Asked:
            word = self._word(name, pick(rng, forms), rng)
            return Asked(kind, word, tuple(seen.index for seen in targets), name)

        by_x, by_y = sorted(found, key=lambda s: s.x), sorted(found, key=lambda s: s.y)
        by_area = sorted(found, key=lambda s: s.area)
        if by_x[1].x - by_x[0].x > GAP:
            yield said("place", SIDES["left"], by_x[:1])
            yield said(
                "negation",
                ("the {s} that are not on the left",)
                if len(found) > 2
                else ("the {} that is not on the left", "the {} not on the left"),
                by_x[1:],
            )
        if by_x[-1].x - by_x[-2].x > GAP:
            yield said("place", SIDES["right"], by_x[-1:])
            if len(found) > 2:
                yield said("negation", ("all the {s} except the one on the right",), by_x[:-1])
        if by_y[1].y - by_y[0].y > GAP:
            yield said("place", SIDES["top"], by_y[:1])
        if by_y[-1].y - by_y[-2].y > GAP:
            yield said("place", SIDES["bottom"], by_y[-1:])
        if by_area[-1].area > SIZE_RATIO * by_area[-2].area:
            yield said("size", BIGGEST if len(found) > 2 or rng.random() < 0.5 else BIGGER, by_area[-1:])
        if by_area[1].area > SIZE_RATIO * by_area[0].area:
            yield said("size", SMALLEST if len(found) > 2 or rng.random() < 0.5 else SMALLER, by_area[:1])
        if len(found) == 2:
            yield said("plural", BOTH, found)
        if len(found) < len(names.NUMBERS):
            number = names.NUMBERS[len(found)]
            yield said("count", (f"the {number} {{s}}", f"{number} {{s}}"), found)
        gaps = [b.x - a.x for a, b in pairwise(by_x)]
        if len(found) == 3 and min(gaps) > GAP:
            yield said("place", SIDES["middle"], by_x[1:2])
        if 3 <= len(found) <= len(names.ORDINALS) and min(gaps) > 0.6 * GAP:
            which = int(rng.integers(len(found)))
            place = names.ORDINALS[which]
            if rng.random() < 0.5:
                yield said(
                    "ordinal",
                    (f"the {place} {{}} from the left", f"{place} {{}} from left"),
                    by_x[which : which + 1],
                )
            else:
                at = len(found) - 1 - which
                yield said("ordinal", (f"the {place} {{}} from the right",), by_x[at : at + 1])

    def _relations(self, name: str, found: list[Seen], rng: np.random.Generator) -> Iterator[Asked]:
        for other, references in self.sure.items():
            if other == name or len(references) != 1 or rng.random() < 0.4:
                continue
            reference = references[0]
            fits: dict[str, list[Seen]] = {
                "left": [s for s in found if s.x < reference.x - GAP and s.right < reference.right],
                "right": [s for s in found if s.x > reference.x + GAP and s.left > reference.left],
                "above": [s for s in found if s.y < reference.y - GAP and s.bottom < reference.y],
                "below": [s for s in found if s.y > reference.y + GAP and s.top > reference.y],
            }
            loose = {
                "left": [s for s in found if s.x < reference.x],
                "right": [s for s in found if s.x > reference.x],
                "above": [s for s in found if s.y < reference.y],
                "below": [s for s in found if s.y > reference.y],
            }
            plain = [relation for relation, fit in fits.items() if len(fit) == 1 == len(loose[relation])]
            if len(found) > 1:
                near = sorted((distance(s, reference), s.index) for s in found)
                if near[0][0] < 0.06 and near[1][0] > near[0][0] + GAP:
                    fits["near"] = [s for s in found if s.index == near[0][1]]
                    plain.append("near")
            elif distance(found[0], reference) < 0.1:
                fits["near"] = found
                plain.append("near")
            if plain:
                relation = pick(rng, plain)
                phrase = self._word(name, pick(rng, RELATIONS[relation]), rng, other)
                yield Asked("relation", phrase, (fits[relation][0].index,), name, other)

    def _colours(self, name: str, found: list[Seen], rng: np.random.Generator) -> Iterator[Asked]:
        colours = [self.things[seen.index].colour for seen in found]
        for colour in sorted({colour for colour in colours if colour}):
            targets = [seen.index for seen, own in zip(found, colours, strict=True) if own == colour]
            # Of several, the others must have a plain colour too: a doubtful one might be meant.
            if len(targets) == 1 and all(colours):
                phrase = fill(pick(rng, (f"the {colour} {{}}", f"{colour} {{}}")), name)
                yield Asked("colour", phrase, tuple(targets), name)

    def _groups(self, rng: np.random.Generator) -> Iterator[Asked]:
        for group, (one, several) in names.HYPERNYMS.items():
            own = [name for name in names.GROUPS[group] if name in self.present]
            if not own or any(name not in self.sure for name in own):
                continue
            found = [seen for name in own for seen in self.sure[name]]
            name = own[0] if len(own) == 1 else ""
            if len(found) == 1:
                yield Asked("hypernym", fill(pick(rng, ONE[:5]), one), (found[0].index,), name)
            else:
                phrase = pick(rng, (f"all the {several}", f"the {several}", f"all {several}"))
                yield Asked("hypernym", phrase, tuple(seen.index for seen in found), name)
            if len(own) == 2:
                for index, kept in enumerate(own):
                    shown = own[1 - index]
                    if len(self.sure[kept]) == 1 and len(self.sure[shown]) == 1:
                        phrase = f"the {one} that is not a {shown}"
                        yield Asked("negation", phrase, (self.sure[kept][0].index,), kept)

    def _columns(self) -> float:
        rows, columns = self.things[0].mask.shape
        return columns / max(rows, columns)

    def _word(self, name: str, form: str, rng: np.random.Generator, reference: str = "") -> str:
        own = pick(rng, names.SYNONYMS[name]) if name in names.SYNONYMS and rng.random() < 0.15 else name
        return fill(form, own, reference)


def fill(form: str, word: str, other: str = "") -> str:
    return form.replace("{s}", names.plural(word)).replace("{o}", other).replace("{}", word)


def pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def see(index: int, mask: np.ndarray) -> Seen | None:
    """None for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    longest = max(mask.shape)
    weight_x, weight_y = mask.sum(0), mask.sum(1)
    area = weight_x.sum()
    return Seen(
        index,
        x=float((weight_x * (np.arange(mask.shape[1]) + 0.5)).sum() / area / longest),
        y=float((weight_y * (np.arange(mask.shape[0]) + 0.5)).sum() / area / longest),
        area=float(area / mask.size),
        left=columns[0] / longest,
        top=rows[0] / longest,
        right=(columns[-1] + 1) / longest,
        bottom=(rows[-1] + 1) / longest,
    )


def distance(one: Seen, other: Seen) -> float:
    """Between two boxes; 0 when they touch or overlap."""
    across = max(one.left - other.right, other.left - one.right, 0.0)
    down = max(one.top - other.bottom, other.top - one.bottom, 0.0)
    return float(np.hypot(across, down))
