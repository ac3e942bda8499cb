"""Scores a checkpoint, or the ONNX stages that are served, on unseen scenes at their own size.

python -m refersam.evaluate --checkpoint var/train/demo_bert/model.pt
python -m refersam.evaluate --repository model_repository --variant bert
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from refersam import fit, tokenizer
from refersam.data import pool
from refersam.data.expressions import Expression, target_mask
from refersam.data.scenes import Scene
from refersam.export import ExportError, load
from refersam.metrics import Scoreboard
from refersam.repository import load_stages
from refersam.stages import run, stages

# uint8 [N, S, S, 3], int64 [N, L], int64 [N, L] -> float32 logits [N, S/4, S/4]
Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
PHRASES = 4
BATCH = 8


def asked(split: str, count: int) -> Iterator[tuple[Scene, Expression]]:
    for index in range(count):
        scene = pool.draw(split, index)
        for expression in pool.phrases(scene, PHRASES):
            yield scene, expression


def evaluate(
    predict: Predictor,
    encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]],
    size: int,
    split: str,
    count: int,
    resize: str = fit.STRETCH,
) -> Scoreboard:
    """Asks PHRASES phrases of each of the first `count` scenes of a split; foreground is logit >= 0."""
    board = Scoreboard()

    def flush(waiting: list[tuple[Scene, Expression]]) -> None:
        images = np.stack([fit.square(scene.image, size, resize) for scene, _ in waiting])
        logits = predict(images, *encode([expression.text for _, expression in waiting]))
        for (scene, expression), row in zip(waiting, logits, strict=True):
            mask = fit.upsample(row, *scene.image.shape[:2], resize) >= 0
            board.add(expression.kind, mask, target_mask(scene, expression))

    waiting: list[tuple[Scene, Expression]] = []
    for pair in asked(split, count):
        waiting.append(pair)
        if len(waiting) == BATCH:
            flush(waiting)
            waiting = []
    if waiting:
        flush(waiting)
    return board


def of_checkpoint(path: Path, device: torch.device) -> tuple[Predictor, dict]:
    """A predictor from a training checkpoint, and what it says of its inputs."""
    checkpoint = load(path)
    parts = stages(checkpoint.model.to(device))

    @torch.inference_mode()
    def predict(images: np.ndarray, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"image": images, "input_ids": input_ids, "attention_mask": attention_mask}
        tensors = {name: torch.from_numpy(array).to(device) for name, array in inputs.items()}
        return run(parts, tensors)["mask_logits"].cpu().numpy()

    names = ("tokenizer", "image_size", "resize", "max_tokens")
    return predict, {name: getattr(checkpoint, name) for name in names}


def of_repository(repository: Path, variant: str) -> tuple[Predictor, dict]:
    """A predictor that runs the served stages one after the other, and the ensemble's parameters."""
    infer, parameters = load_stages(repository, variant)
    meta = parameters | {key: int(parameters[key]) for key in ("image_size", "max_tokens")}

    def predict(images: np.ndarray, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        inputs = {"image": images, "input_ids": input_ids, "attention_mask": attention_mask}
        return infer(inputs | {k: v.astype(np.int32) for k, v in inputs.items() if k != "image"})[
            "mask_logits"
        ]

    return predict, meta


def main() -> None:
    parser = argparse.ArgumentParser(description="Score a model on unseen scenes.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path)
    source.add_argument("--repository", type=Path, help="model repository; needs --variant")
    parser.add_argument("--variant")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--scenes", type=int, default=1000, help="default %(default)s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="also write the scores here")
    args = parser.parse_args()
    if args.repository and not args.variant:
        parser.error("--repository needs --variant")
    try:
        if args.checkpoint:
            predict, meta = of_checkpoint(args.checkpoint, torch.device(args.device))
        else:
            predict, meta = of_repository(args.repository, args.variant)
    except (ExportError, OSError, ValueError) as failure:
        sys.exit(f"refersam.evaluate: {failure}")
    phrase_tokenizer = tokenizer.load(meta["tokenizer"])
    encode = functools.partial(phrase_tokenizer.encode, max_tokens=meta["max_tokens"])
    board = evaluate(predict, encode, meta["image_size"], args.split, args.scenes, meta["resize"])
    print(board.table())
    if args.json:
        args.json.write_text(json.dumps(board.scores(), indent=1) + "\n")


if __name__ == "__main__":
    main()
