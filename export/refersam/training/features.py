"""Features of frozen encoders, computed once and kept on disk: training then costs what its own layers cost.

A cache is a folder with an array per map, float16 [N, …], `done.npy` with a 1 for each sample that is there,
and `cache.json`, which says of which encoders and which data set the features are. It is filled sample by
sample, so a run that was killed goes on; several processes may fill one folder, each a share of the samples.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

ABOUT, DONE = "cache.json", "done.npy"


class CacheError(ValueError):
    """A cache that does not fit: of other encoders, of another data set, or damaged."""


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's weights, with their names."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class FeatureCache:
    """The cache in `folder`, opened or made for `count` samples of `shapes` (without the sample's axis).

    `about` says what the features are of. Raises CacheError when the folder says anything else.
    """

    def __init__(
        self, folder: Path, shapes: Mapping[str, Sequence[int]], count: int, about: Mapping[str, str]
    ) -> None:
        self.folder = folder
        said = {**about, "count": count, "shapes": {name: list(shape) for name, shape in shapes.items()}}
        path = folder / ABOUT
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            for name, shape in shapes.items():
                _create(folder / f"{name}.npy", (count, *shape), np.float16)
            _create(folder / DONE, (count,), np.uint8)
            path.write_text(json.dumps(said, indent=1))
        found = json.loads(path.read_text())
        for key in said.keys() | found.keys():
            if said.get(key) != found.get(key):
                raise CacheError(
                    f"{path} is of {key} {found.get(key)!r}, not {said.get(key)!r}; name another folder, or"
                    " delete this one to compute its features anew"
                )
        self.arrays = {name: _open(folder / f"{name}.npy", (count, *shapes[name])) for name in shapes}
        self.done = _open(folder / DONE, (count,))

    def fill(self, indices: Iterable[int], compute: Callable[[int], Mapping[str, Tensor]]) -> int:
        """Computes the features of those samples that lack them; returns how many these were."""
        filled = 0
        for index in indices:
            if self.done[index]:
                continue
            for name, value in compute(index).items():
                self.arrays[name][index] = value.detach().to(torch.float16).cpu().numpy()
            self.done[index] = 1
            filled += 1
        return filled

    def available(self) -> np.ndarray:
        """Indices of the samples that are there, in order."""
        return np.flatnonzero(self.done)

    def read(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """float32 [len(indices), …] by name. Raises CacheError for a sample that is not there."""
        missing = [index for index in indices if not self.done[index]]
        if missing:
            raise CacheError(f"{self.folder} lacks the features of the samples {missing}")
        return {
            name: torch.from_numpy(np.stack([array[index] for index in indices])).float()
            for name, array in self.arrays.items()
        }


def _create(path: Path, shape: tuple[int, ...], dtype: type) -> None:
    """A file of zeros that takes no room until it is written to."""
    np.lib.format.open_memmap(path, "w+", dtype, shape).flush()


def _open(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        array = np.lib.format.open_memmap(path, "r+")
    except (OSError, ValueError) as error:
        raise CacheError(f"{path} cannot be read: {error}") from error
    if array.shape != shape:
        raise CacheError(f"{path} is of the shape {array.shape}, not {shape}")
    return array
