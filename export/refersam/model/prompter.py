"""A layer of the Vision-Language Prompter."""

from __future__ import annotations

from torch import Tensor, nn

from .attention import Attention, LevelAttention
from .layers import FeedForward, layer_norm


class PromptLayer(nn.Module):
    """Prompt tokens attend themselves, the picture and the text, each followed by a post-norm."""

    def __init__(self, width: int, heads: int, ratio: int, levels: int = 3):
        super().__init__()
        self.p_self_attn = Attention(width, width, width, heads)
        self.p2v_cross_attn = LevelAttention(width, width, width, heads, levels)
        self.p2l_cross_attn = Attention(width, width, width, heads)
        self.prompt_mlp = FeedForward(width, width * ratio)
        self.norm1, self.norm2 = layer_norm(width), layer_norm(width)
        self.norm3, self.norm4 = layer_norm(width), layer_norm(width)

    def forward(
        self,
        tokens: Tensor,
        position: Tensor,
        adapter: Tensor,
        adapter_keys: Tensor,
        lang: Tensor,
        mask: Tensor,
        level_tokens: tuple[int, ...],
    ) -> Tensor:
        """[B, 1 + P, C] -> [B, 1 + P, C].

        `position` [1 + P, C] joins queries and keys of the prompt tokens. `adapter` [B, A, C] are values,
        `adapter_keys` the same with their position code; `lang` [B, L, C] with its bool mask [B, L].
        """
        query = tokens + position
        tokens = self.norm1(tokens + self.p_self_attn(query, query, tokens))
        tokens = self.norm2(
            tokens + self.p2v_cross_attn(tokens + position, adapter_keys, adapter, level_tokens)
        )
        tokens = self.norm3(tokens + self.p2l_cross_attn(tokens + position, lang, lang, mask))
        return self.norm4(tokens + self.prompt_mlp(tokens))
