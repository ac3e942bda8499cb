import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from refersam.data import transforms
from refersam.data.transforms import normalise

RNG = np.random.default_rng(1)
PICTURE = RNG.integers(0, 256, (50, 33, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size", "want"),
    [
        (480, 640, 448, (336, 448)),
        (500, 333, 448, (448, 298)),
        (2, 7, 100, (29, 100)),
        (1, 16384, 448, (1, 448)),
    ],
)
def test_inside_is_sams(height: int, width: int, size: int, want: tuple[int, int]):
    assert transforms.inside(height, width, size, transforms.LONGEST_SIDE_PAD) == want
    assert transforms.inside(height, width, size, transforms.STRETCH) == (size, size)


def test_unknown_rule():
    with pytest.raises(ValueError, match="stretch, longest_side_pad"):
        transforms.square(PICTURE, 64, "crop")


def test_stretch_takes_the_whole_picture():
    resized = Image.fromarray(PICTURE).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(transforms.square(PICTURE, 64, transforms.STRETCH), np.array(resized))


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64])
def test_a_map_keeps_its_values(dtype: type):
    """Nearest pixel, no value between two; what pads is 0."""
    values = RNG.integers(0, 2 if dtype == np.bool_ else 200, (50, 33)).astype(dtype)
    rows, columns = (np.arange(64) + 0.5) * 50 / 64, (np.arange(64) + 0.5) * 33 / 64
    whole = transforms.square_map(values, 64, transforms.STRETCH)
    assert whole.dtype == dtype
    assert np.array_equal(whole, values[rows.astype(int)[:, None], columns.astype(int)])
    padded = transforms.square_map(values, 64, transforms.LONGEST_SIDE_PAD)
    assert not padded[:, 42:].any()
    assert np.array_equal(transforms.square_map(values[:33], 33, transforms.STRETCH), values[:33])


def test_pad_keeps_the_picture_at_the_top_left():
    square = transforms.square(PICTURE, 64, transforms.LONGEST_SIDE_PAD)
    resized = Image.fromarray(PICTURE).resize((42, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(square[:, :42], np.array(resized))
    assert (square[:, 42:] == transforms.PADDING).all()


def test_padding_is_the_byte_that_normalises_closest_to_zero():
    levels = torch.arange(256, dtype=torch.uint8)[None, :, None, None].expand(1, 256, 1, 3)
    distances = normalise(levels)[0, :, :, 0].abs()
    assert tuple(distances.argmin(1).tolist()) == transforms.PADDING
    assert distances.min(1).values.max() < 0.01


def test_upsample_cuts_off_the_padding():
    logits = RNG.normal(size=(16, 16)).astype(np.float32)
    whole = F.interpolate(torch.from_numpy(logits)[None, None], (64, 64), mode="bilinear", align_corners=True)
    want = F.interpolate(whole[..., :42], (50, 33), mode="bilinear", align_corners=True)[0, 0].numpy()
    assert np.array_equal(transforms.upsample(logits, 50, 33, transforms.LONGEST_SIDE_PAD), want)
    want = F.interpolate(torch.from_numpy(logits)[None, None], (50, 33), mode="bilinear", align_corners=True)
    assert np.array_equal(transforms.upsample(logits, 50, 33, transforms.STRETCH), want[0, 0].numpy())
