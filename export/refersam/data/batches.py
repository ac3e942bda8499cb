"""Batches of pictures and phrases, each a function of (seed, step, rank): a resumed run goes on exactly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from refersam.data.sample import Dataset, Question, Sample
from refersam.data.transforms import square, square_map


@dataclass(frozen=True)
class Batch:
    """B pictures with P phrases each; row b * P + p of the text tensors belongs to picture b."""

    images: Tensor  # uint8 [B, S, S, 3]
    input_ids: Tensor  # int64 [B*P, L]
    attention_mask: Tensor  # int64 [B*P, L]
    targets: Tensor  # float32 [B*P, S, S], 0 or 1
    labels: Mapping[str, Tensor]  # classes for auxiliary terms: int64 [B, S, S] of pictures, [B*P] of phrases

    def to(self, device: torch.device) -> Batch:
        def moved(value: Tensor) -> Tensor:
            return value.to(device, non_blocking=True)

        tensors = {
            f.name: moved(getattr(self, f.name)) for f in dataclasses.fields(self) if f.name != "labels"
        }
        return Batch(**tensors, labels={name: moved(value) for name, value in self.labels.items()})


def choose(questions: Sequence[Question], count: int, easy: bool, rng: np.random.Generator) -> list[Question]:
    """`count` different questions, easy ones first when `easy`; repeats only if a picture has too few."""
    order = rng.permutation(len(questions))
    if easy:
        order = sorted(order, key=lambda i: not questions[i].easy)
    return [questions[order[i % len(order)]] for i in range(count)]


class Batches:
    """Draws batches from a data set, for squares of `side` pixels made by the rule `resize`.

    `encode` is the tokenizer: texts -> ids and mask, int64 [N, L].
    """

    def __init__(
        self,
        dataset: Dataset,
        encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
        side: int,
        resize: str,
        pictures: int,
        phrases: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset, self.encode = dataset, encode
        self.side, self.resize = side, resize
        self.pictures, self.phrases = pictures, phrases
        self.seed, self.rank, self.world = seed, rank, world

    def indices(self, step: int) -> np.ndarray:
        """Samples of a step: every epoch is one permutation of the data set, split between the ranks."""
        first = (step * self.world + self.rank) * self.pictures
        positions = np.arange(first, first + self.pictures)
        epochs, count = positions // len(self.dataset), len(self.dataset)
        orders = {e: np.random.default_rng([self.seed, 21, int(e)]).permutation(count) for e in set(epochs)}
        return np.array([orders[e][p % count] for e, p in zip(epochs, positions, strict=True)])

    def masks(self, samples: Sequence[Sample], chosen: Sequence[Question]) -> Iterator[np.ndarray]:
        """The answers to the questions chosen, P for each sample."""
        for row, question in enumerate(chosen):
            mask, size = question.answer(), samples[row // self.phrases].picture.shape[:2]
            if mask.shape != size:
                raise ValueError(f"{question.phrase!r} has a mask of {mask.shape} pixels, its picture {size}")
            yield mask

    def batch(self, step: int, easy: bool) -> Batch:
        rng = np.random.default_rng([self.seed, 22, step, self.rank])
        samples = [self.dataset[int(index)] for index in self.indices(step)]
        chosen = [q for sample in samples for q in choose(sample.questions, self.phrases, easy, rng)]
        input_ids, attention_mask = self.encode([question.phrase for question in chosen])
        longest = int(attention_mask.sum(1).max())

        def fitted(values: np.ndarray) -> np.ndarray:
            return square_map(values, self.side, self.resize)

        def labels(of: Sequence[Mapping[str, np.ndarray | int]], change: Callable) -> dict[str, Tensor]:
            return {
                name: torch.from_numpy(np.stack([change(each[name]) for each in of]).astype(np.int64))
                for name in of[0]
            }

        pictures = [square(sample.picture, self.side, self.resize) for sample in samples]
        masks = [fitted(mask) for mask in self.masks(samples, chosen)]
        return Batch(
            images=torch.from_numpy(np.stack(pictures)),
            input_ids=torch.from_numpy(input_ids[:, :longest]),
            attention_mask=torch.from_numpy(attention_mask[:, :longest]),
            targets=torch.from_numpy(np.stack(masks)).float(),
            labels=labels([sample.labels for sample in samples], fitted)
            | labels([question.labels for question in chosen], np.int64),
        )
