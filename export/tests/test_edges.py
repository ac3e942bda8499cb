"""Every setting of a model at its smallest value builds, runs, learns and exports; below it is refused."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from refersam.model import (
    AdapterConfig,
    DecoderConfig,
    PrompterConfig,
    ReferSAM,
    ReferSAMConfig,
    TextConfig,
    VitConfig,
)
from refersam.serving import recipe, repository
from refersam.serving.checkpoint import Checkpoint
from refersam.serving.comparison import error, examples
from refersam.serving.export import export
from refersam.serving.stages import run, stages

SIDE, TOKENS = 32, 5

LEAST: dict[str, dict[str, Any]] = {
    "vit": {
        "width": 4,
        "depth": 1,
        "heads": 1,
        "window": 1,
        "global_blocks": (),
        "stages": ((0, 0),),
        "native_side": 16,
        "mlp_ratio": 1,
    },
    "adapter": {
        "prior_width": 1,
        "deform_heads": 1,
        "vl_width": 1,
        "vl_heads": 1,
        "context_tokens": 0,
        "deform_points": 1,
        "value_ratio": 0.25,
        "vl_ffn_ratio": 1,
        "extra_pairs": 0,
    },
    "prompter": {"sparse_tokens": 0, "layers": 1, "heads": 1, "ffn_ratio": 1},
    "decoder": {
        "width": 8,
        "heads": 1,
        "mlp_width": 1,
        "iou_hidden": 1,
        "depth": 0,
        "iou_depth": 1,
        "mask_tokens": 1,
        "attention_downsample": 1,
        "mask_channels": (1, 1),
    },
    "text": {"layers": 1, "heads": 1, "width": 1, "ffn": 1, "vocab": 1, "positions": 3, "dropout": 0.0},
}
"""The smallest value of every field; `text.kind` has none."""


def usual(kind: str = "bert") -> ReferSAMConfig:
    return ReferSAMConfig(
        vit=VitConfig(16, 2, 2, window=2, global_blocks=(1,), stages=((0, 0), (1, 1)), native_side=32),
        adapter=AdapterConfig(
            prior_width=4, deform_heads=2, vl_width=8, vl_heads=2, context_tokens=2, extra_pairs=1
        ),
        prompter=PrompterConfig(sparse_tokens=2, layers=1, heads=2),
        decoder=DecoderConfig(width=16, heads=2, mlp_width=8, iou_hidden=8),
        text=TextConfig(kind, layers=1, heads=2, width=8, ffn=8, vocab=40, positions=TOKENS),
    )


def changed(config: ReferSAMConfig, table: str, **values: Any) -> ReferSAMConfig:
    return dataclasses.replace(config, **{table: dataclasses.replace(getattr(config, table), **values)})


def with_least(table: str, name: str) -> ReferSAMConfig:
    """The usual model with one field at its smallest value, and what must follow from that."""
    values = {name: LEAST[table][name]}
    follow = {
        "depth": {"stages": ((0, 0),), "global_blocks": ()},
        "stages": {"depth": 1, "global_blocks": ()},
    }
    if table == "vit":
        values |= follow.get(name, {}) | ({"heads": 1} if name == "width" else {})
    if table in ("adapter", "text") and name in ("vl_width", "width"):
        values |= {"vl_heads": 1} if table == "adapter" else {"heads": 1}
    return changed(usual(), table, **values)


def checkpoint(config: ReferSAMConfig) -> Checkpoint:
    torch.manual_seed(3)
    model = ReferSAM(config).eval()
    recipe.fill(model.state_dict(), seed=3)
    return Checkpoint(
        model,
        "0" * 64,
        image_size=SIDE,
        resize="stretch",
        max_tokens=min(TOKENS, config.text.positions),
        tokenizer="bert-base-uncased",
        label="edge",
    )


FIELDS = [(table, name) for table, fields in LEAST.items() for name in fields]


def test_every_field_has_a_smallest_value():
    parts = {field.name: field.default_factory for field in dataclasses.fields(ReferSAMConfig)}
    everything = {
        (table, field.name) for table in parts for field in dataclasses.fields(getattr(usual(), table))
    }
    assert everything - set(FIELDS) == {("text", "kind")}


@pytest.mark.parametrize(("table", "name"), FIELDS)
def test_the_smallest_value_runs_and_learns(table: str, name: str):
    model = checkpoint(with_least(table, name)).model.train()
    text = model.config.text
    length = min(TOKENS, text.positions)
    ids = torch.randint(text.vocab, (2, length), generator=torch.Generator().manual_seed(0))
    output = model(torch.randn(2, 3, SIDE, SIDE), ids, torch.ones(2, length))
    assert output.logits.shape == (2, SIDE, SIDE)
    (output.logits.square().mean() + output.coarse_logits.square().mean()).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert sum(gradient.abs().sum() for gradient in gradients) > 0
    torch.optim.AdamW(model.parameters(), fused=True).step()


@pytest.mark.parametrize("kind", ["bert", "clip"])
@pytest.mark.parametrize("least", ["prompter.sparse_tokens", "adapter.context_tokens", None])
def test_the_smallest_values_export(tmp_path: Path, kind: str, least: str | None):
    """Alone, and all at once; the ensemble that is written gives the model's logits."""
    config = usual(kind)
    if least is None:
        values = {table: dict(fields) for table, fields in LEAST.items()}
        values["text"] |= {"kind": kind}
        # A norm over 4 channels that come from a single one enlarges rounding beyond what an export allows.
        values["vit"] |= {"width": config.vit.width}
        config = ReferSAMConfig.from_dict(values)
    else:
        table, name = least.split(".")
        config = changed(config, table, **{name: LEAST[table][name]})
    loaded = checkpoint(config)
    export(loaded, "edge", tmp_path, "fp32")
    inputs = examples(loaded, 3, seed=1)
    truth = run(stages(loaded.model), inputs)
    infer, _ = repository.load_stages(tmp_path, "edge")
    outputs = infer({name: tensor.numpy() for name, tensor in inputs.items()})
    for name, value in outputs.items():
        assert error(value, truth[name].numpy()) < 1e-4, name
    for path in tmp_path.glob("**/*.pbtxt"):
        parsed = repository.parse_pbtxt(path.read_text())
        for tensor in (*parsed["input"], *parsed["output"]):
            assert all(size > 0 for size in tensor["dims"]), f"{path}: {tensor}"
    read_sparse = "sparse_prompts" in (tmp_path / "refersam_edge" / "config.pbtxt").read_text()
    assert read_sparse == bool(config.prompter.sparse_tokens)


def below(value: Any) -> list[Any]:
    """Values that a field with this smallest value must refuse."""
    if isinstance(value, tuple):
        return [(5,), ((-1, 0),), ("a",)]
    if isinstance(value, float):
        return [-0.1, math.nan, math.inf, "much"]
    return [value - 1, value + 0.5, True, "4"]


@pytest.mark.parametrize(
    ("table", "name", "value"),
    [(table, name, value) for table, name in FIELDS for value in below(LEAST[table][name])],
)
def test_what_is_below_is_refused_by_name(table: str, name: str, value: Any):
    values = usual().to_dict()
    values[table][name] = value
    with pytest.raises(ValueError, match=rf"{table}\.{name}"):
        ReferSAMConfig.from_dict(values)


@pytest.mark.parametrize("values", [5, [1], "vit_b"])
def test_a_table_that_is_none_is_refused_by_name(values: object):
    with pytest.raises(ValueError, match=r"config\.vit is"):
        ReferSAMConfig.from_dict(usual().to_dict() | {"vit": values})


def test_inner_width_of_the_decoder_must_be_shared_by_its_heads():
    with pytest.raises(ValueError, match="attention_downsample"):
        DecoderConfig(width=16, heads=4, mlp_width=8, iou_hidden=8, attention_downsample=8)
