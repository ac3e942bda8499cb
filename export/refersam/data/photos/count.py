"""Counts the examples of each name that a training on photographs sees.

python -m refersam.data.photos.count --data DIR --out gateway/web/segment/names.json

writes a list of {"name", "examples"}, most examples first: the things with masks in the photographs of the
split `train`. The web page shows it. VOC's sofas count as couches.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from refersam.data.photos.collection import Photograph, read
from refersam.data.photos.names import NAMES, SAME

MERGED = {"sofa": SAME["sofa"]}


def count(photographs: Iterable[Photograph]) -> dict[str, int]:
    """Name → number of things with a mask, for every name, also those without a thing."""
    examples = Counter(
        MERGED.get(item["name"], item["name"])
        for photograph in photographs
        for item in photograph.row["instances"]
        if "mask" in item
    )
    listed = [name for name in NAMES if name not in MERGED]
    if unknown := examples.keys() - set(listed):
        raise ValueError(f"no such names in names.py: {', '.join(sorted(unknown))}; add them there")
    return {name: examples[name] for name in sorted(listed, key=lambda name: (-examples[name], name))}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.data.photos.count", description="Count the examples of each name."
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs with masks")
    parser.add_argument("--out", type=Path, required=True, help="file for the JSON")
    args = parser.parse_args()
    try:
        photographs = read(args.data, "train")
        rows = [{"name": name, "examples": examples} for name, examples in count(photographs).items()]
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        args.out.write_text(f"[\n{lines}\n]\n")
    except (ValueError, OSError) as failure:
        sys.exit(f"refersam.data.photos.count: {failure}")
    things = sum(row["examples"] for row in rows)
    print(f"{len(photographs)} photographs of the split train, {things} things of {len(rows)} names")


if __name__ == "__main__":
    main()
