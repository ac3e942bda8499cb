"""What a training run is: read from TOML, checked before anything is made."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from refersam import tokenizer
from refersam.data.transforms import RULES, STRETCH
from refersam.model.config import ReferSAMConfig
from refersam.training.objective import CRITERIA, Weights


def _check(where: str, config: object, **allowed: tuple[float, float]) -> None:
    """Raises ValueError unless each named field is a number between two bounds, both allowed."""
    for name, (low, high) in allowed.items():
        value = getattr(config, name)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not low <= value <= high:
            raise ValueError(f"{where}.{name} is {value!r}; allowed is a number from {low:g} to {high:g}")


def _check_whole(where: str, config: object, **least: int) -> None:
    """Raises ValueError unless each named field is a whole number that is not below its bound."""
    for name, bound in least.items():
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < bound:
            raise ValueError(f"{where}.{name} is {value!r}; it must be a whole number of at least {bound}")


@dataclass(frozen=True)
class Phase:
    """One cosine: the rate rises linearly for `warmup` steps to `rate` and falls to `rate * floor`."""

    name: str
    samples: int  # phrases, over all processes
    pictures: int  # a step and process
    rate: float
    masks: bool = True  # False trains the image prefix and the text encoder on auxiliary labels only
    side: int = 0  # of the pictures, a multiple of 32; 0 is the side that is served
    warmup: int = 200
    floor: float = 0.02
    # For this share of the phase, the easy questions about a picture come first.
    easy: float = 0.0
    # Share of the phase after which the auxiliary terms are switched off, linearly from half of it on.
    auxiliary: float = 1.0

    def __post_init__(self) -> None:
        where = f"phase {self.name!r}"
        _check_whole(where, self, samples=1, pictures=1, side=0, warmup=0)
        _check(where, self, rate=(0, 1), floor=(0, 1), easy=(0, 1), auxiliary=(0, 1))
        if self.side % 32:
            raise ValueError(f"{where}.side is {self.side}; it must be a multiple of 32")

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0, of `steps`."""
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, steps - self.warmup))
        return self.rate * (self.floor + (1 - self.floor) * 0.5 * (1 + math.cos(math.pi * progress)))

    def auxiliary_at(self, progress: float) -> float:
        """The factor in [0, 1] on the auxiliary terms when a share of the phase is done."""
        if self.auxiliary >= 1:
            return 1.0
        if self.auxiliary <= 0:
            return 0.0
        return min(1.0, max(0.0, (self.auxiliary - progress) / (self.auxiliary / 2)))


@dataclass(frozen=True)
class TrainConfig:
    """A run. Unknown keys are errors."""

    variant: str
    tokenizer: str
    image_size: int
    max_tokens: int
    model: ReferSAMConfig
    phases: tuple[Phase, ...]
    label: str = ""
    resize: str = STRETCH  # how pictures are made square, one of `transforms.RULES`
    phrases: int = 4  # a picture
    criterion: str = "dense"  # or "points", the published one
    weights: Weights = field(default_factory=Weights)
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.01
    clip: float = 1.0  # norm of the gradient of the image side, and of the text side
    ema: float = 0.999
    seed: int = 0

    def __post_init__(self) -> None:
        _check_whole("config", self, image_size=32, max_tokens=3, phrases=1, seed=0)
        _check("config", self, weight_decay=(0, 1), clip=(0, 1e9), ema=(0, 1))
        _check("weights", self.weights, **{part.name: (0, 1e9) for part in dataclasses.fields(Weights)})
        names = [phase.name for phase in self.phases]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"phases need different names, not {names}")
        if self.image_size % 32:
            raise ValueError(f"config.image_size is {self.image_size}; it must be a multiple of 32")
        if self.max_tokens > self.model.text.positions:
            raise ValueError(
                f"config.max_tokens is {self.max_tokens}; text.positions allows {self.model.text.positions}"
            )
        for name, allowed in (("criterion", CRITERIA), ("resize", RULES)):
            if getattr(self, name) not in allowed:
                raise ValueError(f"config.{name} is {getattr(self, name)!r}; allowed: {', '.join(allowed)}")

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """Raises ValueError or TypeError for what is no config, with the name of the key."""
        values = tomllib.loads(path.read_text())
        for name in ("model", "phases"):
            if name not in values:
                raise ValueError(f"{path} has no {name!r}")
        for phase in values["phases"]:
            if "scenes" in phase:
                raise ValueError(f"{path}: `scenes` of a phase is now called `pictures`")
        values["model"] = ReferSAMConfig.from_dict(values["model"])
        values["phases"] = tuple(Phase(**phase) for phase in values["phases"])
        values["weights"] = Weights(**values.get("weights", {}))
        if "betas" in values:
            values["betas"] = tuple(values["betas"])
        config = cls(**values)
        words = tokenizer.load(config.tokenizer).vocab_size
        if config.model.text.vocab < words:
            raise ValueError(
                f"text.vocab is {config.model.text.vocab}; the tokenizer {config.tokenizer} has {words} words"
            )
        return config

    @property
    def largest_side(self) -> int:
        """Of the pictures of all phases."""
        return max(phase.side or self.image_size for phase in self.phases)

    def without_words(self) -> TrainConfig:
        """The same for all variants that can be trained together: all but what reads words."""
        text = dataclasses.replace(
            self.model.text, kind="bert", layers=1, heads=1, ffn=1, vocab=1, positions=self.max_tokens
        )
        model = dataclasses.replace(self.model, text=text)
        return dataclasses.replace(self, variant="", label="", tokenizer="", model=model)

    def meta(self) -> dict[str, Any]:
        """What a server must know of a checkpoint besides the sizes of the model."""
        names = ("variant", "label", "tokenizer", "image_size", "resize", "max_tokens")
        return {name: getattr(self, name) for name in names}


def read_configs(paths: Sequence[Path]) -> list[TrainConfig]:
    """Raises ValueError for configs that cannot be trained together."""
    configs = [TrainConfig.read(path) for path in paths]
    if len({config.variant for config in configs}) < len(configs):
        raise ValueError("the configs are of one variant")
    for path, config in zip(paths, configs, strict=True):
        if config.without_words() != configs[0].without_words():
            raise ValueError(
                f"{path} and {paths[0]} differ in more than variant, label, tokenizer and text encoder"
            )
    return configs
