"""Weights that anybody can regenerate: a tensor is a function of its key, its shape and a seed.

The rule serves to compare two implementations without shipping weights. Spreads are chosen so that every
part of the model moves the result: attention is sharp, gates are open, no path is near zero. The numbers
come from NumPy's PCG64 seeded with (seed, CRC-32 of the key), so they do not depend on the order of the keys.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

NORMALS = {
    "positional_encoding_gaussian_matrix": (0.0, 1.0),
    "sampling_offsets.bias": (0.0, 1.5),
    "attention_weights.bias": (0.0, 0.5),
    "level_weights.bias": (0.0, 0.5),
    "mask_scaling.weight": (0.5, 0.1),
    "mask_scaling.bias": (0.0, 0.1),
    "injector.gamma": (0.6, 0.2),
    "gamma_v2l": (1.0, 0.2),
    "gamma_l2v": (1.0, 0.2),
    "level_embed": (0.0, 0.5),
    "level_embed_prompter": (0.0, 0.5),
    "rel_pos_h": (0.0, 0.15),
    "rel_pos_w": (0.0, 0.15),
    "vis_model.pos_embed": (0.0, 0.5),
    "lang_prompts.weight": (0.0, 0.7),
    "sparse_prompts.weight": (0.0, 0.7),
    "prompt_pos.weight": (0.0, 0.7),
    "mask_tokens.weight": (0.0, 0.4),
    "iou_token.weight": (0.0, 0.7),
    "no_mask_embed.weight": (0.0, 0.7),
    "not_a_point_embed.weight": (0.0, 0.7),
}
"""Mean and deviation by the ending of the key: tables, gates, and biases that steer sampling."""

GAINS = {
    "sampling_offsets.weight": 1.5,
    "q_proj.weight": 2.0,
    "k_proj.weight": 2.0,
    "query.weight": 2.0,
    "key.weight": 2.0,
    "l2v_cross_attn.out_proj.weight": 0.4,
    "out_proj.weight": 0.5,
    "output_upscaling.3.weight": 2.0,
    "layers.0.weight": 1.5,
    "layers.1.weight": 1.5,
    "layers.2.weight": 1.5,
}
"""Deviation of a matrix times sqrt(fan-in), by the ending of the key; the first match counts, else 1."""


def weight(key: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """float32 values of one entry of a state dict."""
    generator = np.random.default_rng([seed, zlib.crc32(key.encode())])
    noise = generator.standard_normal(shape, dtype=np.float32)
    if "output_hypernetworks_mlps." in key and ".layers.2." in key:
        # Rows in opposite pairs keep the mask logits around zero, so that masks are neither empty nor full.
        noise[1::2] = np.float32(0.3) * noise[1::2] - noise[0::2]
    mean, deviation = _distribution(key, shape)
    scaled = np.float32(deviation) * noise
    return scaled + np.float32(mean) if mean else scaled


def _distribution(key: str, shape: tuple[int, ...]) -> tuple[float, float]:
    for ending, distribution in NORMALS.items():
        if key.endswith(ending):
            return distribution
    if ".embeddings." in key and len(shape) == 2:
        return 0.0, 0.5
    if "point_embeddings." in key:
        return 0.0, 0.7
    if len(shape) <= 1:
        return (0.0, 0.1) if key.endswith(".bias") else (1.0, 0.1)
    # A transposed convolution is stored [in, out, 2, 2]; its windows do not overlap.
    transposed = "output_upscaling." in key and len(shape) == 4
    fan_in = shape[0] if transposed else math.prod(shape[1:])
    gain = next((gain for ending, gain in GAINS.items() if key.endswith(ending)), 1.0)
    return 0.0, gain / math.sqrt(fan_in)


@torch.no_grad()
def fill(state: Mapping[str, Tensor], seed: int) -> None:
    """Overwrites every floating-point tensor of a state dict, in place."""
    for key, tensor in state.items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(weight(key, tuple(tensor.shape), seed)))
