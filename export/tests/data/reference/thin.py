"""Makes the committed cases out of recorded ones: long arrays keep every n-th value and a summary.

    python thin.py SOURCE CASE... [--target FOLDER]

The input and the masks stay whole; `refersam.serving.parity` reads the result like SOURCE.
With the cases go `loss_<case>` as they are, and the `keys_<case>.json` beside SOURCE as one compressed file.
"""

import argparse
import gzip
import json
import shutil
from pathlib import Path

import numpy as np

WHOLE = ("image", "input_ids", "attention_mask", "mask", "coarse_logits", "low_res_logits")
LIMIT = 3000
"""Longest float array that is kept whole, in values."""


def thin(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    thinned = {}
    for name, array in arrays.items():
        base, every, step = name.partition("__every")
        if every and array.size > LIMIT:
            thinned[f"{base}__every{7 * int(step)}"] = array[::7]
        elif name in WHOLE or "__" in name or array.size <= LIMIT:
            thinned[name] = array
        else:
            step = 211 if array.size > 100_000 else 37
            wide = array.astype(np.float64)
            thinned[f"{name}__every{step}"] = array.ravel()[::step]
            thinned[f"{name}__stats"] = np.array([wide.mean(), wide.std(), np.abs(wide).max(), array.size])
            thinned[f"{name}__shape"] = np.array(array.shape)
    return thinned


def keys(folder: Path) -> dict[str, list]:
    """State-dict entries [key, shape, dtype] of each size and text encoder."""
    return {
        path.stem.removeprefix("keys_"): json.loads(path.read_text())
        for path in sorted(folder.glob("keys_*.json"))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--target", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    for case in args.cases:
        with np.load(args.source / f"{case}.npz") as arrays:
            np.savez_compressed(args.target / f"{case}.npz", **thin(dict(arrays)))
        for path in args.source.glob(f"loss_{case}.*"):
            shutil.copyfile(path, args.target / path.name)
    if entries := keys(args.source.parent):
        text = json.dumps(entries, separators=(",", ":"))
        (args.target / "keys.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))


if __name__ == "__main__":
    main()
