"""The frozen image side of the photo variants: three pretrained networks that look at one picture.

TinyViT gives what SAM's decoder reads and the levels of the adapter, EfficientNet-Lite0 stands in for the
spatial prior, NanoDet gives what is where: scores of COCO's classes and a box per cell.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .efficientnet_lite import CLASSES as LITE_CLASSES
from .efficientnet_lite import LAST, MIDDLE, EfficientNetLite0
from .layers import to_tokens
from .nanodet import CLASSES as DETECTOR_CLASSES
from .nanodet import NanoDet, normalise_bgr
from .tiny_vit import WIDTHS, TinyViT

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the pixels that arrive here (ImageNet's); each network has its own and gets them from these."""

CHANNELS = {
    "tiny8": WIDTHS[1],
    "tiny16": WIDTHS[2],
    "tiny_last": WIDTHS[3],
    "embedding": 256,
    "lite16": MIDDLE,
    "lite32": LAST,
}
"""Channels of the maps, by their field of `PhotoFeatures`."""

CLASSES = (DETECTOR_CLASSES, LITE_CLASSES)


class PhotoFeatures(NamedTuple):
    """All that the frozen networks say of a picture, N cells of strides 8, 16 and 32 in a row."""

    tiny8: Tensor
    """[B, 128, H/8, W/8]"""
    tiny16: Tensor
    """[B, 160, H/16, W/16]"""
    tiny_last: Tensor
    """[B, 320, H/16, W/16]"""
    embedding: Tensor
    """[B, 256, H/16, W/16]"""
    lite16: Tensor
    """[B, 112, H/16, W/16]"""
    lite32: Tensor
    """[B, 1280, H/32, W/32]"""
    scores: Tensor
    """[B, 80, N]: logits of COCO's classes."""
    boxes: Tensor
    """[B, 4, N]: left, top, right, bottom, as shares of the sides."""


class PhotoEncoders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tiny_vit = TinyViT()
        self.lite = EfficientNetLite0()
        self.nanodet = NanoDet()

    def forward(self, image: Tensor) -> PhotoFeatures:
        """[B, 3, H, W], normalised with MEAN and STD, H and W multiples of 32."""
        mean = torch.tensor(MEAN, device=image.device).view(3, 1, 1) * 255
        std = torch.tensor(STD, device=image.device).view(3, 1, 1) * 255
        pixels = image * std + mean
        tiny = self.tiny_vit(image)
        lite = self.lite.maps((pixels - 127) / 128)
        found = self.nanodet(normalise_bgr(pixels))
        return PhotoFeatures(*tiny, *lite, *found)

    def classify(self, lite32: Tensor) -> Tensor:
        """[B, 1280, h, w] -> logits of ImageNet's classes at each cell, [B, 1000, h·w]."""
        return self.lite.classifier(to_tokens(lite32)).transpose(1, 2)
