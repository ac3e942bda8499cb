"""Hyper-parameters of a ReferSAM model, and the sizes that have a name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, get_type_hints

PATCH = 16
"""Side of a ViT patch in pixels. The adapter's strides (8, 16, 32) are defined around it."""


def _divides(divisor_name: str, divisor: int, name: str, value: int) -> None:
    if value % divisor:
        raise ValueError(f"{name} ({value}) must be a multiple of {divisor_name} ({divisor})")


@dataclass(frozen=True)
class VitConfig:
    """SAM's image encoder."""

    width: int
    depth: int
    heads: int
    window: int
    """Side, in patches, of the windows of the local blocks."""
    global_blocks: tuple[int, ...]
    """Indices of the blocks that attend over the whole picture."""
    stages: tuple[tuple[int, int], ...]
    """First and last block of each stage; the stages cover all blocks in order."""
    native_side: int
    """Picture side in pixels that `pos_embed` and the global relative positions are stored for."""
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        _divides("vit.heads", self.heads, "vit.width", self.width)
        _divides("patch", PATCH, "vit.native_side", self.native_side)
        covered = [block for first, last in self.stages for block in range(first, last + 1)]
        if covered != list(range(self.depth)):
            raise ValueError(f"vit.stages {self.stages} do not cover the {self.depth} blocks in order")
        if not set(self.global_blocks) <= set(range(self.depth)):
            raise ValueError(f"vit.global_blocks {self.global_blocks} name a block beyond {self.depth - 1}")


@dataclass(frozen=True)
class AdapterConfig:
    """Spatial prior, injectors, extractors and the vision-language layers between them."""

    prior_width: int
    """Channels of the stride-4 map of the spatial prior module."""
    deform_heads: int
    vl_width: int
    """Inner width of the vision-language attentions."""
    vl_heads: int
    context_tokens: int
    deform_points: int = 4
    value_ratio: float = 0.5
    """Width of the deformable attention's values as a share of the ViT width."""
    vl_ffn_ratio: int = 2
    extra_pairs: int = 2
    """(Extractor, vision-language layer) pairs after the last stage."""

    def __post_init__(self) -> None:
        _divides("adapter.vl_heads", self.vl_heads, "adapter.vl_width", self.vl_width)


@dataclass(frozen=True)
class PrompterConfig:
    """Vision-language prompter: text and picture to sparse prompts and a coarse mask."""

    sparse_tokens: int
    layers: int = 2
    heads: int = 8
    ffn_ratio: int = 4


@dataclass(frozen=True)
class DecoderConfig:
    """SAM's prompt encoder and mask decoder; `width` is also the prompter's."""

    width: int
    heads: int
    mlp_width: int
    iou_hidden: int
    depth: int = 2
    iou_depth: int = 3
    mask_tokens: int = 4
    attention_downsample: int = 2
    """The cross-attentions work at `width` divided by this."""
    mask_channels: tuple[int, int] = (4, 16)
    """Channels between the one of the mask prompt and the `width` of the dense prompt."""

    def __post_init__(self) -> None:
        _divides("8", 8, "decoder.width", self.width)
        _divides("decoder.heads", self.heads, "decoder.width", self.width)


@dataclass(frozen=True)
class TextConfig:
    """`BertModel` or `CLIPTextModel`."""

    kind: str
    """`bert` or `clip`."""
    layers: int
    heads: int
    width: int
    ffn: int
    vocab: int
    positions: int
    """Longest text in tokens."""
    dropout: float = 0.0
    """In training, of BERT's embeddings, attentions and outputs; of CLIP's attentions."""

    def __post_init__(self) -> None:
        if self.kind not in ("bert", "clip"):
            raise ValueError(f"text.kind is {self.kind!r}; allowed: 'bert', 'clip'")
        _divides("text.heads", self.heads, "text.width", self.width)


@dataclass(frozen=True)
class ReferSAMConfig:
    """A whole model. `to_dict` is JSON-safe; `from_dict` reads it back and rejects unknown keys."""

    vit: VitConfig
    adapter: AdapterConfig
    prompter: PrompterConfig
    decoder: DecoderConfig
    text: TextConfig

    def __post_init__(self) -> None:
        _divides("4", 4, "vit.width", self.vit.width)
        values = self.vit.width * self.adapter.value_ratio
        if values != int(values) or int(values) % self.adapter.deform_heads:
            raise ValueError(
                f"vit.width x adapter.value_ratio ({values}) must be a multiple of adapter.deform_heads"
                f" ({self.adapter.deform_heads})"
            )
        _divides("prompter.heads", self.prompter.heads, "decoder.width", self.decoder.width)

    def to_dict(self) -> dict[str, Any]:
        return _plain(dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ReferSAMConfig:
        return _build(cls, values, "config")


def preset(size: str, text: str) -> ReferSAMConfig:
    """Named sizes: `tiny`, `mini`, `vit_b`, `vit_l` or `vit_h`, with a `bert` or `clip` text encoder."""
    if size not in _SIZES:
        raise ValueError(f"unknown size {size!r}; allowed: {', '.join(_SIZES)}")
    if text not in ("bert", "clip"):
        raise ValueError(f"unknown text encoder {text!r}; allowed: bert, clip")
    vit = _SIZES[size]
    tiny = size == "tiny"
    vocab, positions, dropout = (30522, 512, 0.1) if text == "bert" else (49408, 77, 0.0)
    return ReferSAMConfig(
        vit=vit,
        adapter=AdapterConfig(
            prior_width=16 if tiny else 64,
            deform_heads=vit.heads,
            vl_width=vit.width,
            vl_heads=vit.heads,
            context_tokens=5 if tiny else 16,
        ),
        prompter=PrompterConfig(sparse_tokens=3 if tiny else 4),
        decoder=DecoderConfig(width=64, heads=4, mlp_width=128, iou_hidden=64)
        if tiny
        else DecoderConfig(width=256, heads=8, mlp_width=2048, iou_hidden=256),
        text=TextConfig(
            kind=text,
            layers=2 if size in ("tiny", "mini") else 12,
            heads=4 if tiny else 12,
            width=64 if tiny else 768,
            ffn=160 if tiny else 3072,
            vocab=vocab,
            positions=positions,
            dropout=dropout,
        ),
    )


def _even_stages(depth: int) -> tuple[tuple[int, int], ...]:
    length = depth // 4
    return tuple((first, first + length - 1) for first in range(0, depth, length))


_SIZES = {
    "tiny": VitConfig(96, 4, 4, window=4, global_blocks=(1, 3), stages=_even_stages(4), native_side=128),
    "mini": VitConfig(
        192, 8, 6, window=7, global_blocks=(1, 3, 5, 7), stages=_even_stages(8), native_side=256
    ),
    "vit_b": VitConfig(
        768, 12, 12, window=14, global_blocks=(2, 5, 8, 11), stages=_even_stages(12), native_side=1024
    ),
    "vit_l": VitConfig(
        1024, 24, 16, window=14, global_blocks=(5, 11, 17, 23), stages=_even_stages(24), native_side=1024
    ),
    "vit_h": VitConfig(
        1280, 32, 16, window=14, global_blocks=(7, 15, 23, 31), stages=_even_stages(32), native_side=1024
    ),
}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _build(cls: type, values: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    required = {f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING}
    missing = sorted(required - set(values))
    if unknown or missing:
        raise ValueError(f"{where}: unknown keys {unknown}, missing keys {missing}")
    return cls(
        **{
            key: _build(hints[key], value, f"{where}.{key}")
            if dataclasses.is_dataclass(hints[key])
            else _tuples(value)
            for key, value in values.items()
        }
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value
