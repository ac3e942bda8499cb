"""Text encoders: `BertModel` and `CLIPTextModel` of transformers, built from a config, never downloaded.

The wrappers take the parts of those models and call them in order, for two reasons. Their state-dict keys
stay those of the classic layout (`embeddings…`, `text_model.embeddings…`) whichever version is installed,
and the attention mask is built here in a form that traces to plain ONNX and is safe in FP16.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel, CLIPTextConfig, CLIPTextModel

from .config import TextConfig
from .folding import constant, static_shape

MASKED = -1e4
"""Added to a masked score: exactly 0 after the softmax, and within FP16's range where -inf or FP32's minimum
become NaN."""


def build_text_encoder(config: TextConfig) -> nn.Module:
    """A module of (input_ids [B, L], bool mask [B, L]) -> last hidden state [B, L, width]."""
    return BertText(config) if config.kind == "bert" else ClipText(config)


class BertText(nn.Module):
    def __init__(self, config: TextConfig):
        super().__init__()
        bert = BertModel(
            BertConfig(
                vocab_size=config.vocab,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.ffn,
                max_position_embeddings=config.positions,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                layer_norm_eps=1e-12,
                hidden_act="gelu",
                attn_implementation="eager",
            )
        )
        self.embeddings = bert.embeddings
        self.encoder = bert.encoder
        self.pooler = bert.pooler  # never run; its entries belong to the checkpoints

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        bias = (~mask)[:, None, None].to(self.embeddings.word_embeddings.weight.dtype) * MASKED
        return self.encoder(self.embeddings(input_ids), attention_mask=bias).last_hidden_state


class ClipText(nn.Module):
    """Causal; the state returned has passed the final LayerNorm and no projection."""

    def __init__(self, config: TextConfig):
        super().__init__()
        clip = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=config.vocab,
                hidden_size=config.width,
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                intermediate_size=config.ffn,
                max_position_embeddings=config.positions,
                attention_dropout=config.dropout,
                layer_norm_eps=1e-5,
                hidden_act="quick_gelu",
                attn_implementation="eager",
            )
        )
        # transformers 4 keeps the encoder one level deeper than transformers 5.
        parts = getattr(clip, "text_model", clip)
        self.text_model = nn.ModuleDict(
            {name: getattr(parts, name) for name in ("embeddings", "encoder", "final_layer_norm")}
        )

    def forward(self, input_ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.text_model["embeddings"](input_ids)
        masked = causal_mask(static_shape(input_ids)[1], input_ids.device) | (~mask)[:, None, None]
        bias = masked.to(hidden.dtype) * MASKED
        hidden = self.text_model["encoder"](inputs_embeds=hidden, attention_mask=bias).last_hidden_state
        return self.text_model["final_layer_norm"](hidden)


@constant
def causal_mask(length: int, device: torch.device) -> Tensor:
    """True where the key comes after the query: [query, key]."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
