"""Scores of a photo variant by set and kind of phrase, from cached features or any predictor of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from refersam.data.photos import Photos
from refersam.data.sample import Question

Answer = Callable[[int, np.ndarray, list[str]], np.ndarray]
"""(sample, picture, phrases) -> masks of these phrases, bool [P, H, W]"""


@dataclass
class PhotoTally:
    """IoUs of phrases that mean something, and whether phrases were answered by an empty mask."""

    ious: list[float] = field(default_factory=list)
    answered: list[bool] = field(default_factory=list)
    left_empty: list[bool] = field(default_factory=list)

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        if not truth.any():
            self.left_empty.append(not predicted.any())
            return
        self.ious.append(float((predicted & truth).sum() / (predicted | truth).sum()))
        self.answered.append(bool(predicted.any()))


class PhotoBoard:
    """Tallies by (set, kind); `all` sums up a set."""

    def __init__(self) -> None:
        self.tallies: dict[tuple[str, str], PhotoTally] = {}

    def add(self, label: str, question: Question, predicted: np.ndarray) -> None:
        truth = question.answer()
        for kind in ("all", question.kind):
            self.tallies.setdefault((label, kind), PhotoTally()).add(predicted, truth)

    def table(self) -> str:
        """Markdown, in percent; `answered` is of phrases that mean something, `empty` of the others."""
        lines = [
            "| set | kind | phrases | mIoU | P@0.5 | answered | empty |",
            "|---|---|---|---|---|---|---|",
        ]
        for (label, kind), tally in sorted(self.tallies.items()):
            cells = [_percent(np.array(tally.ious)), _percent(np.array(tally.ious) >= 0.5)]
            cells += [_percent(np.array(tally.answered)), _percent(np.array(tally.left_empty))]
            count = len(tally.ious) + len(tally.left_empty)
            lines.append(f"| {label} | {kind} | {count} | {' | '.join(cells)} |")
        return "\n".join(lines)


def _percent(values: np.ndarray) -> str:
    return f"{100 * values.mean():.1f}" if len(values) else "–"


def score(answer: Answer, photos: Photos, samples: Sequence[int]) -> PhotoBoard:
    """Asks the questions of `samples` and compares masks at the pictures' own size."""
    board = PhotoBoard()
    for index in samples:
        sample = photos[index]
        masks = answer(index, sample.picture, [question.phrase for question in sample.questions])
        for question, mask in zip(sample.questions, masks, strict=True):
            board.add(photos.photographs[index].set, question, mask)
    return board
