"""From the words of a phrase to the classes that the frozen networks know, without training on masks.

The detector and the classifier know classes by number. Each class has a name, and each name a vector of the
text encoder; a phrase weighs the classes by how close its own vector is to theirs. So the heat of a phrase
(`ClassHeat`) is a weighted sum of maps that depend on the picture alone.
"""

from __future__ import annotations

from importlib import resources

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import static_shape
from .text import MASKED

ROLES = ("target", "reference")
"""What a phrase may name: the thing it asks for, and one that it relates the thing to."""

SHARPNESS = 25.0
"""Factor on the cosines before the softmax over the names."""
ALWAYS = 20.0
"""A logit whose probability is 1 in float32."""


def coco_names() -> tuple[str, ...]:
    """NanoDet's 80 classes, in its order."""
    return _names("coco")


def imagenet_names() -> tuple[str, ...]:
    """EfficientNet's 1,000 classes, in its order."""
    return _names("imagenet")


def aliases() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Words with NanoDet's classes that they mean, the classes' own names first. Synonyms mean one, words for
    many things ("animal") several, and words for things that the detector does not know ("window") none.
    """
    rows = (line.split("\t") for line in _names("aliases"))
    return tuple((word, tuple(filter(None, classes.split(", ")))) for word, classes in rows)


def alias_classes() -> Tensor:
    """[aliases, 80], 1 where an alias means a class."""
    known = coco_names()
    table = torch.zeros(len(aliases()), len(known))
    for row, (_, classes) in enumerate(aliases()):
        for name in classes:
            table[row, known.index(name)] = 1
    return table


def _names(kind: str) -> tuple[str, ...]:
    text = resources.files(__package__).joinpath("vocabulary", f"{kind}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


class NameReader(nn.Module):
    """Which of the names a phrase asks for, and which it mentions beside it.

    A token's share in a role's vector comes from a small perceptron that starts at zero, so the start is the
    plain mean of the tokens, the sentence vector that MiniLM was trained to make. It learns to look at
    the noun that counts ("the man on the bike"); the vectors of the names stay as they are.
    """

    detector: Tensor
    classifier: Tensor

    def __init__(self, width: int, hidden: int = 64):
        super().__init__()
        self.hidden = nn.Linear(width, hidden)
        self.share = nn.Linear(hidden, len(ROLES))
        self.mentions = nn.Linear(width, 1)
        nn.init.zeros_(self.share.weight)
        nn.init.zeros_(self.share.bias)
        nn.init.zeros_(self.mentions.weight)
        nn.init.constant_(self.mentions.bias, -2.0)
        self.register_buffer("detector", torch.zeros(len(aliases()), width))
        self.register_buffer("classifier", torch.zeros(len(imagenet_names()), width))

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """[B, L, width], bool [B, L] -> logits of the names in each role, [B, 2, aliases + 1000 + 1].

        The last one says whether the phrase names anything in this role; for the target it always does.
        """
        vectors = self.vectors(tokens, mask)
        mentioned = self.mentions(vectors[:, 1:])  # [B, 1, 1]
        said = torch.cat([0 * mentioned + ALWAYS, mentioned], 1)
        return torch.cat([self.detector_logits(vectors), self._cosines(vectors, self.classifier), said], 2)

    def vectors(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """A vector per role, [B, 2, width]."""
        shares = self.share(F.gelu(self.hidden(tokens))) + (~mask).to(tokens.dtype)[..., None] * MASKED
        return shares.softmax(1).transpose(1, 2) @ tokens

    def detector_logits(self, vectors: Tensor) -> Tensor:
        """Vectors of the roles [B, 2, width] -> logits of the aliases [B, 2, aliases]."""
        return self._cosines(vectors, self.detector)

    @staticmethod
    def _cosines(vectors: Tensor, names: Tensor) -> Tensor:
        """[B, 2, width], [n, width] -> [B, 2, n], SHARPNESS times the cosines."""
        length = (vectors * vectors).sum(-1, keepdim=True).sqrt()
        return (vectors * (SHARPNESS / (length + 1e-6))) @ names.t()

    @torch.no_grad()
    def set_names(self, detector: Tensor, classifier: Tensor) -> None:
        """Sets the vectors of the aliases, [aliases, width], and the classifier's names, [1000, width]."""
        self.detector.copy_(F.normalize(detector, dim=-1))
        self.classifier.copy_(F.normalize(classifier, dim=-1))


class ClassHeat(nn.Module):
    """Where the picture shows what a phrase names: a layer without parameters."""

    meaning: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("meaning", alias_classes(), persistent=False)

    def forward(self, names: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the names [B, R, aliases + 1000 + 1], of the detector's classes [B, 80, N] and of the
        classifier's [B, 1000, M] -> heat in [0, 1], [B, R, N] and [B, R, M].
        """
        detected, classified = self.weights(names)
        return (detected @ scores.sigmoid()).clamp(max=1), classified @ classes.softmax(1)

    def weights(self, names: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of the names -> weights of the classes, [B, R, 80] and [B, R, 1000].

        A word for many things weighs each of its classes alike, a word for nothing that the detector knows
        none. The weights are scaled by how likely the phrase names anything in the role.
        """
        words = static_shape(self.meaning)[0]
        said = names[..., -1:].sigmoid()
        detected = names[..., :words].softmax(-1) @ self.meaning
        return detected * said, names[..., words:-1].softmax(-1) * said


def heat_code(heat: Tensor) -> Tensor:
    """Heat on a scale on which 1e-4 is -1.3 and 1 is 1."""
    return (heat + 1e-4).log() / 4 + 1
