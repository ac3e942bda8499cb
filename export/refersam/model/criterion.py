"""The published training loss: BCE and Dice on points, most of them where the mask is least certain.

Final logits and coarse logits are both compared with the target, each at points of its own (the sampling is
PointRend's, Kirillov et al. 2020). Points are (x, y) in the unit square, so masks of different resolutions
are compared without resizing either.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from refersam.model import Output

POINTS = 112 * 112
"""Points a mask is compared at."""
OVERSAMPLING = 3
"""Candidates for the uncertain points, as a multiple of POINTS."""
UNCERTAIN_SHARE = 0.75

Uniform = Callable[[int, int], Tensor]
"""(samples, points) -> that many points, uniform in the unit square, [samples, points, 2]."""


def point_criterion(
    output: Output, target: Tensor, points: int = POINTS, uniform: Uniform | None = None
) -> dict[str, Tensor]:
    """`loss_mask` and `loss_dice` of the final mask, `loss_mask_aux` and `loss_dice_aux` of the coarse mask,
    and `total_loss`, their sum.

    target [B, H, W] holds 0 and 1. `uniform` replaces the generator of `target.device`; it is called four
    times: candidates and fresh points of the final mask, then the same of the coarse mask.
    """
    if uniform is None:

        def uniform(samples: int, count: int) -> Tensor:
            return torch.rand(samples, count, 2, device=target.device)

    target = target.to(output.logits.dtype)
    losses = {}
    for suffix, logits in (("", output.logits), ("_aux", output.coarse_logits[:, 0])):
        chosen = choose_points(logits.detach(), points, uniform)
        labels = read(target, chosen)
        read_logits = read(logits, chosen)
        losses[f"loss_mask{suffix}"] = binary_cross_entropy(read_logits, labels)
        losses[f"loss_dice{suffix}"] = dice(read_logits, labels)
    losses["total_loss"] = sum(losses.values())
    return losses


@torch.no_grad()
def choose_points(logits: Tensor, points: int, uniform: Uniform) -> Tensor:
    """[B, H, W] -> [B, points, 2]: the least certain of the candidates, then fresh ones."""
    samples = logits.shape[0]
    candidates = uniform(samples, OVERSAMPLING * points)
    uncertain = int(UNCERTAIN_SHARE * points)
    order = read(logits, candidates).abs().topk(uncertain, dim=1, largest=False).indices
    kept = candidates.gather(1, order[..., None].expand(-1, -1, 2))
    return torch.cat([kept, uniform(samples, points - uncertain)], 1)


def read(maps: Tensor, points: Tensor) -> Tensor:
    """Values of [B, H, W] at [B, N, 2] -> [B, N]: bilinear, half-pixel centred, zero outside."""
    grid = 2 * points[:, None] - 1
    values = F.grid_sample(maps[:, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return values[:, 0, 0]


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over points, then over samples, of [B, N]."""
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(1).mean()


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over samples of 1 - (2 Σpt + 1) / (Σp + Σt + 1), of [B, N]."""
    p = logits.sigmoid()
    overlap = 2 * (p * labels).sum(1) + 1
    return (1 - overlap / (p.sum(1) + labels.sum(1) + 1)).mean()
