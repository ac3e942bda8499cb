"""TinyViT-5M, SAM's image encoder in miniature: convolutions first, then windowed attention.

Wu et al., "TinyViT" (2022), as Zhang et al. put it in front of SAM's decoder in "Faster Segment Anything:
Towards Lightweight SAM for Mobile Applications" (2023). BatchNorms are folded into the convolutions, so this
is a model to run and to fine-tune, not to train from nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import static_shape
from .layers import FeedForward, LayerNorm2d, to_map, to_tokens

WIDTHS = (64, 128, 160, 320)
"""Channels of the four stages, at strides 4, 8, 16 and 16."""


class TinyViTMaps(NamedTuple):
    stride8: Tensor
    """[B, 128, H/8, W/8]"""
    stride16: Tensor
    """[B, 160, H/16, W/16]"""
    last: Tensor
    """[B, 320, H/16, W/16]"""
    embedding: Tensor
    """[B, 256, H/16, W/16]: what SAM's decoder reads."""


class TinyViT(nn.Module):
    def __init__(self, out_width: int = 256):
        super().__init__()
        c1, c2, c3, c4 = WIDTHS
        self.patch_embed = nn.Sequential(
            nn.Conv2d(3, c1 // 2, 3, 2, 1), nn.GELU(), nn.Conv2d(c1 // 2, c1, 3, 2, 1)
        )
        self.convolutions = nn.Sequential(InvertedBottleneck(c1), InvertedBottleneck(c1))
        self.merge1, self.merge2, self.merge3 = Merge(c1, c2, 2), Merge(c2, c3, 2), Merge(c3, c4, 1)
        self.stage1 = nn.Sequential(*(WindowBlock(c2, heads=4, window=7) for _ in range(2)))
        self.stage2 = nn.Sequential(*(WindowBlock(c3, heads=5, window=14) for _ in range(6)))
        self.stage3 = nn.Sequential(*(WindowBlock(c4, heads=10, window=7) for _ in range(2)))
        self.neck = nn.Sequential(
            nn.Conv2d(c4, out_width, 1, bias=False),
            LayerNorm2d(out_width),
            nn.Conv2d(out_width, out_width, 3, padding=1, bias=False),
            LayerNorm2d(out_width),
        )

    def forward(self, image: Tensor) -> TinyViTMaps:
        """[B, 3, H, W], normalised, H and W multiples of 16 -> the maps of the last stages and the neck."""
        stride8 = self.stage1(self.merge1(self.convolutions(self.patch_embed(image))))
        stride16 = self.stage2(self.merge2(stride8))
        last = self.stage3(self.merge3(stride16))
        return TinyViTMaps(stride8, stride16, last, self.neck(last))


class InvertedBottleneck(nn.Module):
    def __init__(self, width: int, ratio: int = 4):
        super().__init__()
        inner = width * ratio
        self.conv1 = nn.Conv2d(width, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.conv3 = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]"""
        return F.gelu(x + self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))


class Merge(nn.Module):
    """The step to a wider stage, at half the resolution when `stride` is 2."""

    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, 1, groups=outputs)
        self.conv3 = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x)))))


class WindowBlock(nn.Module):
    """Attention within windows, a depthwise convolution across them, and a feed-forward layer."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.window = window
        self.attn = BiasedAttention(width, heads, window)
        self.local_conv = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, 4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, C, h, w]"""
        size = static_shape(x)[2:]
        x = self.local_conv(x + self._windowed(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))
        tokens = to_tokens(x)
        return to_map(tokens + self.mlp(self.norm(tokens)), (size[0], size[1]))

    def _windowed(self, x: Tensor) -> Tensor:
        """[B, h, w, C] -> the same. The grid is filled up with zeros at the bottom and right; they take part
        as keys, and TinyViT was trained so.
        """
        _, height, width, channels = static_shape(x)
        side = self.window
        rows, columns = -(-height // side), -(-width // side)
        below, right = rows * side - height, columns * side - width
        if below or right:
            x = F.pad(x, (0, 0, 0, right, 0, below))
        x = x.reshape(-1, rows, side, columns, side, channels).transpose(2, 3)
        x = self.attn(x.reshape(-1, side * side, channels))
        x = x.reshape(-1, rows, columns, side, side, channels).transpose(2, 3)
        x = x.reshape(-1, rows * side, columns * side, channels)
        return x[:, :height, :width] if below or right else x


class BiasedAttention(nn.Module):
    """Self-attention with a learned bias for each pair of positions; the norm belongs to it."""

    def __init__(self, width: int, heads: int, window: int):
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(heads, window**2, window**2))

    def forward(self, x: Tensor) -> Tensor:
        """[windows, N, C] -> [windows, N, C]"""
        _, length, channels = static_shape(x)
        # Each head's query, key and value stand together: [heads, (q, k, v), channels of a head].
        qkv = self.qkv(self.norm(x)).reshape(-1, length, self.heads, 3, channels // self.heads)
        query, key, value = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # [windows, heads, N, d]
        scores = (query * self.scale) @ key.transpose(-1, -2) + self.bias
        mixed = (scores.softmax(-1) @ value).transpose(1, 2)
        return self.proj(mixed.reshape(-1, length, channels))
