"""Procedural backgrounds: gradients, noise, stripes, checks, dots and blurred shapes, in one palette each.

Nothing here has an outline like a thing's: shapes are blurred, textures repeat, noise is smooth.
"""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

COARSE = 4
"""Smooth layers are drawn at 1/COARSE of the size and enlarged: they look the same and cost a tenth."""


def make_background(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Paints a background of width × height pixels, RGB. All randomness comes from rng."""
    palette = _palette(rng)
    image = _gradient(rng, palette, width, height)
    kind = rng.random()
    if kind < 0.30:
        image = Image.blend(image, _noise(rng, palette, width, height), rng.uniform(0.3, 0.9))
    elif kind < 0.45:
        image = Image.blend(image, _shapes(rng, palette, width, height), rng.uniform(0.5, 1.0))
    elif kind < 0.75:
        texture = _texture(rng, palette, width, height)
        image = Image.blend(image, texture, rng.uniform(0.2, 0.8))
    elif kind < 0.85:
        image = _horizon(rng, palette, width, height)
    return image


def _palette(rng: np.random.Generator) -> list[Colour]:
    """Four colours around one or two hues, sharing a range of saturation and brightness."""
    hue, spread = rng.random(), rng.choice([0.03, 0.1, 0.4])
    saturation, value = rng.uniform(0.0, 0.75), rng.uniform(0.25, 1.0)
    colours = []
    for h, s, v in rng.uniform(-1, 1, (4, 3)):
        rgb = colorsys.hsv_to_rgb(
            (hue + spread * h) % 1.0,
            float(np.clip(saturation + 0.2 * s, 0, 1)),
            float(np.clip(value + 0.2 * v, 0.1, 1)),
        )
        colours.append(tuple(round(255 * c) for c in rgb))
    return colours


def _gradient(rng: np.random.Generator, palette: list[Colour], width: int, height: int) -> Image.Image:
    grid = np.array(palette, np.uint8)[rng.integers(len(palette), size=(2, 2))]
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def _noise(rng: np.random.Generator, palette: list[Colour], width: int, height: int) -> Image.Image:
    """Smooth noise at two scales."""
    layers = []
    for cells in (rng.integers(3, 8), rng.integers(10, 40)):
        grid = np.array(palette, np.int16)[rng.integers(len(palette), size=(cells, cells))]
        grid += rng.integers(-30, 31, (cells, cells, 1), dtype=np.int16)
        small = Image.fromarray(np.clip(grid, 0, 255).astype(np.uint8))
        small = small.resize((width // COARSE, height // COARSE), Image.Resampling.BICUBIC)
        layers.append(small)
    mixed = Image.blend(layers[0], layers[1], rng.uniform(0.1, 0.6))
    return mixed.resize((width, height), Image.Resampling.BILINEAR)


def _shapes(rng: np.random.Generator, palette: list[Colour], width: int, height: int) -> Image.Image:
    """Ellipses and rectangles, blurred until they have no edge."""
    w, h = width // COARSE, height // COARSE
    small = Image.new("RGB", (w, h), palette[0])
    draw = ImageDraw.Draw(small)
    for i in range(rng.integers(5, 16)):
        x, y, a, b = rng.random(4) * (w, h, w / 3, h / 3)
        paint = draw.ellipse if rng.random() < 0.6 else draw.rectangle
        paint((x - a, y - b, x + a, y + b), fill=palette[i % len(palette)])
    small = small.filter(ImageFilter.BoxBlur(rng.uniform(1.5, 6.0)))
    return small.resize((width, height), Image.Resampling.BILINEAR)


def _texture(rng: np.random.Generator, palette: list[Colour], width: int, height: int) -> Image.Image:
    """Stripes, checks or dots at any angle, with a period of 6 to 50 pixels."""
    angle = rng.uniform(0, np.pi)
    turn = 2 * np.pi / rng.uniform(6, 50)
    wave = _plane_wave(width, height, turn * np.cos(angle), turn * np.sin(angle))
    kind = rng.random()
    if kind > 0.4:
        across = _plane_wave(width, height, -turn * np.sin(angle), turn * np.cos(angle))
        wave = wave * across if kind < 0.7 else wave + across - 0.7
    sharpness = rng.choice([1.0, 2.0, 20.0])
    blend = np.clip(127.5 + 127.5 * sharpness * wave, 0, 255).astype(np.uint8)
    ink, paper = (Image.new("RGB", (width, height), palette[i]) for i in (0, 1))
    return Image.composite(ink, paper, Image.fromarray(blend))


def _plane_wave(width: int, height: int, dx: float, dy: float) -> np.ndarray:
    """sin(dx · x + dy · y), float32 [height, width], from one row and one column of sines and cosines."""
    x, y = np.arange(width) * dx, np.arange(height) * dy
    rows = np.stack([np.sin(x), np.cos(x)]).astype(np.float32)
    columns = np.stack([np.cos(y), np.sin(y)], axis=1).astype(np.float32)
    return columns @ rows


def _horizon(rng: np.random.Generator, palette: list[Colour], width: int, height: int) -> Image.Image:
    """A wall or sky above, a floor or field below."""
    line = round(height * rng.uniform(0.35, 0.75))
    image = _gradient(rng, palette, width, height)
    image.paste(_noise(rng, _palette(rng), width, height - line), (0, line))
    return image
