"""Trains and scores the photo variants. Each command goes on where it stopped.

python -m refersam.photos cache --data DIR --split train
python -m refersam.photos train CONFIG --data DIR --out var/photos/bert
python -m refersam.photos cuts --checkpoint var/photos/bert/model.pt --data DIR
python -m refersam.photos teach CONFIG --teacher var/photos/bert/model.pt --out var/photos/clip
python -m refersam.photos evaluate --checkpoint var/photos/bert/model.pt --data DIR --split dev
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from refersam.data.photos import Photos, load
from refersam.data.photos.collection import SPLITS
from refersam.evaluation import photo_cuts, photo_report
from refersam.parts import PartError
from refersam.serving.checkpoint import load as load_checkpoint
from refersam.training import photo_start
from refersam.training.checkpoints import save
from refersam.training.photo_batches import SIDE

DEFAULT = Path(__file__).resolve().parents[1] / "configs" / "photo_bert.toml"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.photos", description="Train and score the photo variants."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=1, help="(default %(default)s)")
    shared = argparse.ArgumentParser(add_help=False, parents=[common])
    shared.add_argument("--data", type=Path, required=True, help="folder of photographs with masks")
    shared.add_argument(
        "--parts", type=Path, default=Path("var/parts"), help="pretrained parts (default %(default)s)"
    )
    shared.add_argument(
        "--cache", type=Path, default=Path("var/photos/cache"), help="features (default %(default)s)"
    )

    caching = commands.add_parser("cache", parents=[shared], help="compute the frozen networks' features")
    caching.add_argument("--split", choices=SPLITS, default="train")
    caching.add_argument(
        "--share", default="0/1", help="I/N: every N-th sample from I on (default %(default)s)"
    )

    training = commands.add_parser("train", parents=[shared], help="train a variant on cached features")
    training.add_argument("config", type=Path, metavar="CONFIG")
    training.add_argument("--out", type=Path, required=True)

    cutting = commands.add_parser(
        "cuts",
        parents=[common],
        help="choose the cuts of mask and presence, and write them into a checkpoint",
    )
    cutting.add_argument("--checkpoint", type=Path, required=True)
    cutting.add_argument("--data", type=Path, required=True, help="folder of photographs with masks")
    cutting.add_argument("--split", choices=SPLITS, default="dev")

    teaching = commands.add_parser("teach", parents=[common], help="teach a variant's own text encoder")
    teaching.add_argument("config", type=Path, metavar="CONFIG")
    teaching.add_argument("--teacher", type=Path, required=True, help="checkpoint of the other variant")
    teaching.add_argument("--out", type=Path, required=True)

    scoring = commands.add_parser("evaluate", parents=[shared], help="score a variant beside the baseline")
    source = scoring.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path)
    source.add_argument("--repository", type=Path, help="model repository; needs --variant")
    scoring.add_argument("--variant")
    scoring.add_argument("--split", choices=SPLITS, default="dev")
    scoring.add_argument("--count", type=int, default=0, help="pictures of each set, 0 for all")
    scoring.add_argument("--baseline", action="store_true", help="score the detector and SAM beside it")

    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        if args.command == "teach":
            photo_start.teach(photo_start.StudentConfig.read(args.config), args.teacher, args.out)
            return
        if args.command == "cuts":
            cut(args.checkpoint, load(args.data, args.split, SIDE))
            return
        places = photo_start.Places(args.data, args.parts, args.cache)
        if args.command == "cache":
            cache(places, args.split, args.share)
        elif args.command == "train":
            photo_start.train(photo_start.PhotoTrainConfig.read(args.config), places, args.out)
        else:
            if args.repository and not args.variant:
                parser.error("--repository needs --variant")
            ask = (
                photo_report.of_checkpoint(args.checkpoint)
                if args.checkpoint
                else photo_report.of_repository(args.repository, args.variant)
            )
            baseline = args.parts if args.baseline else None
            print(photo_report.report(ask, load(args.data, args.split, SIDE), args.count, baseline))
    except (OSError, TypeError, ValueError, PartError) as failure:
        sys.exit(f"refersam.photos: {failure}")


def cache(places: photo_start.Places, split: str, share: str) -> None:
    """Fills the cache of a split and says how far it is."""
    part, _, parts = share.partition("/")
    model = photo_start.build(photo_start.PhotoTrainConfig.read(DEFAULT), places.parts)
    photos = load(places.data, split, SIDE)
    opened = photo_start.open_cache(model, photos, split, places)
    for done, count in photo_start.fill_cache(model, photos, opened, int(part), int(parts)):
        print(f"{split}: {done} of {count}", flush=True)


def cut(path: Path, photos: Photos) -> None:
    """Chooses the cuts on a split and writes them into the checkpoint `path`."""
    chosen = photo_cuts.choose(photo_cuts.measure(load_checkpoint(path), photos))
    saved = torch.load(path, map_location="cpu", weights_only=True)
    saved["config"] |= {"mask_cut": chosen.mask, "presence_cut": chosen.presence}
    save(path, saved)
    print(
        f"mask cut {chosen.mask:.2f}, presence cut {chosen.presence:.3f}:"
        f" {chosen.empty:.1%} of the absent phrases left empty, {chosen.answered:.1%} of the others answered"
    )


if __name__ == "__main__":
    main()
