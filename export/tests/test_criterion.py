"""The criterion against recorded values; test_parity adds gradients and the model's own logits."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from refersam.model import Output
from refersam.model.criterion import binary_cross_entropy, choose_points, dice, point_criterion, read

torch.set_num_threads(1)

REFERENCE = Path(__file__).parent / "data/reference"
MASKS = {"main": "", "aux": "_aux"}


@pytest.fixture(params=("tiny_bert", "tiny_clip"))
def recorded(request):
    with np.load(REFERENCE / f"loss_{request.param}.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays.files if "grad" not in name}
    with np.load(REFERENCE / f"{request.param}.npz") as arrays:
        tensors["coarse"] = torch.from_numpy(arrays["coarse_logits"])
    values = json.loads((REFERENCE / f"loss_{request.param}.json").read_text())
    return tensors, values["f32"]


@pytest.mark.parametrize(("mask", "suffix"), MASKS.items())
def test_labels_and_losses_at_recorded_points(recorded, mask, suffix):
    tensors, values = recorded
    labels = read(tensors["target"].float(), tensors[f"{mask}_points"])
    torch.testing.assert_close(labels, tensors[f"{mask}_labels"], rtol=0, atol=1e-5)
    logits = tensors[f"{mask}_logits"]
    assert binary_cross_entropy(logits, labels).item() == pytest.approx(
        values[f"loss_mask{suffix}"], abs=1e-5
    )
    assert dice(logits, labels).item() == pytest.approx(values[f"loss_dice{suffix}"], abs=1e-5)


def test_the_recorded_points_are_chosen(recorded):
    tensors, _ = recorded
    draws = iter((tensors["rand_aux_over"], tensors["rand_aux_rest"]))
    chosen = choose_points(tensors["coarse"][:, 0], 196, lambda samples, count: next(draws))
    for mine, theirs in zip(chosen.tolist(), tensors["aux_points"].tolist(), strict=True):
        assert sorted(mine) == sorted(theirs)  # the order of the least certain ones is free


def test_reads_pixel_centres_and_fades_to_zero_outside():
    image = torch.arange(6.0).reshape(1, 2, 3) + 1
    centres = torch.tensor([[[(x + 0.5) / 3, (y + 0.5) / 2] for y in range(2) for x in range(3)]])
    torch.testing.assert_close(read(image, centres), image.flatten(1))
    assert read(image, torch.tensor([[[0.0, 0.25]]])).item() == pytest.approx(0.5)  # half of pixel 1


def test_dice_counts_one_on_both_sides():
    logits = torch.tensor([[30.0, 30.0, -30.0, -30.0]])
    labels = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    assert dice(logits, labels).item() == pytest.approx(1 - (2 * 1 + 1) / (2 + 2 + 1))


def test_default_draws_come_from_the_seeded_generator():
    torch.manual_seed(0)
    output = Output(torch.randn(2, 32, 32), torch.randn(2, 1, 8, 8), torch.randn(2, 1, 8, 8))
    target = torch.randint(0, 2, (2, 32, 32), dtype=torch.uint8)
    values = []
    for _ in range(2):
        torch.manual_seed(7)
        values.append(point_criterion(output, target, points=64))
    assert values[0] == values[1]
    assert set(values[0]) == {"loss_mask", "loss_dice", "loss_mask_aux", "loss_dice_aux", "total_loss"}
    parts = [value for name, value in values[0].items() if name != "total_loss"]
    assert values[0]["total_loss"] == sum(parts)
