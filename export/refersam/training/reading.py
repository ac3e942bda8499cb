"""Teaches a text encoder which names a phrase asks for and mentions, from text alone: no picture is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from refersam.data.photos import grammar
from refersam.model.names import aliases, coco_names, imagenet_names
from refersam.model.photo import PhotoSAM

Encode = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]
"""The tokenizer: texts -> ids and mask, int64 [N, L]."""

BETWEEN = (
    "on the",
    "with the",
    "with a",
    "holding a",
    "riding a",
    "in front of the",
    "behind the",
    "beside the",
    "under the",
    "on top of the",
    "in the",
    "near a",
    "carrying a",
    "touching the",
    "facing the",
)
BEFORE = [
    "black",
    "white",
    "brown",
    "big",
    "small",
    "old",
    "young",
    "tall",
    "red",
    "blue",
    "grey",
    "green",
    "first",
    "second",
    "closest",
]
AFTER = (
    "on the left",
    "on the right",
    "in the middle",
    "at the back",
    "in the foreground",
    "standing",
    "sitting down",
    "closest to us",
    "furthest away",
    "looking at the camera",
)


@dataclass(frozen=True)
class Reading:
    """A phrase; `target` and `reference` are aliases, "" for no reference."""

    phrase: str
    target: str
    reference: str


def readings(count: int, seed: int, more: Sequence[str] = (), share: float = 0.0) -> list[Reading]:
    """Phrases of the grammar's forms and of freer ones, over all aliases.

    A `share` of them asks for one of the words `more` instead.
    """
    rng = np.random.default_rng([seed, 41])
    plain = [*grammar.ONE, *grammar.BIGGEST, *grammar.SMALLEST, *grammar.BIGGER, *grammar.ALL, *grammar.BOTH]
    sides = [form for forms in grammar.SIDES.values() for form in forms]
    related = [form for forms in grammar.RELATIONS.values() for form in forms]
    words = [alias for alias, _ in aliases()]
    # The classes' own names come first; they are half of what people ask for here.
    weights = np.where(np.arange(len(words)) < len(coco_names()), 1 / len(coco_names()), 1 / len(words))
    weights = weights / weights.sum()
    found = []
    for _ in range(count):
        target, other = (words[i] for i in rng.choice(len(words), 2, replace=False, p=weights))
        if share and rng.random() < share:
            target = grammar.pick(rng, more)
        kind, reference = rng.random(), ""
        if kind < 0.3:
            phrase = grammar.fill(grammar.pick(rng, plain), target)
        elif kind < 0.5:
            phrase = grammar.fill(grammar.pick(rng, sides), target)
        elif kind < 0.75:
            phrase, reference = grammar.fill(grammar.pick(rng, related), target, other), other
        else:
            before = f"{grammar.pick(rng, BEFORE)} " if rng.random() < 0.4 else ""
            phrase = f"{'the ' if rng.random() < 0.8 else ''}{before}{target}"
            if rng.random() < 0.6:
                phrase, reference = f"{phrase} {grammar.pick(rng, BETWEEN)} {other}", other
            elif rng.random() < 0.7:
                phrase = f"{phrase} {grammar.pick(rng, AFTER)}"
        found.append(Reading(phrase, target, reference))
    return found


def meanings(found: Sequence[str]) -> Tensor:
    """The classes that names or aliases mean, [N, 80 + 1]; the last is 1 where they mean none, and all are 0
    for "".
    """
    known, words = coco_names(), dict(aliases())
    table = torch.zeros(len(found), len(known) + 1)
    for row, name in enumerate(found):
        if name:
            classes = words[name]
            for each in classes:
                table[row, known.index(each)] = 1
            table[row, -1] = not classes
    return table


@torch.no_grad()
def encoded(model: PhotoSAM, encode: Encode, phrases: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Word features [N, L, width] and bool mask [N, L] of phrases."""
    ids, mask = (torch.from_numpy(array) for array in encode(list(phrases)))
    longest = int(mask.sum(1).max())
    ids, mask = ids[:, :longest], mask[:, :longest] != 0
    parts = [
        model.text_proj(model.text_encoder(ids[at : at + 64], mask[at : at + 64]))
        for at in range(0, len(ids), 64)
    ]
    return torch.cat(parts), mask


def set_names(model: PhotoSAM, encode: Encode) -> None:
    """Sets the vectors of the aliases and of the classifier's names: means of the tokens of "the NAME"."""
    vectors = []
    for known in ([alias for alias, _ in aliases()], imagenet_names()):
        tokens, mask = encoded(model, encode, [f"the {name}" for name in known])
        weights = mask.float()[..., None]
        vectors.append((tokens * weights).sum(1) / weights.sum(1))
    model.name_reader.set_names(*vectors)


def said(model: PhotoSAM, vectors: Tensor) -> Tensor:
    """Probabilities of the classes, and last of none of them, in each role: [N, 2, 80 + 1]."""
    words = model.name_reader.detector_logits(vectors).softmax(-1)
    meaning = model.class_heat.meaning
    nothing = (meaning.sum(1) == 0).to(words.dtype)
    shared = meaning / meaning.sum(1, keepdim=True).clamp(min=1)
    return torch.cat([words @ shared, (words @ nothing)[..., None]], 2)


def reading_loss(model: PhotoSAM, tokens: Tensor, mask: Tensor, target: Tensor, reference: Tensor) -> Tensor:
    """tokens [N, L, width], bool [N, L], what the two roles mean as `meanings` gives it, [N, 81] each."""
    reader = model.name_reader
    vectors = reader.vectors(tokens, mask)
    likely = (said(model, vectors) + 1e-6).log()
    target = target / target.sum(1, keepdim=True)
    known = reference.sum(1) > 0
    loss = -(target * likely[:, 0]).sum(1).mean()
    if known.any():
        wanted = reference[known] / reference[known].sum(1, keepdim=True)
        loss = loss - (wanted * likely[known, 1]).sum(1).mean()
    mentions = reader.mentions(vectors[:, 1])[:, 0]
    return loss + F.binary_cross_entropy_with_logits(mentions, known.float())


def reading_set(
    model: PhotoSAM, encode: Encode, count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `reading_loss` reads after the reader."""
    found = readings(count, seed)
    tokens, mask = encoded(model, encode, [reading.phrase for reading in found])
    roles = (meanings([getattr(reading, role) for reading in found]) for role in ("target", "reference"))
    return (tokens, mask, *roles)


def teach_reader(
    model: PhotoSAM, encode: Encode, count: int = 6000, epochs: int = 12, rate: float = 3e-3, seed: int = 0
) -> dict[str, float]:
    """Trains the name reader on frozen word features; returns shares of phrases read right, on new ones."""
    set_names(model, encode)
    data, new = reading_set(model, encode, count, seed), reading_set(model, encode, 1000, seed + 1)
    reader = model.name_reader
    before = accuracy(model, *new)
    optimizer = torch.optim.AdamW(reader.parameters(), rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(count, generator=generator).split(128):
            loss = reading_loss(model, *(part[rows] for part in data))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {f"{name} before": value for name, value in before.items()} | accuracy(model, *new)


@torch.no_grad()
def accuracy(
    model: PhotoSAM, tokens: Tensor, mask: Tensor, target: Tensor, reference: Tensor
) -> dict[str, float]:
    """Shares of phrases whose target, reference and mention of one are read right."""
    reader = model.name_reader
    vectors = reader.vectors(tokens, mask)
    best = said(model, vectors).argmax(-1, keepdim=True)  # [N, 2, 1]
    known = reference.sum(1) > 0
    mentions = reader.mentions(vectors[:, 1])[:, 0] > 0
    return {
        "target": float(target.gather(1, best[:, 0]).mean()),
        "reference": float(reference[known].gather(1, best[known, 1]).mean()),
        "mentions": float((mentions == known).float().mean()),
    }
