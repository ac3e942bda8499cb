"""A checkpoint as it is served: the weights, and what they say or the user says of the model's inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from refersam.data import transforms
from refersam.model import ReferSAM
from refersam.model.config import ReferSAMConfig
from refersam.model.photo import PhotoSAM
from refersam.model.photo_config import PhotoConfig
from refersam.model.weights import CheckpointError, fill, read, state_dict

TOKENIZERS = {"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"}
"""The tokenizer of each kind of text encoder, unless the checkpoint names one."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is needed to serve them. `sha256` is the hash of the file."""

    model: ReferSAM | PhotoSAM
    sha256: str
    image_size: int
    resize: str
    max_tokens: int
    tokenizer: str
    label: str


def load(
    path: Path,
    config: ReferSAMConfig | PhotoConfig | None = None,
    meta: Mapping[str, Any] = MappingProxyType({}),
) -> Checkpoint:
    """Read a checkpoint that `refersam.train` wrote, or any other if `config` says of what model it is.

    `meta` overrides the file's own `image_size`, `resize`, `max_tokens`, `tokenizer` and `label`. Raises
    ExportError when one of them is said nowhere or cannot be, and CheckpointError for weights that do not
    transforms.
    """
    saved = read(path)
    said = saved if isinstance(saved, Mapping) else {}
    if config is None:
        if "config" not in said:
            raise CheckpointError(f"{path} does not say what model it is of: give --size and --text")
        config = config_of(said["config"])
    known = {"tokenizer": TOKENIZERS[config.text.kind], "label": path.stem, "resize": transforms.STRETCH}
    known |= (said["meta"] if isinstance(said.get("meta"), Mapping) else {}) | meta
    missing = [name for name in ("image_size", "max_tokens") if name not in known]
    if missing:
        options = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise CheckpointError(f"{path} does not say what input the model was trained for: give {options}")
    if known["image_size"] < 32 or known["image_size"] % 32:
        raise CheckpointError(f"image size {known['image_size']} is not a multiple of 32")
    if known["resize"] not in transforms.RULES:
        raise CheckpointError(f"no resize rule {known['resize']!r}, allowed: {', '.join(transforms.RULES)}")
    if not 3 <= known["max_tokens"] <= config.text.positions:
        raise CheckpointError(
            f"the text encoder reads 3 to {config.text.positions} tokens, not {known['max_tokens']}"
        )
    model = PhotoSAM(config) if isinstance(config, PhotoConfig) else ReferSAM(config)
    fill(model, state_dict(saved, path), path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        model=model.eval(),
        sha256=digest,
        **{name: known[name] for name in ("image_size", "resize", "max_tokens", "tokenizer", "label")},
    )


def config_of(values: Mapping[str, Any]) -> ReferSAMConfig | PhotoConfig:
    """The config that a checkpoint says; of a photo variant when its `kind` says so."""
    kind = PhotoConfig if values.get("kind") == "photo" else ReferSAMConfig
    return kind.from_dict(dict(values))
