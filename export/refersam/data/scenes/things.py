"""The things that scenes are made of: colour-emoji glyphs and what people call them.

The glyphs are rendered from Noto Color Emoji (SIL Open Font License 1.1), which is read from the machine and
is not part of this repository.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT_VARIABLE = "REFERSAM_EMOJI_FONT"
DEFAULT_FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_PACKAGE = "fonts-noto-color-emoji"

STRIKE = 109
"""The only pixel size of the font's bitmaps; each is 136 × 128 pixels."""

VARIATION_SELECTOR_16 = "\ufe0f"


@dataclass(frozen=True)
class Thing:
    """One kind of thing.

    `names` and `plurals` run in parallel, the most usual first. No two things share a name or a plural,
    else a phrase could mean both.
    """

    glyph: str
    names: tuple[str, ...]
    plurals: tuple[str, ...]

    @property
    def name(self) -> str:
        """The most usual name."""
        return self.names[0]


def _plural(name: str) -> str:
    return name + ("es" if name.endswith(("s", "x", "ch", "sh")) else "s")


def _thing(glyph: str, *names: str) -> Thing:
    """Makes a thing from its names; an irregular plural follows its name after a bar."""
    singulars = tuple(name.partition("|")[0] for name in names)
    plurals = tuple(name.partition("|")[2] or _plural(name) for name in names)
    return Thing(glyph, singulars, plurals)


THINGS: tuple[Thing, ...] = (
    # animals
    _thing("🐕", "dog", "puppy|puppies", "doggy|doggies"),
    _thing("🐈", "cat", "kitty|kitties", "kitten"),
    _thing("🦆", "duck", "mallard"),
    _thing("🐘", "elephant"),
    _thing("🦒", "giraffe"),
    _thing("🐎", "horse", "pony|ponies", "brown horse"),
    _thing("🐄", "cow", "dairy cow"),
    _thing("🐖", "pig", "piglet", "hog"),
    _thing("🐑", "sheep|sheep", "lamb"),
    _thing("🐇", "rabbit", "bunny|bunnies", "hare"),
    _thing("🐓", "rooster", "chicken", "cock"),
    _thing("🐢", "turtle", "tortoise"),
    _thing("🐸", "frog", "frog face", "toad"),
    _thing("🐠", "fish|fish", "tropical fish|tropical fish"),
    _thing("🐳", "whale"),
    _thing("🐙", "octopus", "squid"),
    _thing("🦀", "crab"),
    _thing("🦋", "butterfly|butterflies", "monarch butterfly|monarch butterflies"),
    _thing("🐝", "bee", "honeybee", "bumblebee"),
    _thing("🐞", "ladybug", "ladybird", "beetle"),
    _thing("🐌", "snail"),
    _thing("🐧", "penguin"),
    _thing("🦉", "owl"),
    _thing("🦓", "zebra", "zebra head"),
    _thing("🦁", "lion", "lion face"),
    _thing("🐼", "panda", "panda bear"),
    _thing("🦖", "dinosaur", "t-rex", "tyrannosaurus"),
    _thing("🐫", "camel"),
    # vehicles and buildings
    _thing("🚗", "car", "automobile", "red car"),
    _thing("🚌", "bus", "coach"),
    _thing("🚂", "train", "locomotive", "steam engine"),
    _thing("✈️", "airplane", "plane", "aeroplane", "aircraft|aircraft"),
    _thing("🚁", "helicopter", "chopper"),
    _thing("🚀", "rocket", "spaceship", "space rocket"),
    _thing("⛵", "sailboat", "sailing boat", "yacht"),
    _thing("🚜", "tractor", "farm tractor"),
    _thing("🚚", "truck", "lorry|lorries", "delivery truck"),
    _thing("🏠", "house", "cottage", "home"),
    # food
    _thing("🍎", "apple", "red apple"),
    _thing("🍌", "banana"),
    _thing("🍊", "orange", "tangerine", "mandarin"),
    _thing("🍓", "strawberry|strawberries"),
    _thing("🍉", "watermelon", "melon", "watermelon slice"),
    _thing("🍍", "pineapple", "ananas|ananas"),
    _thing("🥕", "carrot"),
    _thing("🍄", "mushroom", "toadstool"),
    _thing("🍕", "pizza", "slice of pizza|slices of pizza", "pizza slice"),
    _thing("🍔", "hamburger", "burger", "cheeseburger"),
    _thing("🍩", "donut", "doughnut"),
    _thing("🎂", "cake", "birthday cake"),
    _thing("🥐", "croissant"),
    _thing("🥑", "avocado", "avocado half|avocado halves"),
    _thing("🧀", "cheese", "piece of cheese|pieces of cheese", "wedge of cheese|wedges of cheese"),
    # household objects and toys
    _thing("☕", "cup", "mug", "cup of coffee|cups of coffee", "coffee cup"),
    _thing("🎈", "balloon", "red balloon", "toy balloon"),
    _thing("⚽", "soccer ball", "football", "soccerball"),
    _thing("🏀", "basketball", "basket ball"),
    _thing("🎃", "pumpkin", "jack-o'-lantern", "halloween pumpkin"),
    _thing("🎁", "gift", "present", "gift box"),
    _thing("⏰", "alarm clock", "clock"),
    _thing("📷", "camera", "photo camera"),
    _thing("💻", "laptop", "computer", "notebook computer"),
    _thing("🎩", "hat", "black hat", "cylinder hat"),
    _thing("👕", "shirt", "t-shirt", "tee shirt"),
    _thing("🎸", "guitar", "electric guitar"),
    _thing("🥁", "drum", "snare drum"),
    _thing("🔔", "bell", "golden bell"),
    _thing("💡", "light bulb", "bulb", "lightbulb"),
    _thing("🎒", "backpack", "school bag", "rucksack"),
    _thing("🤖", "robot", "robot head", "android"),
    # plants
    _thing("🌻", "sunflower"),
    _thing("🌵", "cactus|cacti"),
)


@cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    try:
        return ImageFont.truetype(path, STRIKE)
    except OSError as error:
        raise FileNotFoundError(
            f"cannot read the emoji font {path}: install the Debian package {FONT_PACKAGE}, "
            f"or name a copy of NotoColorEmoji.ttf in {FONT_VARIABLE}"
        ) from error


@cache
def glyph(thing: int) -> Image.Image:
    """Renders a thing, cropped to its outline.

    Args:
        thing: index into THINGS.

    Returns:
        RGBA, at most 136 × 128 pixels, alpha not premultiplied; shared between calls, not to be written to.

    Raises:
        FileNotFoundError: the font is not on this machine; the message says what to install.
        ValueError: the font has no picture for this thing.
    """
    text = THINGS[thing].glyph
    font = _font(Path(os.environ.get(FONT_VARIABLE) or DEFAULT_FONT))
    canvas = Image.new("RGBA", (192, 192))
    ImageDraw.Draw(canvas).text((20, 20), text, font=font, embedded_color=True)
    alpha = canvas.getchannel("A")
    box = alpha.point(lambda value: 255 if value >= 8 else 0).getbbox()
    if box is None or np.ptp(np.asarray(canvas)[..., :3][np.asarray(alpha) > 0]) == 0:
        raise ValueError(f"{font.path} has no picture for {THINGS[thing].name} ({text})")
    return canvas.crop(box)
