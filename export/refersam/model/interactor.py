"""Vision-Language Interactor: what happens between the stages of the ViT.

Liu et al., "ReferSAM" (IEEE TCSVT 2025), on top of ViT-Adapter's injector and extractor. The stream names:
`vit` are the ViT's tokens [B, h, w, D], `adapter` the tokens of strides 8, 16 and 32 [B, A, D], `lang` the
text tokens [B, L, text] and `context` learned tokens beside them [B, X, text].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .attention import Attention, LevelAttention
from .config import ReferSAMConfig
from .deformable import DeformableAttention
from .folding import static_shape
from .grid import Grid
from .layers import FeedForward, layer_norm


class Injector(nn.Module):
    """ViT tokens read the adapter's grids. `gamma` starts near zero, so that the ViT starts undisturbed."""

    def __init__(self, config: ReferSAMConfig):
        super().__init__()
        width = config.vit.width
        self.query_norm = layer_norm(width)
        self.attn = _deformable(config, levels=3)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, vit: Tensor, adapter: Tensor, grid: Grid) -> Tensor:
        width = static_shape(vit)[3]
        tokens = vit.reshape(-1, grid.height * grid.width, width)
        read = self.attn(self.query_norm(tokens), (grid.vit,), adapter, grid.levels)
        return (tokens + self.gamma * read).reshape(-1, *grid.vit, width)


class Extractor(nn.Module):
    """Adapter tokens read the ViT's grid. Despite its name, `query_norm` comes after the residual sum."""

    def __init__(self, config: ReferSAMConfig):
        super().__init__()
        self.query_norm = layer_norm(config.vit.width)
        self.value_norm = layer_norm(config.vit.width)
        self.attn = _deformable(config, levels=1)

    def forward(self, adapter: Tensor, vit: Tensor, grid: Grid) -> Tensor:
        tokens = self.value_norm(vit).reshape(-1, grid.height * grid.width, static_shape(vit)[3])
        read = self.attn(adapter, grid.levels, tokens, (grid.vit,))
        return self.query_norm(adapter + read)


class VisionLanguageLayer(nn.Module):
    """Text tokens attend themselves and the picture, then the picture attends the text. Post-norms all."""

    def __init__(self, text: int, visual: int, inner: int, heads: int, ratio: int, levels: int = 3):
        super().__init__()
        self.p2l_cross_attn = Attention(text, text, inner, heads)
        self.l2v_cross_attn = LevelAttention(text, visual, inner, heads, levels)
        self.v2l_cross_attn = Attention(visual, text, inner, heads)
        self.gamma_l2v = nn.Parameter(torch.ones(1, 1, text))
        self.gamma_v2l = nn.Parameter(torch.ones(1, 1, visual))
        self.prompt_mlp = FeedForward(text, text * ratio)
        self.vis_mlp = FeedForward(visual, visual * ratio)
        self.l_norm1, self.l_norm2, self.l_norm3 = layer_norm(text), layer_norm(text), layer_norm(text)
        self.v_norm1, self.v_norm2 = layer_norm(visual), layer_norm(visual)

    @classmethod
    def of(cls, config: ReferSAMConfig) -> VisionLanguageLayer:
        adapter = config.adapter
        return cls(
            config.text.width, config.vit.width, adapter.vl_width, adapter.vl_heads, adapter.vl_ffn_ratio
        )

    def forward(
        self, adapter: Tensor, position: Tensor, text: Tensor, mask: Tensor, level_tokens: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Adapter tokens, their position code [1, A, D], text and context tokens [B, T, text], bool [B, T]
        -> adapter tokens and text tokens. Positions enter queries and keys, never values.
        """
        text = self.l_norm2(text + self.p2l_cross_attn(text, text, text, mask))
        read = self.l2v_cross_attn(text, adapter + position, adapter, level_tokens)
        text = self.l_norm1(text + self.gamma_l2v * read)
        text = self.l_norm3(text + self.prompt_mlp(text))

        read = self.v2l_cross_attn(adapter + position, text, text, mask)
        adapter = self.v_norm1(adapter + self.gamma_v2l * read)
        adapter = self.v_norm2(adapter + self.vis_mlp(adapter))
        return adapter, text


class Interaction(nn.Module):
    """One stage: injector, the stage's ViT blocks, extractor, vision-language layer, then any extra pairs."""

    def __init__(self, config: ReferSAMConfig, extra_pairs: int):
        super().__init__()
        self.injector = Injector(config)
        self.extractor = Extractor(config)
        self.vl_extractor = VisionLanguageLayer.of(config)
        if extra_pairs:
            self.extra_extractors = nn.ModuleList(Extractor(config) for _ in range(extra_pairs))
            self.extra_vl_extractors = nn.ModuleList(
                VisionLanguageLayer.of(config) for _ in range(extra_pairs)
            )
        self.extra_pairs = extra_pairs

    def visual(
        self, vit: Tensor, adapter: Tensor, blocks: Sequence[nn.Module], grid: Grid
    ) -> tuple[Tensor, Tensor]:
        """The part without text: -> ViT tokens and adapter tokens."""
        vit = self.injector(vit, adapter, grid)
        for block in blocks:
            vit = block(vit)
        return vit, self.extractor(adapter, vit, grid)

    def fuse(
        self, vit: Tensor, adapter: Tensor, position: Tensor, text: Tensor, mask: Tensor, grid: Grid
    ) -> tuple[Tensor, Tensor]:
        """The part with text: -> adapter tokens and text tokens (with the context tokens)."""
        adapter, text = self.vl_extractor(adapter, position, text, mask, grid.level_tokens)
        for index in range(self.extra_pairs):
            adapter = self.extra_extractors[index](adapter, vit, grid)
            adapter, text = self.extra_vl_extractors[index](adapter, position, text, mask, grid.level_tokens)
        return adapter, text


def _deformable(config: ReferSAMConfig, levels: int) -> DeformableAttention:
    adapter = config.adapter
    return DeformableAttention(
        config.vit.width, adapter.deform_heads, levels, adapter.deform_points, adapter.value_ratio
    )
