"""SAM's mask decoder: a two-way transformer between prompt tokens and image tokens."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attention
from .config import DecoderConfig
from .folding import static_shape
from .layers import LayerNorm2d, SamFeedForward, masks_of, to_map, to_tokens


class MaskDecoder(nn.Module):
    """Tokens in order: IoU, mask hypotheses, sparse prompts. Only hypothesis 0 is ever an answer."""

    def __init__(self, config: DecoderConfig):
        super().__init__()
        width = config.width
        self.hypotheses = config.mask_tokens
        self.transformer = TwoWayTransformer(config)
        self.iou_token = nn.Embedding(1, width)
        self.mask_tokens = nn.Embedding(config.mask_tokens, width)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(width, width // 4, 2, stride=2),
            LayerNorm2d(width // 4),
            nn.GELU(),
            nn.ConvTranspose2d(width // 4, width // 8, 2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            Perceptron((width, width, width, width // 8)) for _ in range(config.mask_tokens)
        )
        hidden = (config.iou_hidden,) * (config.iou_depth - 1)
        self.iou_prediction_head = Perceptron((width, *hidden, config.mask_tokens))

    def forward(self, image: Tensor, image_position: Tensor, sparse: Tensor, dense: Tensor) -> Tensor:
        """Image embedding [B, C, h, w], its position code [1, C, h, w], prompts [B, P, C] and [B, C, h, w]
        -> logits [B, 1, H/4, W/4]. P may be 0.
        """
        tokens, upscaled = self._decode(image, image_position, sparse, dense)
        return self._mask(tokens, upscaled, 0)

    def all_hypotheses(
        self, image: Tensor, image_position: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits [B, 4, H/4, W/4] and IoU predictions [B, 4].

        ReferSAM trains neither hypotheses 1 to 3 nor the IoU head: their values mean nothing.
        """
        tokens, upscaled = self._decode(image, image_position, sparse, dense)
        masks = torch.cat([self._mask(tokens, upscaled, index) for index in range(self.hypotheses)], 1)
        return masks, self.iou_prediction_head(tokens[:, 0])

    def _decode(
        self, image: Tensor, image_position: Tensor, sparse: Tensor, dense: Tensor
    ) -> tuple[Tensor, Tensor]:
        _, _, height, width = static_shape(image)
        own = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        keys = to_tokens(image + dense)
        # Adding a zero slice of the keys carries the batch size without a shape computation in the graph.
        tokens = own + 0 * keys[:, :1]
        # An export of a model without sparse prompts must not read an empty tensor: Triton knows none.
        if static_shape(sparse)[1]:
            tokens = torch.cat([tokens, sparse], 1)
        tokens, keys = self.transformer(tokens, keys, to_tokens(image_position))
        return tokens, self.output_upscaling(to_map(keys, (height, width)))

    def _mask(self, tokens: Tensor, upscaled: Tensor, index: int) -> Tensor:
        weights = self.output_hypernetworks_mlps[index](tokens[:, 1 + index : 2 + index])
        return masks_of(weights, upscaled)


class TwoWayTransformer(nn.Module):
    def __init__(self, config: DecoderConfig):
        super().__init__()
        self.layers = nn.ModuleList(TwoWayLayer(config, first=index == 0) for index in range(config.depth))
        self.final_attn_token_to_image = _cross_attention(config)
        self.norm_final_attn = nn.LayerNorm(config.width)

    def forward(self, tokens: Tensor, image: Tensor, image_position: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 5 + P, C], [B, N, C], [1, N, C] -> tokens and image tokens.

        The tokens as given also serve as their own positions.
        """
        position = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, position, image_position)
        read = self.final_attn_token_to_image(tokens + position, image + image_position, image)
        return self.norm_final_attn(tokens + read), image


class TwoWayLayer(nn.Module):
    """Tokens attend themselves and the image, then the image attends the tokens.

    In the first layer the tokens are their own positions, so its self-attention adds none and replaces the
    tokens instead of adding to them.
    """

    def __init__(self, config: DecoderConfig, first: bool):
        super().__init__()
        width = config.width
        self.first = first
        self.self_attn = Attention(width, width, width, config.heads)
        self.cross_attn_token_to_image = _cross_attention(config)
        self.mlp = SamFeedForward(width, config.mlp_width, F.relu)
        self.cross_attn_image_to_token = _cross_attention(config)
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.LayerNorm(width) for _ in range(4))

    def forward(
        self, tokens: Tensor, image: Tensor, position: Tensor, image_position: Tensor
    ) -> tuple[Tensor, Tensor]:
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens)
        else:
            query = tokens + position
            tokens = tokens + self.self_attn(query, query, tokens)
        tokens = self.norm1(tokens)

        image_keys = image + image_position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + position, image_keys, image))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(image_keys, tokens + position, tokens))
        return tokens, image


class Perceptron(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, widths: tuple[int, ...]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


def _cross_attention(config: DecoderConfig) -> Attention:
    width = config.width
    return Attention(width, width, width // config.attention_downsample, config.heads)
