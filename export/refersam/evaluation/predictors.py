"""Forms of a model that answer questions: a checkpoint in PyTorch, or the stages that are served."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from refersam.serving.checkpoint import load
from refersam.serving.repository import load_stages
from refersam.serving.stages import run, stages

Predictor = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""uint8 [N, S, S, 3] or one picture for all [1, S, S, 3], ids int64 [N, L], attention mask int64 [N, L]
-> float32 logits [N, S/4, S/4]"""


@dataclass(frozen=True)
class Inputs:
    """How a model takes its inputs; `resize` is one of `transforms.RULES`."""

    tokenizer: str
    image_size: int
    resize: str
    max_tokens: int


def of_checkpoint(path: Path, device: torch.device) -> tuple[Predictor, Inputs]:
    """A predictor from a checkpoint. Raises ValueError or OSError for what cannot be read."""
    checkpoint = load(path)
    parts = stages(checkpoint.model.to(device))

    prefix = [part for part in parts if part.inputs == ("image",)]

    @torch.inference_mode()
    def predict(images: np.ndarray, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        # What depends on the picture alone is computed once for all its phrases.
        tensors = run(prefix, {"image": torch.from_numpy(images).to(device)})
        if len(images) == 1:
            tensors = {
                name: value.expand(len(input_ids), *value.shape[1:]) for name, value in tensors.items()
            }
        words = {"input_ids": input_ids, "attention_mask": attention_mask}
        tensors |= {name: torch.from_numpy(array).to(device) for name, array in words.items()}
        rest = [part for part in parts if part not in prefix]
        return run(rest, tensors)["mask_logits"].cpu().numpy()

    return predict, Inputs(
        checkpoint.tokenizer, checkpoint.image_size, checkpoint.resize, checkpoint.max_tokens
    )


def of_repository(repository: Path, variant: str) -> tuple[Predictor, Inputs]:
    """A predictor that runs the served stages one after the other."""
    infer, parameters = load_stages(repository, variant)

    def predict(images: np.ndarray, input_ids: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
        pictures = np.broadcast_to(images, (len(input_ids), *images.shape[1:]))
        words = {"input_ids": input_ids.astype(np.int32), "attention_mask": attention_mask.astype(np.int32)}
        return infer({"image": pictures, **words})["mask_logits"]

    return predict, Inputs(
        parameters["tokenizer"],
        int(parameters["image_size"]),
        parameters["resize"],
        int(parameters["max_tokens"]),
    )
