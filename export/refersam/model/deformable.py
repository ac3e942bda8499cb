"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", 2021) with narrowed values."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import constant, static_shape
from .grid import pixel_centres

Levels = tuple[tuple[int, int], ...]
"""(rows, columns) of each grid of values."""

SAMPLERS = ("gather", "grid_sample")


class DeformableAttention(nn.Module):
    """Each query reads a few points of each level of values, at offsets and with weights of its own.

    `sampler` chooses between two equal computations: `gather` (plain indexing, the one that is exported:
    TensorRT has miscompiled GridSample inside deformable attention) and `grid_sample` (trains faster).
    """

    def __init__(self, width: int, heads: int, levels: int, points: int, value_ratio: float):
        super().__init__()
        inner = int(width * value_ratio)
        self.heads, self.levels, self.points = heads, levels, points
        self.sampler = "gather"
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, inner)
        self.output_proj = nn.Linear(inner, width)

    def forward(self, query: Tensor, query_levels: Levels, value: Tensor, value_levels: Levels) -> Tensor:
        """[B, Q, D], the grids of the queries, [B, S, D], the grids of the values -> [B, Q, D].

        A query's reference point is the centre of its own token, the same for all levels of values.
        """
        queries, tokens, inner = static_shape(query)[1], static_shape(value)[1], self.value_proj.out_features
        value = self.value_proj(value).reshape(-1, tokens, self.heads, inner // self.heads)
        shape = (-1, queries, self.heads, self.levels, self.points)
        weights = self.attention_weights(query).reshape(-1, queries, self.heads, self.levels * self.points)
        weights = weights.softmax(-1).reshape(shape)
        # Offsets are in pixels of the level they sample; pixel i covers [i, i + 1), its centre is i + 0.5.
        # Under autocast the offsets may be BF16, whose step at pixel 40 is a quarter: the sum is not.
        dtype = torch.promote_types(query.dtype, torch.float32)
        reference = reference_pixels(query_levels, value_levels, query.device, dtype)
        pixels = self.sampling_offsets(query).reshape(*shape, 2) + reference
        sample = sample_by_gather if self.sampler == "gather" else sample_by_grid
        return self.output_proj(sample(value, pixels, weights, value_levels).reshape(-1, queries, inner))


@constant
def reference_pixels(
    query_levels: Levels, value_levels: Levels, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """Reference points in pixels of each level of values: [Q, 1, levels, 1, (x, y)]."""
    centres = pixel_centres(query_levels, torch.device("cpu"), torch.float64)
    sizes = torch.tensor([(columns, rows) for rows, columns in value_levels], dtype=torch.float64)
    return (centres[:, None, None, None] * sizes[:, None]).to(device, dtype)


def sample_by_gather(value: Tensor, pixels: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """Weighted sum of bilinear samples, zero outside a level, by indexing rows of values.

    value [B, S, heads, d], pixels [B, Q, heads, levels, points, (x, y)],
    weights [B, Q, heads, levels, points] -> [B, Q, heads, d].
    """
    _, tokens, heads, width = static_shape(value)
    _, queries, _, _, points, _ = static_shape(pixels)
    reads = len(levels) * points * 4
    rows, columns, starts = level_geometry(levels, value.device)

    x_index, x_share = _corners(pixels[..., 0] - 0.5, columns)
    y_index, y_share = _corners(pixels[..., 1] - 0.5, rows)
    token = starts[..., None] + y_index[..., :, None] * columns[..., None] + x_index[..., None, :]
    share = weights[..., None, None] * y_share[..., :, None] * x_share[..., None, :]

    # Token s of head m of sample b is row (b·S + s)·heads + m of the flat table of values.
    row = token.reshape(-1, queries, heads, reads) * heads + head_index(heads, value.device)
    row = row + (torch.arange(value.shape[0], device=value.device) * (tokens * heads))[:, None, None, None]
    read = value.reshape(-1, width).index_select(0, row.reshape(-1)).reshape(-1, queries, heads, reads, width)
    return (read * share.reshape(-1, queries, heads, reads, 1)).sum(3)


def _corners(position: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The two neighbours of each position on an axis of `size` pixels, and their bilinear shares.

    Neighbours outside are moved to the border and given share 0. Indices are int64, so that an index into
    a long table stays exact whatever the precision of the positions.
    """
    low = position.floor()
    fraction = position - low
    corners = torch.stack([low, low + 1], -1)
    limit = (size - 1).to(corners.dtype)
    inside = (corners >= 0) & (corners <= limit)
    share = torch.stack([1 - fraction, fraction], -1) * inside
    return torch.minimum(corners.clamp(min=0), limit).long(), share


@constant
def level_geometry(levels: Levels, device: torch.device) -> tuple[Tensor, ...]:
    """Rows, columns and first token of each level, each int64 [levels, 1, 1]."""
    sizes = torch.tensor(levels)
    tokens = sizes.prod(1)
    starts = tokens.cumsum(0) - tokens
    return tuple(values[:, None, None].to(device) for values in (sizes[:, 0], sizes[:, 1], starts))


@constant
def head_index(heads: int, device: torch.device) -> Tensor:
    """[heads, 1]"""
    return torch.arange(heads, device=device)[:, None]


def sample_by_grid(value: Tensor, pixels: Tensor, weights: Tensor, levels: Levels) -> Tensor:
    """The same as `sample_by_gather`, by `grid_sample`."""
    batch, _, heads, width = value.shape
    queries, points = pixels.shape[1], pixels.shape[4]
    total = value.new_zeros(batch * heads, width, queries)
    parts = value.split([rows * columns for rows, columns in levels], 1)
    for level, ((rows, columns), part) in enumerate(zip(levels, parts, strict=True)):
        maps = part.permute(0, 2, 3, 1).reshape(batch * heads, width, rows, columns)
        grid = pixels[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        grid = grid * grid.new_tensor([2 / columns, 2 / rows]) - 1
        read = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        share = weights[:, :, :, level].transpose(1, 2).reshape(batch * heads, 1, queries, points)
        total = total + (read * share).sum(-1)
    return total.reshape(batch, heads, width, queries).permute(0, 3, 1, 2)
