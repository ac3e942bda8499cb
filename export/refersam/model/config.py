"""Hyper-parameters of a ReferSAM model, and the sizes that have a name."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_type_hints

PATCH = 16
"""Side of a ViT patch in pixels. The adapter's strides (8, 16, 32) are defined around it."""


def _divides(divisor_name: str, divisor: int, name: str, value: int) -> None:
    if value % divisor:
        raise ValueError(f"{name} ({value}) must be a multiple of {divisor_name} ({divisor})")


def _at_least(table: str, config: object, **bounds: int) -> None:
    """Raises ValueError unless each named field is a whole number that is not below its bound."""
    for name, bound in bounds.items():
        value = getattr(config, name)
        if not _is_whole(value) or value < bound:
            raise ValueError(f"{table}.{name} is {value!r}; it must be a whole number of at least {bound}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


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
        _at_least("vit", self, width=4, depth=1, heads=1, window=1, native_side=PATCH, mlp_ratio=1)
        _divides("4", 4, "vit.width", self.width)
        _divides("vit.heads", self.heads, "vit.width", self.width)
        _divides("patch", PATCH, "vit.native_side", self.native_side)
        for stage in self.stages:
            pair = isinstance(stage, tuple) and len(stage) == 2 and all(map(_is_whole, stage))
            if not pair or stage[0] > stage[1]:
                raise ValueError(
                    f"vit.stages has {stage!r}; a stage is the indices of its first and last block"
                )
        covered = [block for first, last in self.stages for block in range(first, last + 1)]
        if covered != list(range(self.depth)):
            raise ValueError(f"vit.stages {self.stages} do not cover the {self.depth} blocks in order")
        blocks = self.global_blocks
        if not all(map(_is_whole, blocks)) or not set(blocks) <= set(range(self.depth)):
            raise ValueError(f"vit.global_blocks is {blocks}; allowed are indices from 0 to {self.depth - 1}")


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
        _at_least("adapter", self, prior_width=1, deform_heads=1, vl_width=1, vl_heads=1, context_tokens=0)
        _at_least("adapter", self, deform_points=1, vl_ffn_ratio=1, extra_pairs=0)
        ratio = self.value_ratio
        if not isinstance(ratio, int | float) or not math.isfinite(ratio) or ratio <= 0:
            raise ValueError(f"adapter.value_ratio is {ratio!r}; it must be a number above 0")
        _divides("adapter.vl_heads", self.vl_heads, "adapter.vl_width", self.vl_width)


@dataclass(frozen=True)
class PrompterConfig:
    """Vision-language prompter: text and picture to sparse prompts and a coarse mask."""

    sparse_tokens: int
    """0 leaves the coarse mask as the decoder's only prompt, an ablation of the paper."""
    layers: int = 2
    heads: int = 8
    ffn_ratio: int = 4

    def __post_init__(self) -> None:
        _at_least("prompter", self, sparse_tokens=0, layers=1, heads=1, ffn_ratio=1)


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
        _at_least("decoder", self, width=8, heads=1, mlp_width=1, iou_hidden=1, depth=0, iou_depth=1)
        _at_least("decoder", self, mask_tokens=1, attention_downsample=1)
        _divides("8", 8, "decoder.width", self.width)
        _divides("decoder.heads", self.heads, "decoder.width", self.width)
        _divides("decoder.attention_downsample", self.attention_downsample, "decoder.width", self.width)
        inner = self.width // self.attention_downsample
        _divides("decoder.heads", self.heads, "decoder.width / decoder.attention_downsample", inner)
        channels = self.mask_channels
        if len(channels) != 2 or not all(_is_whole(count) and count > 0 for count in channels):
            raise ValueError(f"decoder.mask_channels is {channels!r}; it must be two whole numbers above 0")


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
        # The shortest text is one token between the two special ones.
        _at_least("text", self, layers=1, heads=1, width=1, ffn=1, vocab=1, positions=3)
        if not isinstance(self.dropout, int | float) or not 0 <= self.dropout < 1:
            raise ValueError(f"text.dropout is {self.dropout!r}; it must be at least 0 and below 1")
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
        values = self.vit.width * self.adapter.value_ratio
        if values < 1 or values != int(values) or int(values) % self.adapter.deform_heads:
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
    if not isinstance(values, dict):
        raise ValueError(f"{where} is {values!r}; it must be a table of settings")
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
