"""Turns a checkpoint into a variant that Triton can serve.

    python -m refersam.export --checkpoint model.pt --variant bert --repository model_repository

Writes nothing unless every stage's graph gives PyTorch's numbers, and a batch the numbers of its rows.
"""

import argparse
import copy
import hashlib
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from refersam import fit, onnx, repository, storage
from refersam.checkpoint import fill, read, state_dict
from refersam.model import ReferSAM
from refersam.model.config import ReferSAMConfig, preset
from refersam.stages import Stage, run, stages

EXPORT_TOLERANCE = 1e-4
"""Greatest error of ONNX Runtime against PyTorch, in units of the tensor's scale (see `error`)."""

BATCH_TOLERANCE = 1e-5
"""Greatest difference between a row computed alone and in a batch by ONNX Runtime, in the same units."""

BATCHES = (1, 3, 8)
"""Numbers of rows at which ONNX Runtime is compared."""

STORAGES = ("fp16", "fp32")
"""How weights are stored: `fp16` is `refersam.storage`'s rounding. Graphs compute in float32 either way."""

TOKENIZERS = {"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"}
"""The tokenizer of each kind of text encoder, unless the checkpoint names one."""


class ExportError(Exception):
    """An export that must not be served. The message lists all that is wrong."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights and what is needed to serve them. `sha256` is that of the file."""

    model: ReferSAM
    sha256: str
    image_size: int
    resize: str
    max_tokens: int
    tokenizer: str
    label: str


def load(
    path: Path,
    config: ReferSAMConfig | None = None,
    meta: Mapping[str, Any] = MappingProxyType({}),
) -> Checkpoint:
    """Read a checkpoint that `refersam.train` wrote, or any other if `config` says of what model it is.

    `meta` overrides the file's own `image_size`, `resize`, `max_tokens`, `tokenizer` and `label`. Raises
    ExportError when one of them is said nowhere or cannot be, and CheckpointError for weights that do not
    fit.
    """
    saved = read(path)
    said = saved if isinstance(saved, Mapping) else {}
    if config is None:
        if "config" not in said:
            raise ExportError(f"{path} does not say what model it is of: give --size and --text")
        config = ReferSAMConfig.from_dict(said["config"])
    known = {"tokenizer": TOKENIZERS[config.text.kind], "label": path.stem, "resize": fit.STRETCH}
    known |= (said["meta"] if isinstance(said.get("meta"), Mapping) else {}) | meta
    missing = [name for name in ("image_size", "max_tokens") if name not in known]
    if missing:
        options = ", ".join("--" + name.replace("_", "-") for name in missing)
        raise ExportError(f"{path} does not say what input the model was trained for: give {options}")
    if known["image_size"] < 32 or known["image_size"] % 32:
        raise ExportError(f"image size {known['image_size']} is not a multiple of 32")
    if known["resize"] not in fit.RULES:
        raise ExportError(f"no resize rule {known['resize']!r}, allowed: {', '.join(fit.RULES)}")
    if not 3 <= known["max_tokens"] <= config.text.positions:
        raise ExportError(
            f"the text encoder reads 3 to {config.text.positions} tokens, not {known['max_tokens']}"
        )
    model = ReferSAM(config)
    fill(model, state_dict(saved, path), path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Checkpoint(
        model=model.eval(),
        sha256=digest,
        **{name: known[name] for name in ("image_size", "resize", "max_tokens", "tokenizer", "label")},
    )


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


def export(checkpoint: Checkpoint, variant: str, root: Path, weights: str = "fp16") -> None:
    """Write a variant's models into the repository `root`, replacing those it had; prints what it finds.

    The folders appear only after all graphs have been compared. Raises ExportError when one disagrees,
    `onnx.GraphError` when one must not be served; `root` is then as it was.
    """
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=root) as name:
        folder = Path(name)
        replace(write(checkpoint, variant, folder, weights), folder, root)


def replace(models: Sequence[str], folder: Path, root: Path) -> None:
    """Move models from `folder` to `root`, and those of the same names in `root` to NAME.old in `folder`.

    When it fails or is interrupted, those it replaced are back in `root`.
    """
    try:
        for model in models:
            if (root / model).exists():
                (root / model).rename(folder / f"{model}.old")
            (folder / model).rename(root / model)
    except BaseException:
        for model in models:
            old = folder / f"{model}.old"
            if old.exists():
                if (root / model).exists():
                    (root / model).rename(folder / model)
                old.rename(root / model)
        raise


def write(checkpoint: Checkpoint, variant: str, folder: Path, weights: str) -> Sequence[str]:
    """Export, compare and write a variant into an empty folder; returns the models' names."""
    inputs = examples(checkpoint, max(BATCHES))
    model, tables = checkpoint.model, []
    if weights == "fp16":
        model = copy.deepcopy(model)
        tables = storage.round_weights(model)
    parts = stages(model)
    tensors = run(parts, inputs)

    described = repository.Variant(
        variant,
        tuple(describe(part, tensors) for part in parts),
        repository.ensemble_parameters(
            variant=variant,
            label=checkpoint.label,
            tokenizer=checkpoint.tokenizer,
            max_tokens=checkpoint.max_tokens,
            image_size=checkpoint.image_size,
            resize=checkpoint.resize,
            checkpoint=checkpoint.sha256,
            precision="fp32",
        ),
    )

    comparisons, total = [], 0
    for part, spec in zip(parts, described.stages, strict=True):
        graph = onnx.export(part, [tensors[name][:2] for name in part.inputs])
        if weights == "fp16":
            storage.compress(graph, tables)
        path = repository.write_stage(folder, described, spec, graph)
        # A large graph and its session would be in memory together.
        del graph
        comparisons += compare(part, path, tensors)
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        total += size
        print(f"{part.name}: {size / 1e6:.2f} MB", flush=True)
    print(f"all stages: {total / 1e6:.2f} MB")
    print(*comparisons, sep="\n")
    if weights == "fp16":
        print(rounding_loss(run(stages(checkpoint.model), inputs), tensors))
    failures = [str(c) for c in comparisons if not c.ok]
    if failures:
        raise ExportError("\n".join(["the graphs disagree:", *failures]))
    repository.write_ensemble(folder, described)
    return described.models


def rounding_loss(exact: Mapping[str, Tensor], rounded: Mapping[str, Tensor]) -> str:
    """What rounding the weights does to masks of random inputs: a loss of quality, no error of the export."""
    off = error(rounded["mask_logits"].numpy(), exact["mask_logits"].numpy())
    flipped = ((exact["mask_logits"] >= 0) != (rounded["mask_logits"] >= 0)).float().mean()
    return f"rounding moves mask logits by up to {off:.1e} of their scale and flips {flipped:.3%} of pixels"


def describe(stage: Stage, tensors: Mapping[str, Tensor]) -> repository.StageSpec:
    """A stage's tensors as they are, which is what its configuration must say."""

    def tensor(name: str) -> repository.Tensor:
        array = tensors[name].numpy()
        return repository.Tensor(name, array.dtype, array.shape[1:])

    return repository.StageSpec(
        stage.name, tuple(map(tensor, stage.inputs)), tuple(map(tensor, stage.outputs))
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refersam.export", description=__doc__.split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True, help="of refersam.train, or any other")
    parser.add_argument("--variant", required=True, help="the ensemble is called refersam_VARIANT")
    parser.add_argument("--repository", type=Path, required=True, help="folder that Triton loads models from")
    parser.add_argument("--weights", choices=STORAGES, default="fp16", help="how to store them (%(default)s)")
    parser.add_argument("--size", help="of the model, if the checkpoint does not say: vit_b, vit_l, vit_h")
    parser.add_argument("--text", choices=sorted(TOKENIZERS), help="its text encoder; needed with --size")
    parser.add_argument("--image-size", type=int, help="side of the input in pixels, a multiple of 32")
    parser.add_argument("--resize", choices=fit.RULES, help="how it was trained to get pictures (stretch)")
    parser.add_argument("--max-tokens", type=int, help="length of the input in tokens, special ones counted")
    parser.add_argument("--label", help="what the gateway calls these weights; default: the checkpoint's")
    args = parser.parse_args(argv)
    if bool(args.size) != bool(args.text):
        parser.error("--size and --text go together")
    if not re.fullmatch(r"[a-z0-9_]+", args.variant):
        parser.error("--variant is made of a-z, 0-9 and _")
    given = {name: getattr(args, name) for name in ("image_size", "resize", "max_tokens", "label")}
    try:
        checkpoint = load(
            args.checkpoint,
            preset(args.size, args.text) if args.size else None,
            {name: value for name, value in given.items() if value is not None},
        )
        export(checkpoint, args.variant, args.repository, args.weights)
    except (ExportError, OSError, ValueError) as failure:
        sys.exit(f"refersam.export: {failure}")


if __name__ == "__main__":
    main()
