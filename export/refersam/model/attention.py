"""Multi-head attention with explicit products.

`scaled_dot_product_attention` is left out on purpose: some TensorRT releases fuse its exported form into
FP16 kernels with wrong results. The scale is applied to the queries, before the product, for FP16's range.
"""

from __future__ import annotations

from torch import Tensor, nn

from .folding import static_shape


class Attention(nn.Module):
    """Queries of one width attend keys and values of another, at an inner width split over the heads."""

    def __init__(self, query_width: int, key_width: int, inner_width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.scale = (inner_width // heads) ** -0.5
        self.q_proj = nn.Linear(query_width, inner_width)
        self.k_proj = nn.Linear(key_width, inner_width)
        self.v_proj = nn.Linear(key_width, inner_width)
        self.out_proj = nn.Linear(inner_width, query_width)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
        """[B, Q, query_width], [B, K, key_width] twice -> [B, Q, query_width].

        `mask` [B, K] is true where a key may be attended. A sample without any such key gives NaN.
        """
        scores = self._scores(query, key)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None, :], float("-inf"))
        return self._merge(scores.softmax(-1) @ self._split(self.v_proj(value)))

    def _scores(self, query: Tensor, key: Tensor) -> Tensor:
        """[B, heads, Q, K]"""
        queries = self._split(self.q_proj(query) * self.scale)
        return queries @ self._split(self.k_proj(key)).transpose(-1, -2)

    def _split(self, x: Tensor) -> Tensor:
        """[B, N, inner] -> [B, heads, N, inner / heads]"""
        _, length, inner = static_shape(x)
        return x.reshape(-1, length, self.heads, inner // self.heads).transpose(1, 2)

    def _merge(self, x: Tensor) -> Tensor:
        """[B, heads, N, inner / heads] -> [B, N, query_width]"""
        _, heads, length, width = static_shape(x)
        return self.out_proj(x.transpose(1, 2).reshape(-1, length, heads * width))


class LevelAttention(Attention):
    """Attention over the adapter's three grids: one softmax a grid, mixed with weights from the query."""

    def __init__(self, query_width: int, key_width: int, inner_width: int, heads: int, levels: int = 3):
        super().__init__(query_width, key_width, inner_width, heads)
        self.levels = levels
        self.level_weights = nn.Linear(query_width, heads * levels)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, level_tokens: tuple[int, ...]) -> Tensor:
        """`level_tokens` says how many of the K keys belong to each grid, in order."""
        length = static_shape(query)[1]
        weights = self.level_weights(query).reshape(-1, length, self.heads, self.levels).softmax(-1)
        weights = weights.transpose(1, 2)  # [B, heads, Q, levels]
        values = self._split(self.v_proj(value)).split(level_tokens, 2)
        scores = self._scores(query, key).split(level_tokens, 3)
        mixed = sum(
            weights[..., level : level + 1] * (scores[level].softmax(-1) @ values[level])
            for level in range(self.levels)
        )
        return self._merge(mixed)
