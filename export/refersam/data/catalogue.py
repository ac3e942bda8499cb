"""Opens data sets by name. A data set is a package in this folder with a function

    load(place: Path | None, split: str, side: int) -> Dataset

that opens one split of it. `place` is the folder or file that holds it, None when the user gave none;
`side` is the side in pixels of the largest square that its pictures will be made to. It raises ValueError
for a split or a side that it does not have, OSError for a place that cannot be read.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from refersam import data
from refersam.data.sample import Dataset


def names() -> list[str]:
    """Names of all data sets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(data.__path__) if module.ispkg)


def load(spec: str, split: str, side: int) -> Dataset:
    """Opens `NAME` or `NAME:PLACE`, for example `scenes:var/pool`.

    Raises ValueError for a name that is none, for a split without samples, and as the data set's `load` does.
    """
    name, _, place = spec.partition(":")
    if name not in names():
        raise ValueError(f"no data set {name!r}; allowed: {', '.join(names())}")
    module = importlib.import_module(f"{data.__name__}.{name}")
    opened = module.load(Path(place) if place else None, split, side)
    if not len(opened):
        raise ValueError(f"the split {split!r} of {spec} has no samples")
    return opened
