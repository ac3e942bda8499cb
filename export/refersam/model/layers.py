"""Layers that several parts of the model share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from .folding import static_shape

NORM_EPS = 1e-6
"""Of every norm but the two-way transformer's and the text encoders'."""


class LayerNorm2d(nn.LayerNorm):
    """LayerNorm over the channels of [B, C, H, W].

    Written with `layer_norm` on the permuted map so that an export holds one LayerNormalization node,
    which runtimes know to keep in FP32; the spelt-out mean and square overflow in FP16.
    """

    def __init__(self, channels: int):
        super().__init__(channels, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def layer_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=NORM_EPS)


def group_norm(channels: int) -> nn.GroupNorm:
    """One group: mean and variance over channels and pixels of each sample together."""
    return nn.GroupNorm(1, channels, eps=NORM_EPS)


def to_map(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """[B, N, C] -> [B, C, rows, columns].

    Like every reshape of the model it leaves the batch to be inferred: `flatten` and `unflatten` would
    write the batch size of the trace into an export.
    """
    return tokens.transpose(1, 2).reshape(-1, static_shape(tokens)[2], *size)


def to_tokens(maps: Tensor) -> Tensor:
    """[B, C, rows, columns] -> [B, N, C]"""
    _, channels, rows, columns = static_shape(maps)
    return maps.reshape(-1, channels, rows * columns).transpose(1, 2)


def masks_of(queries: Tensor, features: Tensor) -> Tensor:
    """[B, K, C], [B, C, rows, columns] -> [B, K, rows, columns]: a plain product, no scale and no bias."""
    _, channels, rows, columns = static_shape(features)
    product = queries @ features.reshape(-1, channels, rows * columns)
    return product.reshape(-1, static_shape(queries)[1], rows, columns)


class FeedForward(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class SamFeedForward(nn.Module):
    """The same with SAM's names, and the activation of the caller's choice."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor]):
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(self.activation(self.lin1(x)))
