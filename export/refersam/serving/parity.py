"""Compares the model with recorded outputs of the published code, tensor by tensor.

A folder holds cases named `<size>_<text>[_<anything>].npz`, for example `tiny_bert_rect.npz`: the inputs
`image` [B, H, W, 3] uint8, `input_ids` and `attention_mask` [B, L], and the tensors that the published code
computed from them with the weights of `recipe`. A tensor is stored whole, or as every n-th value of it in C
order (`<name>__every<n>`) with `<name>__stats` (mean, deviation, largest magnitude, count) and
`<name>__shape`. `loss_<case>.npz` and `.json` hold the criterion's values and gradients for the inputs of
that case.
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from refersam.data.transforms import MEAN, STD
from refersam.model import Output, ReferSAM, preset
from refersam.model.criterion import (
    OVERSAMPLING,
    POINTS,
    UNCERTAIN_SHARE,
    binary_cross_entropy,
    choose_points,
    dice,
    point_criterion,
    read,
)
from refersam.model.grid import Grid
from refersam.serving import recipe

PIXEL_MEAN, PIXEL_STD = np.array(MEAN, dtype=np.float32), np.array(STD, dtype=np.float32)

# Largest absolute error in deviations of the tensor. Float32 against float64 costs the published code up to
# 1e-4 of the final logits; an independent order of summation is allowed 20 times that.
TEXT, PREFIX, LATER, COARSE, FINAL = 5e-5, 2e-4, 3e-4, 5e-4, 2e-3
LIMITS = (
    {"lang_feats": TEXT}
    | dict.fromkeys(("spm_c1", "spm_tokens", "vit_tokens_in", "const_lvl_pos"), PREFIX)
    | dict.fromkeys(("vit_after_injector0", "vit_prefix", "adapter_prefix"), PREFIX)
    | dict.fromkeys(("coarse_logits", "mask_prompt"), COARSE)
    | dict.fromkeys(("low_res_all", "low_res_logits", "logits"), FINAL)
    # Behind a LayerNorm over four channels of the coarse mask, which are nearly equal where it is flat: the
    # published code itself is off by up to 5e-4 here.
    | {"dense_prompt": FINAL}
)
"""Everything else may be off by LATER."""
PIXELS_PER_FLIP = 20_000
"""One pixel of a mask in this many may be on the other side of the threshold."""
LOSS_LIMIT = 1e-5
RECORDED_LIMIT = 3e-6
"""Of a criterion's value on the recorded logits. Another order of summation costs up to 1.4e-6."""
CRITERION_SEED = 1234
GRADIENT_LIMIT = 5e-3
"""Of a parameter's gradient, relative to its norm. Float32 alone costs up to 2e-3."""

DRAWS = ("main_over", "main_rest", "aux_over", "aux_rest")
"""Recorded random points, in the criterion's order."""
INPUTS = ("image", "input_ids", "attention_mask")


@dataclass(frozen=True)
class Comparison:
    case: str
    tensor: str
    error: float
    allowed: float

    @property
    def ok(self) -> bool:
        return self.error <= self.allowed  # false for NaN

    def __str__(self) -> str:
        verdict = "ok" if self.ok else "FAIL"
        return f"{self.case:<18} {self.tensor:<44} {self.error:9.2e} {self.allowed:9.2e}  {verdict}"


HEADER = f"{'case':<18} {'tensor':<44} {'max error':>9} {'allowed':>9}"


def compare(folder: Path, seed: int) -> Iterator[Comparison]:
    """All comparisons of all cases in a folder. Raises ValueError on a file that is not a case."""
    for path in sorted(folder.glob("*.npz")):
        compare_file = compare_loss if path.stem.startswith("loss_") else compare_case
        try:
            yield from compare_file(path, seed)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            raise ValueError(f"{path} is damaged or not a case: {error}") from error


def compare_case(path: Path, seed: int) -> Iterator[Comparison]:
    recorded = np.load(path)
    if missing := [name for name in INPUTS if name not in recorded.files]:
        raise ValueError(f"{path} lacks {', '.join(missing)}")
    computed = every_tensor(build(path.stem, seed), *inputs(recorded))
    names = dict.fromkeys(name.partition("__")[0] for name in recorded.files)
    for name in names:
        if name in INPUTS:
            continue
        if name not in computed:
            raise ValueError(f"{path} holds {name!r}, which no part of the model computes")
        value = computed[name].numpy()
        if name == "mask":
            flips = float((value != recorded[name]).sum())
            yield Comparison(path.stem, "mask (pixels flipped)", flips, value.size / PIXELS_PER_FLIP)
        else:
            yield from compare_tensor(path.stem, name, value, recorded)


def compare_tensor(
    case: str, name: str, value: np.ndarray, recorded: Mapping[str, np.ndarray]
) -> Iterator[Comparison]:
    limit = LIMITS.get(name, LATER)
    sampled = next((key for key in recorded if key.startswith(f"{name}__every")), None)
    if sampled is None:
        expected = recorded[name]
        error = _distance(value, expected)
        yield Comparison(case, name, error, limit * float(expected.std()))
        return
    step = int(sampled.rpartition("every")[2])
    mean, deviation, largest, count = recorded[f"{name}__stats"]
    if value.size != count or value.shape != tuple(recorded[f"{name}__shape"]):
        yield Comparison(case, name, float("inf"), limit * deviation)
        return
    error = _distance(value.ravel()[::step], recorded[sampled])
    yield Comparison(case, f"{name} (every {step})", error, limit * deviation)
    wide = value.astype(np.float64)
    summary = np.array([wide.mean(), wide.std(), np.abs(wide).max()])
    error = _distance(summary, np.array([mean, deviation, largest]))
    yield Comparison(case, f"{name} (mean, deviation, largest)", error, limit * deviation)


def compare_loss(path: Path, seed: int) -> Iterator[Comparison]:
    """Criterion values with recorded points and with a seeded generator, and gradients of the parameters."""
    case = path.stem.removeprefix("loss_")
    recorded, values = np.load(path), json.loads(path.with_suffix(".json").read_text())
    model = build(case, seed)
    arrays = np.load(path.with_name(f"{case}.npz"))
    output = model(*inputs(arrays))
    target = torch.from_numpy(recorded["target"])

    expected = dict(values["f32"])
    seeded = expected.pop("default_seed1234")
    drawn = [torch.from_numpy(recorded[f"rand_{name}"]) for name in DRAWS]
    draws = iter(drawn)
    points = drawn[0].shape[1] // OVERSAMPLING
    losses = point_criterion(output, target, points, lambda samples, count: next(draws))
    flat, labels = output.logits.flatten(1), target.flatten(1).float()
    every_pixel = {"bce_all": binary_cross_entropy(flat, labels), "dice_all": dice(flat, labels)}
    for name, value in (losses | every_pixel).items():
        yield Comparison(path.stem, name, abs(value.item() - expected[name]), LOSS_LIMIT)

    yield from compare_seeded(
        path.stem, Output(*(tensor.detach() for tensor in output)), arrays, target, seeded
    )

    losses["total_loss"].backward()
    yield from compare_gradients(path.stem, model, recorded, values["grads"])


def compare_seeded(
    case: str,
    output: Output,
    arrays: Mapping[str, np.ndarray],
    target: Tensor,
    seeded: Mapping[str, float],
) -> Iterator[Comparison]:
    """Criterion values with points of a seeded generator: on the recorded logits, and on the model's own.

    The criterion keeps the least certain of its candidates. Where two candidates are nearly equal, rounding
    decides which of them is kept, so one may be another than the published code kept.
    """
    published = recorded_output(arrays)
    if published is not None:
        torch.manual_seed(CRITERION_SEED)
        for name, value in point_criterion(published, target).items():
            label = f"{name} (seed {CRITERION_SEED}, recorded logits)"
            yield Comparison(case, label, abs(value.item() - seeded[name]), RECORDED_LIMIT)
    swap = one_swap(output, target)
    torch.manual_seed(CRITERION_SEED)
    for name, value in point_criterion(output, target).items():
        error = abs(value.item() - seeded[name])
        yield Comparison(case, f"{name} (seed {CRITERION_SEED})", error, LOSS_LIMIT + swap[name])


def recorded_output(arrays: Mapping[str, np.ndarray]) -> Output | None:
    """The published code's logits, or None if a case holds no more than samples of them."""
    if not {"low_res_logits", "coarse_logits"} <= set(arrays):
        return None
    low_res, coarse = (torch.from_numpy(arrays[name]) for name in ("low_res_logits", "coarse_logits"))
    logits = torch.from_numpy(arrays["logits"]) if "logits" in arrays else ReferSAM.upsample(low_res)
    return Output(logits, low_res, coarse)


def one_swap(output: Output, target: Tensor) -> dict[str, float]:
    """By how much each value of the criterion may change when one uncertain point is taken for another.

    Both points have the largest magnitude t of a logit that is kept. Their cross-entropies differ by at most
    t, and a sample's Dice by at most 4 sigmoid(t) / (sum of p + sum of labels + 1).
    """

    def uniform(samples: int, count: int) -> Tensor:
        return torch.rand(samples, count, 2)

    torch.manual_seed(CRITERION_SEED)
    kept = int(UNCERTAIN_SHARE * POINTS)
    allowed = {}
    for suffix, logits in (("", output.logits), ("_aux", output.coarse_logits[:, 0])):
        points = choose_points(logits, POINTS, uniform)  # [B, POINTS, 2], the kept candidates first
        read_logits, labels = read(logits, points), read(target.to(logits.dtype), points)  # [B, POINTS]
        edge = read_logits[:, :kept].abs().amax(1)  # [B]
        size = read_logits.sigmoid().sum(1) + labels.sum(1) + 1  # [B]
        allowed[f"loss_mask{suffix}"] = float(edge.max()) / labels.numel()
        allowed[f"loss_dice{suffix}"] = float((4 * edge.sigmoid() / size).max()) / len(labels)
    return allowed | {"total_loss": sum(allowed.values())}


def compare_gradients(
    case: str, model: nn.Module, recorded: Mapping[str, np.ndarray], norms: Mapping[str, list[float] | None]
) -> Iterator[Comparison]:
    """`grad__<key>` in full, and the norms of all others. A norm of None means: takes no part in the loss."""
    gradients = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    for name in recorded:
        if name.startswith("grad__"):
            key, expected = name.removeprefix("grad__"), torch.from_numpy(recorded[name])
            error = (gradients[key] - expected).norm() / expected.norm()
            yield Comparison(case, f"gradient of {key}", error.item(), GRADIENT_LIMIT)

    # Some gradients cancel exactly (a bias of keys shifts whole softmaxes): only rounding is left of them.
    largest = max(norm[0] for norm in norms.values() if norm)
    worst, idle = 0.0, 0.0
    for key, norm in norms.items():
        measured = gradients[key].double().norm().item()
        if norm:
            worst = max(worst, abs(measured - norm[0]) / max(norm[0], 1e-4 * largest))
        elif not key.startswith("text_encoder."):  # recorded with CLIP frozen
            idle = max(idle, measured)
    yield Comparison(case, f"norms of {sum(map(bool, norms.values()))} gradients", worst, GRADIENT_LIMIT)
    yield Comparison(case, "gradients of idle parameters", idle, 0.0)


def build(case: str, seed: int) -> ReferSAM:
    """The model that a case is of, with recipe weights, in evaluation mode."""
    parts = re.fullmatch(r"(.+?)_(bert|clip)(_.+)?", case)
    if parts is None:
        raise ValueError(f"case {case!r} is not named <size>_<bert or clip>[_<anything>]")
    model = ReferSAM(preset(parts[1], parts[2])).eval()
    recipe.fill(model.state_dict(), seed)
    return model


def inputs(recorded: Mapping[str, np.ndarray]) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised image [B, 3, H, W], ids and mask [B, L]."""
    image = (recorded["image"].astype(np.float32) / np.float32(255) - PIXEL_MEAN) / PIXEL_STD
    image = np.ascontiguousarray(image.transpose(0, 3, 1, 2))
    return torch.from_numpy(image), *(torch.from_numpy(recorded[name]) for name in INPUTS[1:])


@torch.no_grad()
def every_tensor(model: ReferSAM, image: Tensor, input_ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
    """All tensors that cases record, by name: results of the stages, and what passes between their parts."""
    adapter, decoder = model.vl_adapter, model.sam_mask_decoder
    length = input_ids.shape[1]
    seen: dict[str, Tensor] = {}
    hooks = []

    def on_result(module: nn.Module, names: Callable[..., dict[str, Tensor]]) -> None:
        hooks.append(module.register_forward_hook(lambda _, args, result: seen.update(names(args, result))))

    def text_and_adapter(stage: int) -> Callable[..., dict[str, Tensor]]:
        return lambda _, result: {
            f"adapter_stage{stage}": result[0],
            f"lang_stage{stage}": result[1][:, :length],
            f"context_stage{stage}": result[1][:, length:],
        }

    on_result(adapter.spm, lambda _, result: {"spm_c1": result[0], "spm_tokens": result[1]})
    on_result(
        adapter.interactions[0].injector,
        lambda args, result: {"vit_tokens_in": args[0], "vit_after_injector0": result.flatten(1, 2)},
    )
    for stage, interaction in enumerate(adapter.interactions):
        extra = interaction.extra_pairs
        last = interaction.extra_vl_extractors[-1] if extra else interaction.vl_extractor
        on_result(last, text_and_adapter(stage))
        if stage > 0:
            block = adapter.vis_model.blocks[adapter.stages[stage][1]]
            on_result(block, lambda _, result, stage=stage: {f"vit_stage{stage}": result})
    on_result(adapter.vis_model.neck, lambda _, result: {"neck_out": result})
    on_result(adapter.c1_norm, lambda _, result: {"c1_feature": result})
    on_result(adapter.out_conv, lambda _, result: {"mask_feature": result})
    on_result(
        adapter.prompt_blocks[0],
        lambda args, result: {"prompt_tokens_in": args[0], "prompt_tokens0": result},
    )
    on_result(adapter.prompt_blocks[-1], lambda _, result: {"prompt_tokens": result})
    on_result(model.mask_embedding, lambda _, result: {"dense_query": result})
    on_result(model.sam_prompt_encoder, lambda _, result: {"dense_prompt": result})
    on_result(model.sam_prompt_encoder.pe_layer, lambda _, result: {"dense_pe": result})
    on_result(
        decoder.transformer,
        lambda _, result: {"decoder_tokens": result[0], "decoder_src": result[1]},
    )

    names = ("vit_prefix", "adapter_prefix", "c1")
    seen |= zip(names, model.image_prefix(image), strict=True)
    seen["lang_feats"] = model.text(input_ids, mask)
    names = ("adapter_tokens", "lang_tokens", "image_embedding")
    fused = model.vli(seen["vit_prefix"], seen["adapter_prefix"], seen["lang_feats"], mask)
    seen |= zip(names, fused, strict=True)
    names = ("sparse_prompts", "mask_prompt", "coarse_logits")
    prompts = model.vlp(seen["adapter_tokens"], seen["lang_tokens"], mask, seen["c1"])
    seen |= zip(names, prompts, strict=True)
    low_res = model.decoder(seen["image_embedding"], seen["sparse_prompts"], seen["mask_prompt"])
    logits = model.upsample(low_res)
    for hook in hooks:
        hook.remove()

    grid = Grid.of_image(image)
    everything = (seen["image_embedding"], seen["dense_pe"], seen["sparse_prompts"], seen["dense_prompt"])
    hypotheses, iou = decoder.all_hypotheses(*everything)
    return seen | {
        "low_res_logits": low_res,
        "logits": logits,
        "mask": logits >= 0,
        "low_res_all": hypotheses,
        "iou_pred_all": iou,
        "const_lvl_pos": adapter.adapter_position(grid),
        "const_prompter_pos": adapter.prompter_position(grid),
    }


def _distance(value: np.ndarray, expected: np.ndarray) -> float:
    """Largest absolute difference; infinite if the shapes differ."""
    if value.shape != expected.shape:
        return float("inf")
    return float(np.abs(value.astype(np.float64) - expected).max())
