"""Compares the model with recorded outputs of the published code (see `refersam.serving.parity`).

    python -m refersam.parity DIR --seed 1

Prints a line a comparison and exits with 1 if one fails.
"""

import argparse
import sys
from pathlib import Path

from refersam.serving.parity import HEADER, compare


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.parity",
        description="Compare the model with recorded outputs, tensor by tensor.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of cases")
    parser.add_argument("--seed", type=int, default=1, help="seed of the weights; default %(default)s")
    args = parser.parse_args(arguments)
    print(HEADER)
    total, failed = 0, 0
    try:
        for comparison in compare(args.folder, args.seed):
            print(comparison, flush=True)
            total += 1
            failed += not comparison.ok
    except (ValueError, OSError) as error:
        print(f"parity: {error}", file=sys.stderr)
        return 1
    if not total:
        print(f"parity: no case (<size>_<text>*.npz) in {args.folder}", file=sys.stderr)
        return 1
    print(f"{total} comparisons, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
