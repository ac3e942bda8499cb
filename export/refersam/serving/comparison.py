"""Graphs against PyTorch: the same inputs, at several numbers of rows, and how far the outputs are off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from refersam.serving.checkpoint import Checkpoint
from refersam.serving.stages import Stage

EXPORT_TOLERANCE = 1e-4
"""Greatest error of ONNX Runtime against PyTorch, in units of the tensor's scale (see `error`)."""

BATCH_TOLERANCE = 1e-5
"""Greatest difference between a row computed alone and in a batch by ONNX Runtime, in the same units."""

BATCHES = (1, 3, 8)
"""Numbers of rows at which ONNX Runtime is compared."""


def examples(checkpoint: Checkpoint, rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Random inputs of the ensemble: blurred noise, and phrases from 3 tokens to a full row."""
    generator = torch.Generator().manual_seed(seed)
    side, length = checkpoint.image_size, checkpoint.max_tokens
    noise = torch.rand(rows, 3, side // 8, side // 8, generator=generator)
    blurred = nn.functional.interpolate(noise, (side, side), mode="bilinear")
    lengths = torch.linspace(3, length, rows).long()
    mask = torch.arange(length) < lengths[:, None]
    ids = torch.randint(checkpoint.model.config.text.vocab, (rows, length), generator=generator) * mask
    return {
        "image": (blurred * 255).byte().permute(0, 2, 3, 1).contiguous(),
        "input_ids": ids.int(),
        "attention_mask": mask.int(),
    }


@dataclass(frozen=True)
class Comparison:
    """How far one output of one stage is off, in units of the tensor's scale."""

    stage: str
    tensor: str
    export_error: float
    batch_error: float

    @property
    def ok(self) -> bool:
        return self.export_error <= EXPORT_TOLERANCE and self.batch_error <= BATCH_TOLERANCE

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "FAILED"
        return (
            f"{self.stage:8} {self.tensor:17} ONNX Runtime against PyTorch {self.export_error:.1e} "
            f"(allowed {EXPORT_TOLERANCE:.0e}), batch against rows {self.batch_error:.1e} "
            f"(allowed {BATCH_TOLERANCE:.0e})  {verdict}"
        )


def error(value: np.ndarray, truth: np.ndarray) -> float:
    """Greatest absolute difference over the truth's root mean square; infinite if either is not finite."""
    if not (np.isfinite(value).all() and np.isfinite(truth).all()):
        return float("inf")
    difference = np.abs(value.astype(np.float64) - truth).max()
    scale = np.sqrt(np.square(truth, dtype=np.float64).mean())
    return float(difference / scale) if difference else 0.0


def compare(stage: Stage, graph: Path, tensors: Mapping[str, Tensor]) -> list[Comparison]:
    """Run one stage's graph on PyTorch's inputs of that stage, at each of BATCHES, against PyTorch's outputs.

    `graph` is the path of an ONNX file. `tensors` holds what `run` returns for at least as many rows as the
    greatest of BATCHES.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def infer(first: int, last: int) -> list[np.ndarray]:
        return session.run(list(stage.outputs), {n: tensors[n][first:last].numpy() for n in stage.inputs})

    truths = [tensors[name].numpy() for name in stage.outputs]
    alone = [
        np.concatenate(rows) for rows in zip(*(infer(i, i + 1) for i in range(max(BATCHES))), strict=True)
    ]
    batched = [infer(0, size) for size in BATCHES]
    return [
        Comparison(
            stage.name,
            name,
            export_error=max(error(outputs[i], truths[i][: len(outputs[i])]) for outputs in batched),
            batch_error=max(error(outputs[i], alone[i][: len(outputs[i])]) for outputs in batched),
        )
        for i, name in enumerate(stage.outputs)
    ]
