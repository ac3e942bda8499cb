"""Candidates: the few boxes of a picture that a phrase may mean, chosen by heat."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .folding import constant, static_shape

OVERLAP = 0.6
"""IoU from which on the hotter of two boxes stands for both."""
ROUNDS = 4
"""Rounds of `hottest`. A chain of overlapping boxes is settled as far as that."""
FREQUENCIES = 6


def hottest(heat: Tensor, boxes: Tensor, count: int, pool: int) -> tuple[Tensor, Tensor]:
    """The `count` hottest boxes that do not overlap a hotter one, out of the `pool` hottest.

    heat [B, N], boxes [B, 4, N] -> heat [B, count] and boxes [B, count, 4], both 0 where there are fewer.

    A hotter box counts only if it is kept itself. ROUNDS rounds find that out, each a few matrix operations,
    which an exported graph can hold (Zheng et al., "Enhancing Geometric Factors in Model Learning and
    Inference", 2022). With a single round, a chain of boxes along a row of things hides all but the first.
    """
    pool = min(pool, static_shape(heat)[1])
    top, cells = heat.topk(pool, dim=1)  # [B, pool]
    own = boxes.gather(2, cells[:, None].expand(-1, 4, -1)).transpose(1, 2)  # [B, pool, 4]
    hides = ((overlaps(own, own) > OVERLAP) & hotter(pool, heat.device)).to(top.dtype)  # [B, pool, pool]
    kept = torch.ones_like(top)
    for _ in range(ROUNDS):
        kept = 1 - (kept[..., None] * hides).amax(1)
    top = top * kept
    top, order = top.topk(count, dim=1)
    chosen = own.gather(1, order[..., None].expand(-1, -1, 4))
    # Which of the cells without heat fill up the rest is left to the runtime; their boxes must not tell.
    return top, chosen * (top > 0)[..., None].to(chosen.dtype)


def overlaps(one: Tensor, other: Tensor) -> Tensor:
    """IoU of each pair of boxes: [B, P, 4], [B, Q, 4] -> [B, P, Q]."""
    low = torch.maximum(one[:, :, None, :2], other[:, None, :, :2])
    high = torch.minimum(one[:, :, None, 2:], other[:, None, :, 2:])
    shared = (high - low).clamp(min=0)
    shared = shared[..., 0] * shared[..., 1]
    return shared / (_area(one)[:, :, None] + _area(other)[:, None] - shared + 1e-6)


def _area(boxes: Tensor) -> Tensor:
    sides = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


@constant
def hotter(count: int, device: torch.device) -> Tensor:
    """True where the row comes before the column: [count, count]."""
    return torch.ones(count, count, dtype=torch.bool, device=device).triu(1)


def painted(boxes: Tensor, weights: Tensor, side: int) -> Tensor:
    """[B, K, 4], [B, K] -> [B, side, side]: at each cell the greatest weight of the boxes over it.

    Edges are soft over about a cell.
    """
    centres = cell_centres(side, boxes.device, boxes.dtype)
    x = ((centres - boxes[..., 0:1]) * 2 * side).sigmoid() * (
        (boxes[..., 2:3] - centres) * 2 * side
    ).sigmoid()
    y = ((centres - boxes[..., 1:2]) * 2 * side).sigmoid() * (
        (boxes[..., 3:4] - centres) * 2 * side
    ).sigmoid()
    return (y[..., :, None] * x[..., None, :] * weights[..., None, None]).amax(1)


@constant
def cell_centres(side: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Centres of the cells of an axis as shares of it, [side]."""
    return (torch.arange(side, device=device, dtype=dtype) + 0.5) / side


def box_of(mask: Tensor, cut: float) -> Tensor:
    """The box around the logits above `cut`: [B, h, w] -> left, top, right, bottom as shares, [B, 4].

    Where none is above it, the box around the greatest logit's cell. Gradients do not pass.
    """
    _, rows, columns = static_shape(mask)
    mask = mask.detach()
    inside = (mask > torch.minimum(mask.amax((1, 2), keepdim=True) - 1e-4, mask.new_full((), cut))).to(
        mask.dtype
    )
    sides = []
    for length, profile in ((columns, inside.amax(1)), (rows, inside.amax(2))):
        last = (profile * cell_numbers(length, mask.device, mask.dtype)).amax(1)
        first = (profile * (length + 1 - cell_numbers(length, mask.device, mask.dtype))).amax(1)
        sides.append((1 - first / length, last / length))
    (left, right), (top, bottom) = sides
    return torch.stack([left, top, right, bottom], 1)


def box_around(boxes: Tensor, weights: Tensor, spare: Tensor) -> Tensor:
    """The box around those boxes that weigh a half or more, or the greatest weight if none does.

    boxes [B, K, 4], weights [B, K] in [0, 1], 0 where there is no box; `spare` [B, 4] where there is none at
    all -> [B, 4]. Gradients do not pass.
    """
    weights, boxes = weights.detach(), boxes.detach()
    most = weights.amax(1, keepdim=True)
    chosen = (weights >= torch.minimum(most, most.new_full((), 0.5))) & (weights > 0)  # [B, K]
    low = torch.where(chosen[..., None], boxes[..., :2], torch.ones_like(boxes[..., :2])).amin(1)
    high = torch.where(chosen[..., None], boxes[..., 2:], torch.zeros_like(boxes[..., 2:])).amax(1)
    return torch.where(most > 0, torch.cat([low, high], 1), spare)


@constant
def cell_numbers(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """1, 2, … length"""
    return torch.arange(1, length + 1, device=device, dtype=dtype)


class BoxCode(nn.Module):
    """A box as numbers that a linear layer can compare: its corners, centre and size, and waves of them."""

    width = 9 + 4 * 2 * FREQUENCIES

    def forward(self, boxes: Tensor) -> Tensor:
        """[B, K, 4] -> [B, K, width]"""
        low, high = boxes[..., :2], boxes[..., 2:]
        centre, size = (low + high) / 2, (high - low).clamp(min=1e-3)
        shape = torch.cat([centre, size], -1)  # [B, K, 4]
        area = (size[..., :1] * size[..., 1:]).clamp(min=1e-4).sqrt()
        angles = (shape[..., None] * waves(boxes.device, boxes.dtype)).reshape(
            -1, static_shape(boxes)[1], 4 * FREQUENCIES
        )
        return torch.cat([boxes, shape, area, angles.sin(), angles.cos()], -1)


@constant
def waves(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Angular frequencies π, 2π, 4π, …"""
    return math.pi * 2.0 ** torch.arange(FREQUENCIES, device=device, dtype=dtype)


STEEP = 40.0
"""Slope of a comparison of two positions: it is decided from a tenth of the picture on."""


def comparisons(boxes: Tensor, heat: Tensor) -> Tensor:
    """How each box stands among the hot ones: [B, K, 4], [B, K] -> [B, K, 6].

    The heat, as a share of the greatest, of the other boxes that are left of it, right of it, above, below,
    smaller and larger: so the leftmost has 0 in the first place, and the second from the left about 1.
    """
    share = heat / (heat.amax(1, keepdim=True) + 1e-6)
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    side = (size[..., :1] * size[..., 1:]).clamp(min=1e-6).sqrt()
    values = torch.cat([centre, side], -1).transpose(1, 2)  # [B, 3, K]
    less = ((values[..., :, None] - values[..., None, :]) * STEEP).sigmoid()  # row more than column
    others = share[:, None, None, :] * apart(static_shape(heat)[1], heat.device, heat.dtype)
    before, after = (less * others).sum(-1), ((1 - less) * others).sum(-1)  # [B, 3, K]
    return torch.cat([before, after], 1).transpose(1, 2)


@constant
def apart(count: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """0 where row and column are the same, else 1: [count, count]."""
    return 1 - torch.eye(count, device=device, dtype=dtype)


def offsets(boxes: Tensor, reference: Tensor, heat: Tensor) -> Tensor:
    """How each box stands to the hottest reference: [B, K, 4], [B, R, 4] and its heat [B, R], hottest first
    -> [B, K, 6]: centre less centre, gaps across and down, overlap, and the heat of the reference.
    """
    other, hot = reference[:, :1], heat[:, :1, None]
    shift = (boxes[..., :2] + boxes[..., 2:] - other[..., :2] - other[..., 2:]) / 2
    gap = torch.maximum(boxes[..., :2] - other[..., 2:], other[..., :2] - boxes[..., 2:]).clamp(min=0)
    values = torch.cat([shift, gap, overlaps(boxes, other)], -1) * (hot > 0).to(boxes.dtype)
    return torch.cat([values, hot + 0 * values[..., :1]], -1)
