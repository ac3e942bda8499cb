"""SAM's prompt encoder, as far as ReferSAM uses it: the dense prompt and the position code of the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .config import DecoderConfig
from .folding import folded
from .grid import Grid, pixel_centres
from .layers import LayerNorm2d


class RandomPositionCode(nn.Module):
    """Sines and cosines of fixed random frequencies (Tancik et al., "Fourier Features", 2020)."""

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, width // 2))

    def forward(self, grid: Grid) -> Tensor:
        """[1, C, h, w]: all sines, then all cosines."""
        return folded(lambda: self._code(grid))

    def _code(self, grid: Grid) -> Tensor:
        frequencies = self.positional_encoding_gaussian_matrix
        centres = pixel_centres((grid.vit,), frequencies.device, frequencies.dtype)
        angle = 2 * math.pi * ((2 * centres - 1) @ frequencies)
        code = torch.cat([angle.sin(), angle.cos()], -1)
        return code.t().reshape(1, -1, *grid.vit)


class PromptEncoder(nn.Module):
    """Turns the mask prompt into the dense prompt.

    The embeddings of points and of "no mask" belong to SAM's checkpoints and are kept for that; nothing
    reads them.
    """

    def __init__(self, config: DecoderConfig):
        super().__init__()
        width, (first, second) = config.width, config.mask_channels
        self.pe_layer = RandomPositionCode(width)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, first, 2, stride=2),
            LayerNorm2d(first),
            nn.GELU(),
            nn.Conv2d(first, second, 2, stride=2),
            LayerNorm2d(second),
            nn.GELU(),
            nn.Conv2d(second, width, 1),
        )
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, width) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, width)
        self.no_mask_embed = nn.Embedding(1, width)
        unused = (self.point_embeddings, self.not_a_point_embed, self.no_mask_embed)
        for module in unused:
            module.requires_grad_(False)

    def forward(self, mask_prompt: Tensor) -> Tensor:
        """[B, 1, H/4, W/4] -> [B, C, h, w]"""
        return self.mask_downscaling(mask_prompt)
