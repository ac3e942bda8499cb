"""Turns a checkpoint into a variant that Triton can serve.

python -m refersam.export --checkpoint model.pt --variant bert --repository model_repository
python -m refersam.export --checkpoint bert.pt --variant photo_bert --also photo_clip=clip.pt --shared photo \
    --repository model_repository
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from refersam.data import transforms
from refersam.model.config import preset
from refersam.serving.checkpoint import TOKENIZERS, load
from refersam.serving.export import STORAGES, ExportError, export_all


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refersam.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="of refersam.train, or any other")
    parser.add_argument("--variant", required=True, help="the ensemble is called refersam_VARIANT")
    parser.add_argument("--repository", type=Path, required=True, help="folder that Triton loads models from")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="VARIANT=CHECKPOINT",
        help="another variant, which differs in its text encoder alone; needs --shared",
    )
    parser.add_argument(
        "--shared",
        default="",
        metavar="NAME",
        help="their other stages are refersam_NAME_STAGE; every variant is called NAME_SOMETHING",
    )
    parser.add_argument("--weights", choices=STORAGES, default="fp16", help="how to store them (%(default)s)")
    parser.add_argument("--size", help="of the model, if the checkpoint does not say: vit_b, vit_l, vit_h")
    parser.add_argument("--text", choices=sorted(TOKENIZERS), help="its text encoder; needed with --size")
    parser.add_argument("--image-size", type=int, help="side of the input in pixels, a multiple of 32")
    parser.add_argument(
        "--resize", choices=transforms.RULES, help="how it was trained to get pictures (stretch)"
    )
    parser.add_argument("--max-tokens", type=int, help="length of the input in tokens, special ones counted")
    parser.add_argument("--label", help="what the gateway calls these weights; default: the checkpoint's")
    args = parser.parse_args(argv)
    if bool(args.size) != bool(args.text):
        parser.error("--size and --text go together")
    if bool(args.also) != bool(args.shared):
        parser.error("--also and --shared go together")
    paths = {args.variant: args.checkpoint}
    for also in args.also:
        variant, _, path = also.partition("=")
        if not path or variant in paths:
            parser.error(f"--also is {also!r}; it must be VARIANT=CHECKPOINT, each variant once")
        paths[variant] = Path(path)
    for name in (*paths, *([args.shared] if args.shared else [])):
        if not re.fullmatch(r"[a-z0-9_]+", name):
            parser.error(f"{name!r} is no name for a variant or stages; names are made of a-z, 0-9 and _")
    for name in paths if args.shared else ():
        # By this the gateway sees whose stage is at fault when one cannot be loaded.
        if not name.startswith(f"{args.shared}_"):
            parser.error(f"the variant {name!r} must begin with {args.shared + '_'!r}, the name in --shared")
    given = {name: getattr(args, name) for name in ("image_size", "resize", "max_tokens", "label")}
    try:
        checkpoints = {
            variant: load(
                path,
                preset(args.size, args.text) if args.size else None,
                {name: value for name, value in given.items() if value is not None},
            )
            for variant, path in paths.items()
        }
        export_all(checkpoints, args.repository, args.weights, args.shared)
    except (ExportError, OSError, ValueError) as failure:
        sys.exit(f"refersam.export: {failure}")


if __name__ == "__main__":
    main()
