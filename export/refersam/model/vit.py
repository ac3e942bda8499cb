"""SAM's image encoder: a plain ViT with windowed and global blocks and relative positions.

Kirillov et al., "Segment Anything" (2023), after Li et al., "Exploring Plain Vision Transformer Backbones
for Object Detection" (2022). The interactor runs it stage by stage, so there is no forward of the whole.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import PATCH, VitConfig
from .folding import constant, folded, static_shape
from .layers import LayerNorm2d, SamFeedForward, layer_norm


class PatchEmbed(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, h, w, D]"""
        return self.proj(image).permute(0, 2, 3, 1)


class ImageEncoder(nn.Module):
    def __init__(self, config: VitConfig, out_width: int):
        super().__init__()
        side = config.native_side // PATCH
        self.patch_embed = PatchEmbed(config.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, config.width))
        self.blocks = nn.ModuleList(
            Block(config, None if index in config.global_blocks else config.window)
            for index in range(config.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(config.width, out_width, 1, bias=False),
            LayerNorm2d(out_width),
            nn.Conv2d(out_width, out_width, 3, padding=1, bias=False),
            LayerNorm2d(out_width),
        )

    def embed(self, image: Tensor) -> Tensor:
        """[B, 3, H, W] -> patches with their positions, [B, h, w, D]."""
        tokens = self.patch_embed(image)
        height, width = static_shape(tokens)[1:3]
        return tokens + folded(lambda: self._resized_pos_embed(height, width))

    def _resized_pos_embed(self, height: int, width: int) -> Tensor:
        maps = self.pos_embed.permute(0, 3, 1, 2)
        maps = F.interpolate(maps, (height, width), mode="bilinear", align_corners=False, antialias=False)
        return maps.permute(0, 2, 3, 1)


class Block(nn.Module):
    """Transformer block; local (`window` patches a side) or global (`window` None)."""

    def __init__(self, config: VitConfig, window: int | None):
        super().__init__()
        self.window = window
        self.norm1 = layer_norm(config.width)
        self.attn = RelPosAttention(config.width, config.heads, window or config.native_side // PATCH)
        self.norm2 = layer_norm(config.width)
        self.mlp = SamFeedForward(config.width, config.width * config.mlp_ratio, F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, D] -> [B, h, w, D]"""
        normed = self.norm1(x)
        attended = self.attn(normed) if self.window is None else self._windowed(normed, self.window)
        x = x + attended
        return x + self.mlp(self.norm2(x))

    def _windowed(self, x: Tensor, window: int) -> Tensor:
        """Attention within windows.

        The grid is filled up with zeros at the bottom and right. They come after the norm and are not
        masked: through the bias of qkv they act as real keys, and SAM was trained so.
        """
        _, height, width, channels = static_shape(x)
        rows, columns = -(-height // window), -(-width // window)
        below, right = rows * window - height, columns * window - width
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        x = x.reshape(-1, rows, window, columns, window, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, window, window, channels))
        x = x.reshape(-1, rows, columns, window, window, channels).transpose(2, 3)
        x = x.reshape(-1, rows * window, columns * window, channels)
        return x[:, :height, :width] if below or right else x


class RelPosAttention(nn.Module):
    """Self-attention over a grid with decomposed relative positions, one table for rows, one for columns."""

    def __init__(self, width: int, heads: int, side: int):
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.scale = self.head_width**-0.5
        self.qkv = nn.Linear(width, width * 3)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, self.head_width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, self.head_width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, h, w, D] -> [B, h, w, D]"""
        _, height, width, channels = static_shape(x)
        tokens = height * width
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)  # [B, heads, N, d]
        rel_h = folded(lambda: relative_table(self.rel_pos_h, height))  # [h, d, h]
        rel_w = folded(lambda: relative_table(self.rel_pos_w, width))  # [w, d, w]

        # The positional terms take the query before it is scaled.
        grid = query.reshape(-1, self.heads, height, width, self.head_width)
        bias_h = grid @ rel_h  # [B, heads, h, w, key row]
        bias_w = (grid.transpose(2, 3) @ rel_w).transpose(2, 3)  # [B, heads, h, w, key column]
        scores = ((query * self.scale) @ key.transpose(-1, -2)).reshape(
            -1, self.heads, height, width, height, width
        )
        scores = scores + bias_h[..., :, None] + bias_w[..., None, :]
        weights = scores.reshape(-1, self.heads, tokens, tokens).softmax(-1)
        out = (weights @ value).transpose(1, 2).reshape(-1, height, width, channels)
        return self.proj(out)


def relative_table(table: Tensor, length: int) -> Tensor:
    """Rows of `table` [2·native - 1, d] for each pair of positions on an axis: [query, d, key].

    A table stored for another length is resized linearly (half-pixel centres, no antialiasing).
    """
    rows = 2 * length - 1
    if table.shape[0] != rows:
        table = F.interpolate(table.t()[None], rows, mode="linear", align_corners=False)[0].t()
    return table[relative_index(length, table.device)].transpose(1, 2)


@constant
def relative_index(length: int, device: torch.device) -> Tensor:
    """Query position minus key position, counted from 0: [query, key]."""
    position = torch.arange(length, device=device)
    return position[:, None] - position[None] + length - 1
