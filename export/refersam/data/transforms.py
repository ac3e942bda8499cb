"""How a picture becomes the model's square, and logits the size of the picture, as the gateway does it.

`stretch` makes both sides those of the square. `longest_side_pad` is SAM's: the longest side becomes that of
the square, the aspect ratio stays, and the rest, right of the picture or below, is padding.
"""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

STRETCH = "stretch"
LONGEST_SIDE_PAD = "longest_side_pad"
RULES = (STRETCH, LONGEST_SIDE_PAD)

PADDING = (124, 116, 104)
"""RGB of the padding: the bytes that `refersam.stages.normalise` brings closest to 0, with which SAM pads."""


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
