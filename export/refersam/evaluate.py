"""Scores a checkpoint, or the ONNX stages that are served, on unseen pictures at their own size.

python -m refersam.evaluate --checkpoint var/train/demo_bert/model.pt
python -m refersam.evaluate --repository model_repository --variant bert
python -m refersam.evaluate --checkpoint model.pt --data NAME:PLACE --split SPLIT
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from refersam.data import catalogue
from refersam.evaluation.predictors import of_checkpoint, of_repository
from refersam.evaluation.reports import as_json, table
from refersam.evaluation.score import score


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.evaluate", description="Score a model on unseen pictures."
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path)
    source.add_argument("--repository", type=Path, help="model repository; needs --variant")
    parser.add_argument("--variant")
    parser.add_argument(
        "--data",
        default="scenes",
        metavar="NAME:PLACE",
        help=f"data set and where it is: {', '.join(catalogue.names())} (default %(default)s)",
    )
    parser.add_argument("--split", default="test", help="of the data set (default %(default)s)")
    parser.add_argument(
        "--scenes",
        "--samples",
        dest="count",
        type=int,
        default=1000,
        help="pictures that are asked about (default %(default)s)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    args = parser.parse_args(argv)
    if args.repository and not args.variant:
        parser.error("--repository needs --variant")
    try:
        if args.checkpoint:
            predict, inputs = of_checkpoint(args.checkpoint, torch.device(args.device))
        else:
            predict, inputs = of_repository(args.repository, args.variant)
        dataset = catalogue.load(args.data, args.split, inputs.image_size)
    except (OSError, ValueError) as failure:
        sys.exit(f"refersam.evaluate: {failure}")
    board = score(predict, inputs, dataset, args.count)
    print(table(board))
    if args.json:
        args.json.write_text(as_json(board))


if __name__ == "__main__":
    main()
