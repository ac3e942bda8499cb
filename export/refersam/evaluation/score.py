"""Asks a model the questions of a data set and counts its answers at the pictures' own size."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from refersam import tokenizer
from refersam.data.sample import Dataset, Question, Sample
from refersam.data.transforms import square, upsample
from refersam.evaluation.metrics import Scoreboard
from refersam.evaluation.predictors import Inputs, Predictor

BATCH = 8


def score(predict: Predictor, inputs: Inputs, dataset: Dataset, count: int) -> Scoreboard:
    """Asks all questions of the first `count` samples; a pixel is foreground where its logit is >= 0."""
    board = Scoreboard()
    words = tokenizer.load(inputs.tokenizer)
    encode = functools.partial(words.encode, max_tokens=inputs.max_tokens)
    for asked in _batches(dataset, count):
        images = np.stack([square(sample.picture, inputs.image_size, inputs.resize) for sample, _ in asked])
        logits = predict(images, *encode([question.phrase for _, question in asked]))
        for (sample, question), row in zip(asked, logits, strict=True):
            mask = upsample(row, *sample.picture.shape[:2], inputs.resize) >= 0
            board.add(question.kind, mask, question.answer())
    return board


def _batches(dataset: Dataset, count: int) -> Iterator[list[tuple[Sample, Question]]]:
    waiting: list[tuple[Sample, Question]] = []
    for index in range(min(count, len(dataset))):
        sample = dataset[index]
        for question in sample.questions:
            waiting.append((sample, question))
            if len(waiting) == BATCH:
                yield waiting
                waiting = []
    if waiting:
        yield waiting
