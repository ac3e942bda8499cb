"""Teaches a small text encoder what a larger one says of phrases: words, names, and the names' roles.

The two may cut phrases into different tokens, so they are compared word by word: a word's features are the
mean of its tokens'. The student's features then mean the same to the interactor, which both share.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from refersam import tokenizer
from refersam.model.names import imagenet_names
from refersam.model.photo import PhotoSAM
from refersam.training.reading import Reading, readings, said
from refersam.training.resumable import ResumableRun

STUDENT = "student.pt"
NAMES_WEIGHT = 0.5
MORE = 0.25
"""Share of the phrases that ask for a class of ImageNet, many of which are no alias."""


class WordTokens:
    """A tokenizer that also says which word each token belongs to."""

    def __init__(self, name: str, max_tokens: int) -> None:
        self.backend: Tokenizer = tokenizer.load(name).backend
        self.encode_plain = tokenizer.load(name).encode
        self.max_tokens = max_tokens

    def __call__(self, phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Ids [N, L], bool mask [N, L], shares [N, W, L]: row w of a phrase averages the tokens of word w.

        Words are what spaces separate. The last row averages all tokens. W is the most words of a phrase, and
        rows of words that a phrase lacks are 0.
        """
        ids, mask = self.encode_plain(list(phrases), self.max_tokens)
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        most = max(len(phrase.split()) for phrase in phrases)
        shares = np.zeros((len(phrases), most + 1, longest), np.float32)
        for row, phrase in enumerate(phrases):
            for token, (start, end) in enumerate(self.backend.encode(phrase).offsets[:longest]):
                if end > start and mask[row, token]:
                    shares[row, len(phrase[:start].split(" ")) - 1, token] = 1
            shares[row, -1, : int(mask[row].sum())] = 1
        shares /= np.maximum(shares.sum(2, keepdims=True), 1)
        return torch.from_numpy(ids), torch.from_numpy(mask != 0), torch.from_numpy(shares)


class StudentRun(ResumableRun):
    """The teaching of a student, saved in the folder `out`."""

    label, warmup, weight_decay = "student", 50, 0.01

    def __init__(
        self,
        teacher: PhotoSAM,
        teacher_tokens: WordTokens,
        student: PhotoSAM,
        student_tokens: WordTokens,
        out: Path,
        steps: int,
        rate: float = 1e-3,
        phrases: int = 96,
        seed: int = 0,
        save_seconds: float = 120.0,
    ) -> None:
        self.teacher, self.teacher_tokens = teacher.eval(), teacher_tokens
        self.student, self.student_tokens = student, student_tokens
        self.phrases, self.seed = phrases, seed
        parts = nn.ModuleDict(
            {name: getattr(student, name) for name in ("text_encoder", "text_proj", "name_reader")}
        )
        super().__init__(student, parts, out / STUDENT, steps, rate, save_seconds)
        if not self.resumed:
            # The names' vectors, and how their tokens are weighed, are the teacher's from the start.
            student.name_reader.load_state_dict(teacher.name_reader.state_dict())

    def loss_at(self, step: int) -> Tensor:
        asked = readings(self.phrases, self.seed * 1_000_003 + 10 + step, imagenet_names(), MORE)
        return self.loss(asked)

    def loss(self, asked: Sequence[Reading]) -> Tensor:
        """1 - cosine of the words' features, and the cross-entropy of the teacher's classes in both roles."""
        phrases = [reading.phrase for reading in asked]
        with torch.no_grad():
            words, classes, mentions = self._says(self.teacher, self.teacher_tokens, phrases)
        own, likely, own_mentions = self._says(self.student, self.student_tokens, phrases)
        there = words.abs().sum(-1) > 0  # [N, W]
        alike = F.cosine_similarity(own, words, dim=-1)[there]
        size = (own.norm(dim=-1) / words.norm(dim=-1).clamp(min=1e-6))[there]
        mentioned = (mentions > 0).float()
        target = -(classes[:, 0] * (likely[:, 0] + 1e-6).log()).sum(1).mean()
        known = mentioned.bool()
        reference = -(classes[known, 1] * (likely[known, 1] + 1e-6).log()).sum(1)
        names = target + (reference.mean() if known.any() else 0.0)
        names = names + F.binary_cross_entropy_with_logits(own_mentions, mentioned)
        return (1 - alike).mean() + (size - 1).square().mean() + NAMES_WEIGHT * names

    @staticmethod
    def _says(model: PhotoSAM, tokens: WordTokens, phrases: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the words and of the whole [N, W + 1, width], probabilities of the classes in both
        roles [N, 2, 81], logit of a reference [N].
        """
        ids, mask, shares = tokens(phrases)
        features = model.text_proj(model.text_encoder(ids, mask))
        vectors = model.name_reader.vectors(features, mask)
        mentions = model.name_reader.mentions(vectors[:, 1])[:, 0]
        return shares @ features, said(model, vectors), mentions
