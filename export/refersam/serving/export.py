"""Writes a checkpoint into a model repository as a variant that Triton can serve.

Nothing is written unless every stage's graph gives PyTorch's numbers, and a batch the numbers of its rows.
"""

from __future__ import annotations

import copy
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from refersam.serving import graph, repository, storage
from refersam.serving.checkpoint import Checkpoint
from refersam.serving.comparison import BATCHES, compare, error, examples
from refersam.serving.stages import Stage, run, stages

STORAGES = ("fp16", "int8", "fp32")
"""How weights are stored: `fp16` is `storage`'s rounding, `int8` the same with the text encoder's matrices in
8 bits. Graphs compute in float32 either way."""

OWN = ("text_encoder.", "text_proj.", "name_reader.")
"""Beginnings of the names of the modules that the text stage holds, in a photo variant or a plain one."""
EIGHT_BITS = ("text_encoder.",)
"""Beginnings of the names of the modules whose matrices `int8` stores in 8 bits."""


class ExportError(Exception):
    """An export that must not be served. The message lists all that is wrong."""


def export(checkpoint: Checkpoint, variant: str, root: Path, weights: str = "fp16") -> None:
    """Write a variant's models into the repository `root`, replacing those it had; prints what it finds.

    The folders appear only after all graphs have been compared. Raises ExportError when one disagrees,
    `graph.GraphError` when one must not be served; `root` is then as it was.
    """
    export_all({variant: checkpoint}, root, weights)


def export_all(
    checkpoints: Mapping[str, Checkpoint], root: Path, weights: str = "fp16", shared: str = ""
) -> None:
    """`export` for variants, by name, that are released together and share all stages but the text stage.

    The shared stages are written once, as `refersam_<shared>_<stage>`. Raises ExportError too when the
    variants differ in anything that a shared stage holds, or when another variant in `root` uses a stage
    that would be replaced.
    """
    (first, *others), (lead, *rest) = checkpoints.keys(), checkpoints.values()
    for name, other in zip(others, rest, strict=True):
        difference = differs(lead, other)
        if difference:
            raise ExportError(f"{name} cannot share stages with {first}: {difference}")
    names = {
        repository.stage_name(stage.name, variant, shared)
        for variant, checkpoint in checkpoints.items()
        for stage in stages(checkpoint.model)
    }
    ensembles = [repository.ensemble_name(variant) for variant in checkpoints]
    for user, model in repository.users(root, names).items():
        if user not in ensembles:
            raise ExportError(
                f"{user} uses {model} too, which this export would replace:"
                " export both together (--also), or under another name (--variant, --shared)"
            )
    release = identity([checkpoint.sha256 for checkpoint in checkpoints.values()])
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=root) as folder:
        for name, checkpoint in checkpoints.items():
            write(checkpoint, name, Path(folder), weights, release, shared)
        # Ensembles come last: a server that polls the repository must find the stages of what it finds.
        replace([*sorted(names), *ensembles], Path(folder), root)


def identity(digests: Sequence[str]) -> str:
    """The `checkpoint` of variants that are released together.

    That is the SHA-256 of the file if there is one file, else the SHA-256 of the files' hexadecimal digests
    in a row. Every stage of a release has the same, so a stage of another release is found out.
    """
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def differs(one: Checkpoint, other: Checkpoint) -> str:
    """The first thing in which two checkpoints differ apart from their text encoders; "" for nothing."""
    for name in ("image_size", "resize", "max_tokens", "label"):
        if getattr(one, name) != getattr(other, name):
            return f"its {name} is {getattr(other, name)!r}, not {getattr(one, name)!r}"
    sizes, other_sizes = (checkpoint.model.config.to_dict() for checkpoint in (one, other))
    for key in sorted((sizes.keys() | other_sizes.keys()) - {"text"}):
        if sizes.get(key) != other_sizes.get(key):
            return f"its config.{key} is {other_sizes.get(key)!r}, not {sizes.get(key)!r}"
    weights, other_weights = (
        {name: tensor for name, tensor in checkpoint.model.state_dict().items() if not name.startswith(OWN)}
        for checkpoint in (one, other)
    )
    for name in sorted(weights.keys() | other_weights.keys()):
        tensor, other_tensor = weights.get(name), other_weights.get(name)
        if tensor is None or other_tensor is None or not torch.equal(tensor, other_tensor):
            return f"its weights {name} are others"
    return ""


def replace(models: Sequence[str], folder: Path, root: Path) -> None:
    """Move models from `folder` to `root`; models of the same names in `root` become NAME.old in `folder`.

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


def write(
    checkpoint: Checkpoint, variant: str, folder: Path, weights: str, release: str, shared: str = ""
) -> None:
    """Export, compare and write a variant into a folder. A shared stage that is there already stays."""
    inputs = examples(checkpoint, max(BATCHES))
    model, tables = checkpoint.model, []
    if weights != "fp32":
        model = copy.deepcopy(model)
        tables = storage.round_weights(model, EIGHT_BITS if weights == "int8" else ())
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
            checkpoint=release,
            precision="fp32",
        ),
        shared,
    )

    comparisons, total = [], 0
    for part, spec in zip(parts, described.stages, strict=True):
        if (folder / described.stage_model(spec)).exists():
            continue
        model_of_part = graph.export(part, [tensors[name][:2] for name in part.inputs])
        if weights != "fp32":
            storage.compress(model_of_part, tables)
        path = repository.write_stage(folder, described, spec, model_of_part)
        # A large graph and its session would be in memory together.
        del model_of_part
        comparisons += compare(part, path, tensors)
        size = sum(file.stat().st_size for file in path.parent.iterdir())
        total += size
        print(f"{part.name}: {size / 1e6:.2f} MB", flush=True)
    print(f"all stages: {total / 1e6:.2f} MB")
    print(*comparisons, sep="\n")
    if weights != "fp32":
        print(rounding_loss(run(stages(checkpoint.model), inputs), tensors))
    failures = [str(c) for c in comparisons if not c.ok]
    if failures:
        raise ExportError("\n".join(["the graphs disagree:", *failures]))
    repository.write_ensemble(folder, described)


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
