"""Puts a photo run together: config, pretrained parts, photographs, cached features; then trains three times.

First the name reader (text alone), then the chooser (text and boxes), then everything between the frozen
networks with SAM's decoder. Each resumes where it stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from refersam import tokenizer
from refersam.data.photos import Photos, load
from refersam.data.transforms import LONGEST_SIDE_PAD, normalise, square
from refersam.model import pretrained
from refersam.model.config import TextConfig, _build
from refersam.model.photo import PhotoSAM, start
from refersam.model.photo_config import PhotoConfig
from refersam.serving.checkpoint import load as load_checkpoint
from refersam.training.checkpoints import MODEL, save
from refersam.training.choosing import Chooser, ChooserRun
from refersam.training.features import FeatureCache, fingerprint
from refersam.training.joins import BoxPictures
from refersam.training.photo_batches import SHAPES, SIDE, PhotoBatches, SmallScene, small_scene
from refersam.training.photos import PhotoPhase, PhotoRun
from refersam.training.reading import Encode, teach_reader
from refersam.training.student import StudentRun, WordTokens
from refersam.training.text_cache import TextCache

READER = "reader.pt"
CHOOSER_PHRASES = 8
"""Phrases about a frame of boxes."""


@dataclass(frozen=True)
class PhotoTrainConfig:
    """A run, read from TOML. Unknown keys are errors."""

    variant: str
    label: str
    tokenizer: str
    max_tokens: int
    model: PhotoConfig
    phases: tuple[PhotoPhase, ...]
    pictures: int = 8  # a step
    phrases: int = 6  # per picture
    absent: int = 2  # of them at least about what is not there
    reader_phrases: int = 8000
    reader_epochs: int = 12
    chooser_steps: int = 2000
    chooser_rate: float = 2e-3
    chooser_pictures: int = 24
    beside_pictures: int = 10  # frames of boxes beside the pictures of a step
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.phases or len({phase.name for phase in self.phases}) < len(self.phases):
            raise ValueError(f"phases need different names, not {[phase.name for phase in self.phases]}")
        counts = ("max_tokens", "pictures", "phrases", "chooser_pictures", "beside_pictures")
        counts += ("reader_phrases", "reader_epochs")
        for name in counts:
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(
                    f"config.{name} is {getattr(self, name)!r}; it must be a whole number above 0"
                )
        if not 0 <= self.absent <= self.phrases:
            raise ValueError(f"config.absent is {self.absent}; allowed is 0 to phrases ({self.phrases})")
        if self.max_tokens > self.model.text.positions:
            raise ValueError(
                f"config.max_tokens is {self.max_tokens}; text.positions allows {self.model.text.positions}"
            )

    @classmethod
    def read(cls, path: Path) -> PhotoTrainConfig:
        """Raises ValueError or TypeError for what is no config, with the name of the key."""
        values = tomllib.loads(path.read_text())
        for name in ("model", "phases"):
            if name not in values:
                raise ValueError(f"{path} has no {name!r}")
        values["model"] = PhotoConfig.from_dict(values["model"])
        values["phases"] = tuple(PhotoPhase(**phase) for phase in values["phases"])
        return cls(**values)

    def meta(self) -> dict[str, Any]:
        """What a server must know of a checkpoint besides the sizes of the model."""
        said = {name: getattr(self, name) for name in ("variant", "label", "tokenizer", "max_tokens")}
        return said | {"image_size": SIDE, "resize": LONGEST_SIDE_PAD}

    def encode(self) -> Encode:
        return functools.partial(tokenizer.load(self.tokenizer).encode, max_tokens=self.max_tokens)


@dataclass(frozen=True)
class Places:
    """Where a run's things lie: photographs, pretrained parts, and the folder of the caches."""

    data: Path
    parts: Path
    cache: Path


def build(config: PhotoTrainConfig, parts: Path) -> PhotoSAM:
    """A model with its pretrained parts, and initial values for the rest."""
    torch.manual_seed(config.seed)
    model = PhotoSAM(config.model)
    start(model)
    pretrained.fill(model, parts)
    return model


def open_cache(model: PhotoSAM, photos: Photos, split: str, places: Places) -> FeatureCache:
    """The cache of a split for the frozen networks of a model.

    Raises CacheError when the folder holds features of other networks or other photographs.
    """
    about = {"encoders": fingerprint(model.encoders), "data": f"photos:{split}", "version": "1"}
    return FeatureCache(places.cache / split, SHAPES, len(photos), about)


def fill_cache(
    model: PhotoSAM, photos: Photos, cache: FeatureCache, share: int, shares: int
) -> Iterable[tuple[int, int]]:
    """Fills share `share` of `shares`; yields how many samples of how many are done, now and then.

    The order is random and fixed, so that an unfinished cache is a fair part of the data.
    """
    encoders = model.encoders.to(memory_format=torch.channels_last).eval()

    @torch.no_grad()
    def compute(index: int) -> dict[str, Tensor]:
        pixels = torch.from_numpy(square(photos.scene(index)[0], SIDE, LONGEST_SIDE_PAD))[None]
        image = normalise(pixels).contiguous(memory_format=torch.channels_last)
        return {name: value[0] for name, value in encoders(image)._asdict().items()}

    order = [int(i) for i in np.random.default_rng(0).permutation(len(photos))[share::shares]]
    for first in range(0, len(order), 50):
        cache.fill(order[first : first + 50], compute)
        yield min(first + 50, len(order)), len(order)


def scenes_of(photos: Photos, indices: Iterable[int]) -> list[SmallScene | None]:
    """The small scenes of the samples `indices`, None for the others."""
    scenes: list[SmallScene | None] = [None] * len(photos)
    for index in indices:
        scenes[index] = small_scene(photos, index)
    return scenes


@dataclass(frozen=True)
class StudentConfig:
    """A variant that is another one with a text encoder of its own, read from TOML."""

    variant: str
    label: str
    tokenizer: str
    max_tokens: int
    text: TextConfig
    steps: int
    rate: float = 1e-3
    phrases: int = 96  # a step
    seed: int = 0

    @classmethod
    def read(cls, path: Path) -> StudentConfig:
        """Raises ValueError or TypeError for what is no config, with the name of the key."""
        return _build(cls, tomllib.loads(path.read_text()), str(path))


def teach(config: StudentConfig, teacher: Path, out: Path) -> None:
    """Trains a variant's text encoder on what the text encoder of the checkpoint `teacher` says, into `out`.

    All other weights are the teacher's. Raises ValueError or OSError for what is missing or does not fit.
    """
    taught_by = load_checkpoint(teacher)
    if not isinstance(taught_by.model, PhotoSAM):
        raise ValueError(f"{teacher} is no photo variant, so there is no text encoder here to learn from")
    torch.manual_seed(config.seed)
    student = PhotoSAM(dataclasses.replace(taught_by.model.config, text=config.text))
    own = ("text_encoder.", "text_proj.")
    shared = {name: w for name, w in taught_by.model.state_dict().items() if not name.startswith(own)}
    student.load_state_dict(shared, strict=False)
    StudentRun(
        taught_by.model,
        WordTokens(taught_by.tokenizer, taught_by.max_tokens),
        student,
        WordTokens(config.tokenizer, config.max_tokens),
        *(out, config.steps, config.rate, config.phrases, config.seed),
    ).run()
    said = {name: getattr(config, name) for name in ("variant", "label", "tokenizer", "max_tokens")}
    meta = said | {"image_size": taught_by.image_size, "resize": taught_by.resize}
    save(out / MODEL, {"model": student.state_dict(), "config": student.config.to_dict(), "meta": meta})


def train(config: PhotoTrainConfig, places: Places, out: Path) -> None:
    """Trains a variant into the folder `out`, or goes on there.

    Raises PartError, ValueError or OSError, before anything is trained, for what is missing or does not fit.
    """
    model = build(config, places.parts)
    photos = load(places.data, "train", SIDE)
    cache = open_cache(model, photos, "train", places)
    scenes = scenes_of(photos, (int(i) for i in cache.available()))
    out.mkdir(parents=True, exist_ok=True)

    reader = out / READER
    if not reader.exists():
        scores = teach_reader(
            model.eval(), config.encode(), config.reader_phrases, config.reader_epochs, seed=config.seed
        )
        print(", ".join(f"{name} {value:.3f}" for name, value in scores.items()), flush=True)
        save(reader, model.name_reader.state_dict())
    model.name_reader.load_state_dict(torch.load(reader, weights_only=True))

    text = TextCache(model, config.encode())
    batches = PhotoBatches(photos, scenes, cache, config.pictures, config.phrases, config.absent, config.seed)
    frames = BoxPictures(scenes, cache.arrays, batches.pool)

    def chooser(pictures: int) -> Chooser:
        return Chooser(model, text, frames, pictures, CHOOSER_PHRASES, 1, config.seed)

    ChooserRun(chooser(config.chooser_pictures), out, config.chooser_steps, config.chooser_rate).run()
    run = PhotoRun(
        model,
        batches,
        text,
        list(config.phases),
        out,
        config.meta(),
        chooser(config.beside_pictures),
    )
    if run.resume():
        print(f"{config.variant}: resumed at step {run.seen}", flush=True)
    run.run()
