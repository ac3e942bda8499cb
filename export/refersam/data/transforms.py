"""How a picture becomes the numbers that the model reads, and logits the size of the picture.

Both are done as the gateway does them.

`stretch` makes both sides as long as the square's. `longest_side_pad` is SAM's: the longest side becomes
that of the square, the aspect ratio stays, and the rest, right of the picture or below, is padding.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

STRETCH = "stretch"
LONGEST_SIDE_PAD = "longest_side_pad"
RULES = (STRETCH, LONGEST_SIDE_PAD)

# ImageNet's mean and standard deviation, on which SAM's encoder was trained. RGB, for pixels in [0, 1].
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

PADDING = (124, 116, 104)
"""RGB of the padding: the bytes that `normalise` brings closest to 0, because SAM pads with 0."""


def inside(height: int, width: int, size: int, rule: str) -> tuple[int, int]:
    """Rows and columns of the square that a picture covers, from the top left."""
    if rule == STRETCH:
        return size, size
    if rule != LONGEST_SIDE_PAD:
        raise ValueError(f"no resize rule {rule!r}, allowed: {', '.join(RULES)}")
    scale = size / max(height, width)
    return max(int(height * scale + 0.5), 1), max(int(width * scale + 0.5), 1)


def square(image: np.ndarray, size: int, rule: str) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size, size, 3], antialiased bilinear."""
    rows, columns = inside(*image.shape[:2], size, rule)
    out = np.full((size, size, 3), PADDING, np.uint8)
    out[:rows, :columns] = Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR)
    return out


def square_map(values: np.ndarray, size: int, rule: str) -> np.ndarray:
    """A mask or a map of labels, bool or integers [H, W] -> [size, size] of the same type.

    Each pixel gets the value nearest to its centre; padding is 0, or false.
    """
    rows, columns = inside(*values.shape, size, rule)
    out = np.zeros((size, size), values.dtype)
    small = values.dtype in (np.bool_, np.uint8)
    image = Image.fromarray(values.astype(np.uint8 if small else np.int32))
    out[:rows, :columns] = image.resize((columns, rows), Image.Resampling.NEAREST)
    return out


def normalise(pixels: Tensor) -> Tensor:
    """What the model reads of pixels: uint8 [B, H, W, 3] -> float32 [B, 3, H, W]."""
    mean = torch.tensor(MEAN, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(STD, device=pixels.device).view(3, 1, 1)
    return (pixels.float().permute(0, 3, 1, 2) / 255 - mean) / std


def upsample(logits: np.ndarray, height: int, width: int, rule: str) -> np.ndarray:
    """float32 [S/4, S/4] -> [height, width], bilinear with aligned corners, without the padding."""
    grid = torch.from_numpy(logits)[None, None]
    if rule == LONGEST_SIDE_PAD:
        size = 4 * len(logits)
        rows, columns = inside(height, width, size, rule)
        grid = _stretch(grid, size, size)[..., :rows, :columns]
    return _stretch(grid, height, width)[0, 0].numpy()


def _stretch(grid: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(grid, (height, width), mode="bilinear", align_corners=True)
