"""Hyper-parameters of a photo variant. The frozen networks have one size each; the rest is set here."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from .config import DecoderConfig, TextConfig, _at_least, _build, _divides, _plain


@dataclass(frozen=True)
class PhotoInteractorConfig:
    """The part between the frozen networks and the prompter, at stride 16."""

    width: int
    heads: int
    trunk_blocks: int
    """Convolution blocks before any text: they are paid for once per picture."""
    reasoner_layers: int
    """Self-attention over words, context tokens and candidates, before they meet the picture."""
    layers: int
    """Vision-language layers."""
    context_tokens: int
    targets: int
    """Candidates for what the phrase asks for."""
    references: int
    """Candidates for what the phrase mentions beside it."""
    ffn_ratio: int = 2

    def __post_init__(self) -> None:
        _at_least("interactor", self, width=8, heads=1, trunk_blocks=0, reasoner_layers=0, layers=1)
        _at_least("interactor", self, context_tokens=0, targets=1, references=1, ffn_ratio=1)
        _divides("interactor.heads", self.heads, "interactor.width", self.width)


@dataclass(frozen=True)
class PhotoPrompterConfig:
    """From text and picture to a coarse mask, sparse prompts and whether the thing is there."""

    layers: int
    heads: int
    correlations: int
    """Maps that the dense prompt token makes of the picture."""
    fine: int
    """Channels at stride 8 that do not depend on the text."""
    mixed: int
    """Channels at stride 8 that join all maps of a phrase."""
    sparse_tokens: int
    """Learned sparse prompts beside the two corners of the coarse mask's box."""
    box_cut: float = -1.0
    """Logit of the coarse mask above which a pixel counts for the box."""

    def __post_init__(self) -> None:
        _at_least("prompter", self, layers=1, heads=1, correlations=1, fine=1, mixed=1, sparse_tokens=0)


@dataclass(frozen=True)
class PhotoConfig:
    """A whole model. `to_dict` is JSON-safe; `from_dict` reads it back and rejects unknown keys."""

    interactor: PhotoInteractorConfig
    prompter: PhotoPrompterConfig
    decoder: DecoderConfig
    text: TextConfig
    text_width: int
    """Of the vectors that leave the text encoder, through a projection where the encoder is narrower."""
    presence_cut: float = 0.0
    """Logit of the presence under which a mask is left empty."""
    mask_cut: float = 0.0
    """Logit of the decoder above which a pixel belongs to the mask; the logits that leave are less by it."""

    def __post_init__(self) -> None:
        if self.decoder.width != 256:
            raise ValueError(f"decoder.width is {self.decoder.width}; the frozen encoder's embedding has 256")
        _divides("prompter.heads", self.prompter.heads, "interactor.width", self.interactor.width)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "photo", **_plain(dataclasses.asdict(self))}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PhotoConfig:
        return _build(cls, {key: value for key, value in values.items() if key != "kind"}, "config")


def photo_preset(text: str) -> PhotoConfig:
    """The sizes that ship, with a `bert` (MiniLM) or `clip` text encoder."""
    if text not in ("bert", "clip"):
        raise ValueError(f"unknown text encoder {text!r}; allowed: bert, clip")
    return PhotoConfig(
        interactor=PhotoInteractorConfig(
            width=128,
            heads=4,
            trunk_blocks=2,
            reasoner_layers=3,
            layers=2,
            context_tokens=4,
            targets=16,
            references=4,
        ),
        prompter=PhotoPrompterConfig(layers=1, heads=4, correlations=16, fine=24, mixed=32, sparse_tokens=2),
        decoder=DecoderConfig(width=256, heads=8, mlp_width=2048, iou_hidden=256),
        text=TextConfig("bert", 6, 12, 384, 1536, 30522, 512)
        if text == "bert"
        else TextConfig("clip", 4, 6, 192, 768, 49408, 77),
        text_width=384,
    )
