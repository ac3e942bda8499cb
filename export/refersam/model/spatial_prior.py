"""Spatial prior module: a small convolutional pyramid of the picture (Chen et al., "ViT-Adapter", 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .layers import group_norm, to_tokens


class SpatialPrior(nn.Module):
    """Maps at strides 4, 8, 16 and 32; the last three as adapter tokens."""

    def __init__(self, first_width: int, token_width: int):
        super().__init__()
        c = first_width
        self.stem = nn.Sequential(
            *_conv_norm_relu(3, c, stride=2),
            *_conv_norm_relu(c, c),
            *_conv_norm_relu(c, c),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.conv2 = nn.Sequential(*_conv_norm_relu(c, 2 * c, stride=2))
        self.conv3 = nn.Sequential(*_conv_norm_relu(2 * c, 4 * c, stride=2))
        self.conv4 = nn.Sequential(*_conv_norm_relu(4 * c, 4 * c, stride=2))
        self.fc2 = nn.Conv2d(2 * c, token_width, 1)
        self.fc3 = nn.Conv2d(4 * c, token_width, 1)
        self.fc4 = nn.Conv2d(4 * c, token_width, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W] -> the stride-4 map [B, c, H/4, W/4] and the tokens [B, A, D]."""
        c1 = self.stem(image)
        c2 = self.conv2(c1)
        c3 = self.conv3(c2)
        c4 = self.conv4(c3)
        maps = (self.fc2(c2), self.fc3(c3), self.fc4(c4))
        return c1, torch.cat([to_tokens(m) for m in maps], 1)


def _conv_norm_relu(inputs: int, outputs: int, stride: int = 1) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return conv, group_norm(outputs), nn.ReLU()
