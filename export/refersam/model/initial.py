"""Initial values of the parts that no checkpoint fills, and a livelier start for small models."""

from __future__ import annotations

import math

import torch
from torch import nn

from .adapter import VLAdapter
from .deformable import DeformableAttention


def initialise_adapter(adapter: VLAdapter) -> None:
    """Everything of the adapter but the image encoder in it, which keeps SAM's own initial values."""
    for name, child in adapter.named_children():
        if name != "vis_model":
            initialise(child)
    for embed in (adapter.level_embed, adapter.level_embed_prompter):
        nn.init.normal_(embed)


def initialise(module: nn.Module) -> None:
    """Linear layers N(0, 0.02²) cut at ±2, convolutions N(0, 2 / fan-out), biases 0.

    Embeddings keep the N(0, 1) they are made with.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02, a=-2.0, b=2.0)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Conv2d):
            fan_out = part.kernel_size[0] * part.kernel_size[1] * part.out_channels
            nn.init.normal_(part.weight, std=math.sqrt(2 / fan_out))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for part in module.modules():
        if isinstance(part, DeformableAttention):
            _initialise_deformable(part)


def _initialise_deformable(attention: DeformableAttention) -> None:
    """Each head starts looking in a direction of its own, point p at p pixels; all points weigh the same."""
    nn.init.zeros_(attention.sampling_offsets.weight)
    angle = torch.arange(attention.heads) * (2 * math.pi / attention.heads)
    direction = torch.stack([angle.cos(), angle.sin()], -1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    distance = torch.arange(1, attention.points + 1)
    star = direction[:, None, None] * distance[:, None]
    star = star.expand(-1, attention.levels, -1, -1).flatten()
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(star)
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
    for linear in (attention.value_proj, attention.output_proj):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)


def enliven(model: nn.Module) -> None:
    """Starts a small model livelier than the published values, which suit a pretrained SAM.

    Matrices get 0.7 / sqrt(fan in) instead of 0.02, position tables 0.02 instead of 0, and the injectors'
    gamma 0.1 instead of 1e-6, which lets the stages matter to each other from the first step. Words start
    at 0, so one that training never shows says nothing, and a vocabulary packs to little when training
    shows few of its words. It overwrites whatever a checkpoint has filled, so it comes before any is read.
    """
    for name, parameter in model.named_parameters():
        if "sampling_offsets" in name or "attention_weights" in name:
            continue
        if name.endswith("weight") and parameter.ndim == 2 and "embedding" not in name:
            if not any(part in name for part in ("prompts", "prompt_pos", "tokens", "embed.")):
                nn.init.normal_(parameter, std=0.7 / math.sqrt(parameter.shape[1]))
        elif name.endswith(("word_embeddings.weight", "token_embedding.weight")):
            nn.init.zeros_(parameter)
        elif name.endswith("pos_embed"):
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("injector.gamma"):
            nn.init.constant_(parameter, 0.1)
