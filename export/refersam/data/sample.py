"""What every data set gives: samples, each a picture with questions about it and their right answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class Question:
    """A phrase about a picture and the mask that it means.

    Attributes:
        phrase: the text, as people would write it.
        answer: makes the right mask, bool [H, W] like the picture; without a true pixel when the phrase means
            nothing there. It is a function because annotations are stored as polygons or run lengths, and a
            mask is needed only for the few phrases that a batch takes.
        kind: the line of a report that the question counts for; "" for none of its own.
        easy: whether training may show the question before others (`Phase.easy`).
        labels: classes of the phrase for the auxiliary terms of training, by name; the same names in all
            questions of a data set.
    """

    phrase: str
    answer: Callable[[], np.ndarray]
    kind: str = ""
    easy: bool = False
    labels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Sample:
    """A picture and questions about it.

    Attributes:
        picture: uint8 [H, W, 3], RGB, of any size.
        questions: at least one.
        labels: maps of classes, integers [H, W], for the auxiliary terms of training, by name; the same names
            in all samples of a data set.
    """

    picture: np.ndarray
    questions: tuple[Question, ...]
    labels: Mapping[str, np.ndarray] = field(default_factory=dict)


class Dataset(Protocol):
    """Samples by index, the same every time: training resumes by the numbers of its samples."""

    def __len__(self) -> int:
        """How many samples it has, at least 1."""

    def __getitem__(self, index: int) -> Sample:
        """Sample `index`, from 0 on."""
