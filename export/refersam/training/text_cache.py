"""Word features of phrases by a frozen text encoder, each computed once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from refersam.model.photo import PhotoSAM
from refersam.training.reading import Encode, encoded

MOST = 60_000
"""Phrases that are kept, 20 kB each. The cache starts anew when it is full."""


class TextCache:
    """Features of phrases by the text encoder and name reader of `model`, which must not change meanwhile."""

    def __init__(self, model: PhotoSAM, encode: Encode) -> None:
        self.model, self.encode = model, encode
        self.computed: dict[str, tuple[Tensor, Tensor]] = {}

    @torch.no_grad()
    def __call__(self, phrases: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Word features [N, L, width], logits of the names [N, 2, …], bool mask [N, L]."""
        if len(self.computed) > MOST:
            self.computed.clear()
        new = [phrase for phrase in dict.fromkeys(phrases) if phrase not in self.computed]
        if new:
            tokens, mask = encoded(self.model, self.encode, new)
            names = self.model.name_reader(tokens, mask)
            for row, phrase in enumerate(new):
                length = int(mask[row].sum())
                self.computed[phrase] = (tokens[row, :length].half(), names[row].half())
        rows = [self.computed[phrase] for phrase in phrases]
        tokens = nn.utils.rnn.pad_sequence([words.float() for words, _ in rows], batch_first=True)
        lengths = torch.tensor([len(words) for words, _ in rows])
        mask = torch.arange(tokens.shape[1]) < lengths[:, None]
        return tokens, torch.stack([names.float() for _, names in rows]), mask
