"""EfficientNet-Lite0, an ImageNet classifier without squeeze-and-excitation, as a source of maps.

Tan and Le, "EfficientNet" (2019); the Lite family is Google's for mobile devices. BatchNorms are folded into
the convolutions.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

BLOCKS = (
    # expansion, channels, repeats, stride, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)
CLASSES = 1000
MIDDLE, LAST = 112, 1280
"""Channels of the maps at stride 16 and 32."""


class EfficientNetLite0(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = SamePadded(3, 32, 3, 2)
        blocks, width = [], 32
        for expansion, channels, repeats, stride, kernel in BLOCKS:
            for repeat in range(repeats):
                blocks.append(MobileBlock(width, channels, expansion, kernel, 1 if repeat else stride))
                width = channels
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Conv2d(width, LAST, 1)
        self.classifier = nn.Linear(LAST, CLASSES)

    def maps(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 3, H, W], RGB as (byte - 127) / 128, H and W multiples of 32
        -> [B, 112, H/16, W/16] and [B, 1280, H/32, W/32].
        """
        x = F.relu6(self.stem(image))
        middle = x
        for block in self.blocks:
            if block.stride == 2:
                middle = x
            x = block(x)
        return middle, F.relu6(self.head(x))

    def forward(self, image: Tensor) -> Tensor:
        """The same -> logits of the classes, [B, 1000]."""
        return self.classifier(self.maps(image)[1].mean((2, 3)))


class SamePadded(nn.Conv2d):
    """Convolution with TensorFlow's padding: at stride 2, more at the end of a side than at its start."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups)
        before = (kernel - stride) // 2
        after = kernel - stride - before
        self.around = (before, after, before, after)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, self.around))


class MobileBlock(nn.Module):
    """Inverted bottleneck; the first one of the network has no expansion."""

    def __init__(self, inputs: int, outputs: int, expansion: int, kernel: int, stride: int):
        super().__init__()
        inner = inputs * expansion
        self.stride = stride
        self.residual = stride == 1 and inputs == outputs
        self.expand = nn.Conv2d(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SamePadded(inner, inner, kernel, stride, groups=inner)
        self.project = nn.Conv2d(inner, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.expand(x)) if self.expand is not None else x
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.residual else y
