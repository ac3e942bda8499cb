"""Trains variants from config files; started again, it goes on where it stopped.

python -m refersam.train CONFIG --pool var/pool --out var/train
python -m refersam.train CONFIG --data NAME:PLACE --out var/train
torchrun --nproc-per-node 2 -m refersam.train BERT_CONFIG CLIP_CONFIG …    # a process a variant, or more
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from refersam.data import catalogue
from refersam.training.start import Start, prepare


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.train", description="Train variants; run again to resume."
    )
    parser.add_argument("configs", type=Path, nargs="+", metavar="CONFIG")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--data", metavar="NAME:PLACE", help=f"data set and where it is: {', '.join(catalogue.names())}"
    )
    data.add_argument("--pool", type=Path, metavar="DIR", help="the same as --data scenes:DIR")
    parser.add_argument("--out", type=Path, required=True, help="gets a folder for each variant")
    parser.add_argument(
        "--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda")
    )
    first = parser.add_mutually_exclusive_group()
    first.add_argument(
        "--start-from", type=Path, metavar="DIR", help="start from the weights in DIR/VARIANT/model.pt"
    )
    first.add_argument(
        "--sam", type=Path, help="SAM checkpoint of the same size to start the image side from"
    )
    parser.add_argument(
        "--val-scenes",
        "--val-samples",
        dest="val_samples",
        type=int,
        default=100,
        help="pictures of the split val that are scored at the end (default %(default)s)",
    )
    args = vars(parser.parse_args(argv))
    pool = args.pop("pool")
    try:
        ready = prepare(Start(**args | {"data": args["data"] or f"scenes:{pool}"}))
    except (OSError, TypeError, ValueError) as failure:
        parser.error(str(failure))
    ready.train()


if __name__ == "__main__":
    main()
