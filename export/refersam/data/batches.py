"""Batches of scenes and phrases, a function of (seed, step, rank): a resumed run sees what it would have."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refersam.data.expressions import ATTRIBUTES, RELATIONS, Expression
from refersam.data.pool import Pool
from refersam.data.things import THINGS

# Class 0 stands for "none" in every label below; a thing, attribute or relation i is class i + 1.
NUM_THINGS = len(THINGS) + 1
NUM_ATTRIBUTES = len(ATTRIBUTES) + 1
NUM_RELATIONS = len(RELATIONS) + 1
EASY_KINDS = ("name", "none", "plural")


@dataclass(frozen=True)
class Batch:
    """B scenes with P phrases each; row b * P + p of the text tensors belongs to scene b."""

    images: Tensor  # uint8 [B, S, S, 3]
    classes: Tensor  # int64 [B, S, S]: class of the thing seen at each pixel
    input_ids: Tensor  # int64 [B*P, L]
    attention_mask: Tensor  # int64 [B*P, L]
    targets: Tensor  # float32 [B*P, S, S], 0 or 1
    thing: Tensor  # int64 [B*P]: what is asked for
    reference: Tensor  # int64 [B*P]: the thing it is related to
    attribute: Tensor  # int64 [B*P]
    relation: Tensor  # int64 [B*P]

    def to(self, device: torch.device) -> "Batch":
        return Batch(**{name: value.to(device, non_blocking=True) for name, value in vars(self).items()})


def class_of(index: int | None) -> int:
    return 0 if index is None else index + 1


def choose(
    expressions: list[Expression], count: int, easy: bool, rng: np.random.Generator
) -> list[Expression]:
    """`count` different expressions, easy kinds first when `easy`; repeats only if a scene has too few."""
    order = rng.permutation(len(expressions))
    if easy:
        order = sorted(order, key=lambda i: expressions[i].kind not in EASY_KINDS)
    return [expressions[order[i % len(order)]] for i in range(count)]


class Batches:
    """Draws batches from a pool. `encode` is the tokenizer: texts -> ids and mask, int64 [N, L]."""

    def __init__(
        self,
        pool: Pool,
        encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
        scenes: int,
        phrases: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.pool, self.encode = pool, encode
        self.scenes, self.phrases = scenes, phrases
        self.seed, self.rank, self.world = seed, rank, world

    def indices(self, step: int) -> np.ndarray:
        """Scenes of a step: every epoch is one permutation of the pool, split between the ranks."""
        first = (step * self.world + self.rank) * self.scenes
        positions = np.arange(first, first + self.scenes)
        epochs = positions // len(self.pool)
        orders = {
            e: np.random.default_rng([self.seed, 21, int(e)]).permutation(len(self.pool)) for e in set(epochs)
        }
        return np.array([orders[e][p % len(self.pool)] for e, p in zip(epochs, positions, strict=True)])

    def batch(self, step: int, easy: bool) -> Batch:
        rng = np.random.default_rng([self.seed, 22, step, self.rank])
        rows = self.indices(step)
        images, labels = self.pool.pictures(rows)
        lookup = np.concatenate([np.zeros((len(rows), 1), np.int64), self.pool.things[rows] + 1], axis=1)
        chosen = [choose(self.pool.expressions[i], self.phrases, easy, rng) for i in rows]
        flat = [expression for group in chosen for expression in group]
        masks = [
            np.isin(labels[b], [t + 1 for t in expression.targets])
            for b, group in enumerate(chosen)
            for expression in group
        ]
        input_ids, attention_mask = self.encode([expression.text for expression in flat])
        longest = int(attention_mask.sum(1).max())

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.int64)

        return Batch(
            images=torch.from_numpy(images),
            classes=torch.from_numpy(
                np.take_along_axis(lookup, labels.reshape(len(rows), -1).astype(np.int64), 1)
            ).reshape(labels.shape),
            input_ids=torch.from_numpy(input_ids[:, :longest]),
            attention_mask=torch.from_numpy(attention_mask[:, :longest]),
            targets=torch.from_numpy(np.stack(masks)).float(),
            thing=column([class_of(e.thing) for e in flat]),
            reference=column([class_of(e.reference) for e in flat]),
            attribute=column(
                [class_of(ATTRIBUTES.index(e.attribute) if e.attribute else None) for e in flat]
            ),
            relation=column([class_of(RELATIONS.index(e.relation) if e.relation else None) for e in flat]),
        )
