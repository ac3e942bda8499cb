"""The model against recorded outputs of the published code, and the tool that compares them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from refersam.parity import main
from refersam.serving import parity

torch.set_num_threads(1)

REFERENCE = Path(__file__).parent / "data/reference"
SMALLEST = "tiny_bert_rect"
CASES = sorted(path.stem for path in REFERENCE.glob("*.npz"))


@pytest.mark.parametrize("case", CASES)
def test_case(case):
    path = REFERENCE / f"{case}.npz"
    compare = parity.compare_loss if case.startswith("loss_") else parity.compare_case
    comparisons = list(compare(path, seed=1))
    assert len(comparisons) > 20
    assert not [str(comparison) for comparison in comparisons if not comparison.ok]


def loss_case(tmp_path: Path, case: str, change: Callable[[dict], None]) -> list[parity.Comparison]:
    """Comparisons of a copy of a loss case after `change` has edited its values."""
    for name in (f"{case}.npz", f"loss_{case}.npz"):
        shutil.copy(REFERENCE / name, tmp_path)
    values = json.loads((REFERENCE / f"loss_{case}.json").read_text())
    change(values["f32"])
    (tmp_path / f"loss_{case}.json").write_text(json.dumps(values))
    return list(parity.compare_loss(tmp_path / f"loss_{case}.npz", seed=1))


@pytest.mark.parametrize("value", ["loss_mask", "loss_dice", "loss_mask_aux", "loss_dice_aux", "total_loss"])
def test_seeded_values_are_judged_on_the_recorded_logits(tmp_path, value):
    def wrong(values: dict) -> None:
        values["default_seed1234"][value] += 8e-6

    failed = [c.tensor for c in loss_case(tmp_path, "tiny_clip", wrong) if not c.ok]
    assert failed == [f"{value} (seed 1234, recorded logits)"]


def test_one_point_may_be_swapped_on_the_models_own_logits(tmp_path):
    """The value that one other point gives passes on our own logits; twice that does not."""

    def compared(swaps: float) -> dict[str, bool]:
        def swapped(values: dict) -> None:
            values["default_seed1234"]["loss_mask"] += swaps * 0.7555 / (3 * 12544)

        return {c.tensor: c.ok for c in loss_case(tmp_path, "tiny_clip", swapped)}

    assert compared(1)["loss_mask (seed 1234)"]
    assert not compared(1)["loss_mask (seed 1234, recorded logits)"]
    assert not compared(2)["loss_mask (seed 1234)"]


@pytest.fixture
def folder(tmp_path):
    """Writes a folder with the smallest case in it, some arrays of which are other than recorded."""

    def write(**changes: np.ndarray) -> Path:
        np.savez(tmp_path / f"{SMALLEST}.npz", **(recorded() | changes))
        return tmp_path

    return write


def recorded() -> dict[str, np.ndarray]:
    with np.load(REFERENCE / f"{SMALLEST}.npz") as arrays:
        return dict(arrays)


def test_prints_a_line_a_tensor(folder, capsys):
    assert main([str(folder())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith(SMALLEST) and " low_res_logits " in line for line in lines)
    assert all(line.endswith("ok") for line in lines[1:-1])


def test_other_weights_fail(folder, capsys):
    assert main([str(folder()), "--seed", "2"]) == 1
    lines = capsys.readouterr().out.splitlines()
    failed = [line.split()[1] for line in lines if line.endswith("FAIL")]
    assert {"lang_feats", "vit_prefix", "adapter_tokens", "low_res_logits", "mask"} <= set(failed)
    assert lines[-1].endswith(f"{len(failed)} failed")


def test_one_wrong_value_fails(folder, capsys):
    logits = recorded()["coarse_logits"]
    logits[1, 0, 3, 5] += 0.01
    assert main([str(folder(coarse_logits=logits))]) == 1
    assert capsys.readouterr().out.count("FAIL") == 1


def test_not_a_number_fails(folder):
    logits = np.full_like(recorded()["low_res_logits"], np.nan)
    assert main([str(folder(low_res_logits=logits))]) == 1


def test_wrong_shape_fails(folder, capsys):
    assert main([str(folder(dense_query=np.ones((2, 1, 32), dtype=np.float32)))]) == 1
    assert capsys.readouterr().out.count("FAIL") == 1


def test_no_case_is_a_failure(tmp_path, capsys):
    assert main([str(tmp_path)]) == 1
    assert "no case" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        (
            "nonsense.npz",
            {"image": np.zeros(1), "input_ids": np.zeros(1), "attention_mask": np.zeros(1)},
            "nonsense",
        ),
        ("tiny_bert.npz", {"image": np.zeros(1)}, "lacks input_ids, attention_mask"),
    ],
)
def test_files_that_are_no_case(tmp_path, capsys, name, arrays, message):
    np.savez(tmp_path / name, **arrays)
    assert main([str(tmp_path)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("kept", [0.2, 0.6])
def test_a_damaged_file_is_named(folder, capsys, kept):
    (path,) = folder().glob("*.npz")
    whole = path.read_bytes()
    # What is missing is missed in the directory at the end, or in an array.
    cut = int(len(whole) * kept)
    path.write_bytes(whole[:cut] if kept < 0.5 else whole[:cut] + bytes(2000) + whole[cut + 2000 :])
    assert main([str(path.parent)]) == 1
    assert f"{path} is damaged" in capsys.readouterr().err


def test_unknown_tensor_is_an_error(folder, capsys):
    assert main([str(folder(surprise=np.ones(3)))]) == 1
    assert "surprise" in capsys.readouterr().err
