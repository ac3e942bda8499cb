"""The three token grids of a picture, and their position codes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .config import PATCH
from .folding import constant, static_shape


@dataclass(frozen=True)
class Grid:
    """A picture of 16·height x 16·width pixels as the model sees it.

    ViT tokens form one grid of stride 16; adapter tokens form three, of strides 8, 16 and 32, stored one
    after the other, each row by row.
    """

    height: int
    width: int

    @classmethod
    def of_image(cls, image: Tensor) -> Grid:
        """From [B, 3, H, W]. Raises ValueError unless H and W are multiples of 32."""
        height, width = static_shape(image)[-2:]
        if height % 32 or width % 32 or not height or not width:
            raise ValueError(f"a picture of {height} x {width} pixels: both sides must be multiples of 32")
        return cls(height // PATCH, width // PATCH)

    @property
    def vit(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        """(rows, columns) of the adapter's three grids."""
        return (
            (2 * self.height, 2 * self.width),
            (self.height, self.width),
            (self.height // 2, self.width // 2),
        )

    @property
    def level_tokens(self) -> tuple[int, ...]:
        return tuple(rows * columns for rows, columns in self.levels)


@constant
def sine_code(
    levels: tuple[tuple[int, int], ...], width: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Sine position code of the tokens of all levels, [1, A, width].

    The first half of the channels codes y, the second x; sines and cosines alternate. Positions run from 1
    to n and are scaled so that n is at 2π (DETR's code with normalisation and no half-pixel shift).
    """
    half = width // 2
    exponent = 2 * torch.arange(half // 2, dtype=torch.float64).repeat_interleave(2) / half
    period = 10000.0**exponent

    def axis(n: int) -> Tensor:
        position = torch.arange(1, n + 1, dtype=torch.float64) / (n + 1e-6) * 2 * math.pi
        angle = position[:, None] / period
        return torch.stack([angle[:, 0::2].sin(), angle[:, 1::2].cos()], -1).flatten(1)

    codes = []
    for rows, columns in levels:
        y = axis(rows)[:, None].expand(-1, columns, -1)
        x = axis(columns)[None].expand(rows, -1, -1)
        codes.append(torch.cat([y, x], -1).flatten(0, 1))
    return torch.cat(codes)[None].to(device, dtype)


@constant
def pixel_centres(levels: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of the tokens of all levels as (x, y) in the unit square, [A, 2]."""
    centres = []
    for rows, columns in levels:
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
        centres.append(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1))
    return torch.cat(centres).to(device, dtype)
