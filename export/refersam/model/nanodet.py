"""NanoDet with a CSP backbone, a detector of COCO's 80 classes, read for its class scores and boxes.

RangiLyu/nanodet. Its parts: a CSP backbone (Wang et al., "CSPNet", 2020), a path-aggregation network
that only adds, and a head per stride whose boxes are distributions over distances (Li et al.,
"Generalized Focal Loss", 2020). BatchNorms are folded into the convolutions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .folding import constant, static_shape
from .grid import pixel_centres

CLASSES = 80
BINS = 11
"""Distances 0 to 10, in units of the stride, that a side of a box is a mean of."""
STRIDES = (8, 16, 32)
SLOPE = 0.1
"""Of every leaky ReLU."""


class Detections(NamedTuple):
    """Cells of strides 8, 16 and 32 one after the other, row by row: N is 21/1024 of the pixels."""

    scores: Tensor
    """[B, 80, N]: logits of the classes."""
    boxes: Tensor
    """[B, 4, N]: left, top, right and bottom as shares of the picture's sides; may reach outside."""


class NanoDet(nn.Module):
    def __init__(self, width: int = 128):
        super().__init__()
        self.stem = _conv(3, 32, 3, 2)
        self.stage1 = CspStage(32, 32, pairs=1, stride=1)
        self.stage2 = CspStage(64, 64, pairs=2, stride=2)
        self.stage3 = CspStage(128, 128, pairs=2, stride=2)
        self.stage4 = CspStage(256, 256, pairs=3, stride=2)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (128, 256, 512))
        self.heads = nn.ModuleList(
            nn.Sequential(
                _conv(width, width, 3), nn.LeakyReLU(SLOPE), nn.Conv2d(width, CLASSES + 4 * BINS, 1)
            )
            for _ in STRIDES
        )

    def forward(self, image: Tensor) -> Detections:
        """[B, 3, H, W], BGR, normalised (`normalise_bgr`), H and W multiples of 32 -> scores and boxes."""
        maps = self.maps(image)
        scores = torch.cat([_cells(level[:, :CLASSES]) for level in maps], 2)
        boxes = torch.cat([_boxes(level[:, CLASSES:], static_shape(image)[2:]) for level in maps], 2)
        return Detections(scores, boxes)

    def maps(self, image: Tensor) -> list[Tensor]:
        """The heads' own outputs, stride by stride: [B, 80 + 4·11, h, w], classes first."""
        x = F.leaky_relu(self.stem(image), SLOPE)
        x = self.stage1(F.max_pool2d(x, 3, 2, padding=1))
        stages = []
        for stage in (self.stage2, self.stage3, self.stage4):
            x = stage(x)
            stages.append(x)
        p3, p4, p5 = (layer(stage) for layer, stage in zip(self.lateral, stages, strict=True))
        p4 = p4 + _resize(p5, 2.0)
        p3 = p3 + _resize(p4, 2.0)
        n4 = p4 + _resize(p3, 0.5)
        n5 = p5 + _resize(n4, 0.5)
        return [head(level) for head, level in zip(self.heads, (p3, n4, n5), strict=True)]


class CspStage(nn.Module):
    """Pairs of convolutions, each joined with its own first half, and a way around them all."""

    def __init__(self, inputs: int, width: int, pairs: int, stride: int):
        super().__init__()
        self.first = _conv(inputs, width, 3, stride)
        self.pairs = nn.ModuleList(
            nn.ModuleList([_conv(width, width // 2, 3), _conv(width // 2, width // 2, 3)])
            for _ in range(pairs)
        )
        self.last = _conv(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, h, w] -> [B, 2·width, h / stride, w / stride]"""
        x = around = F.leaky_relu(self.first(x), SLOPE)
        for one, two in self.pairs:
            half = F.leaky_relu(one(x), SLOPE)
            x = torch.cat([F.leaky_relu(two(half), SLOPE), half], 1)
        return torch.cat([F.leaky_relu(self.last(x), SLOPE), around], 1)


def normalise_bgr(pixels: Tensor) -> Tensor:
    """RGB values of 0 to 255, [B, 3, H, W], as NanoDet reads them."""
    mean = torch.tensor((103.53, 116.28, 123.675), device=pixels.device).view(3, 1, 1)
    std = torch.tensor((57.375, 57.12, 58.395), device=pixels.device).view(3, 1, 1)
    blue_first = torch.cat([pixels[:, 2:], pixels[:, 1:2], pixels[:, :1]], 1)
    return (blue_first - mean) / std


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def _resize(x: Tensor, factor: float) -> Tensor:
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def _cells(level: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, h·w]"""
    _, channels, rows, columns = static_shape(level)
    return level.reshape(-1, channels, rows * columns)


def _boxes(level: Tensor, size: tuple[int, ...]) -> Tensor:
    """[B, 4·11, h, w] -> [B, 4, h·w]: the centre of each cell less or plus the mean distances."""
    _, _, rows, columns = static_shape(level)
    weights = level.reshape(-1, 4, BINS, rows * columns).softmax(2)
    bins = distances(level.device, level.dtype)
    cells = (weights * bins).sum(2)  # [B, 4, h·w], in cells
    sides, centres = frame(rows, columns, level.device, level.dtype)
    return centres + cells * sides


@constant
def distances(device: torch.device, dtype: torch.dtype) -> Tensor:
    """0, 1, … 10 as [11, 1]"""
    return torch.arange(BINS, device=device, dtype=dtype)[:, None]


@constant
def frame(rows: int, columns: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What a distance of one cell means for left, top, right and bottom, [4, 1], and the cells' centres for
    each of these, [4, rows·columns].
    """
    sides = torch.tensor([-1 / columns, -1 / rows, 1 / columns, 1 / rows], device=device, dtype=dtype)
    centres = pixel_centres(((rows, columns),), device, dtype).t()
    return sides[:, None], torch.cat([centres, centres])
