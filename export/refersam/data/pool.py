"""Draws a pool of training scenes into a folder, once for all runs that train on it.

python -m refersam.data.pool --out var/pool --count 40000 --size 224
"""

import argparse
import multiprocessing
from pathlib import Path

from refersam.data.scenes.pool import build


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.data.pool", description="Draw a pool of training scenes."
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=40_000, help="scenes (default %(default)s)")
    parser.add_argument("--size", type=int, default=224, help="side of the pictures (default %(default)s)")
    parser.add_argument("--expressions", type=int, default=8, help="phrases a scene (default %(default)s)")
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    args = parser.parse_args()
    for done in build(args.out, args.count, args.size, args.expressions, args.workers):
        if done % 1000 == 0:
            print(f"{done} of {args.count} scenes", flush=True)


if __name__ == "__main__":
    main()
