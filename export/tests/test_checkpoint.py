import pickle
from pathlib import Path

import pytest
import torch

from refersam.checkpoint import SAM_PREFIXES, CheckpointError, load_checkpoint, load_sam
from refersam.model import ReferSAM, preset

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def source() -> dict[str, torch.Tensor]:
    torch.manual_seed(5)
    state = ReferSAM(preset("tiny", "bert")).state_dict()
    return {key: torch.randn_like(tensor) for key, tensor in state.items()}


@pytest.fixture
def model() -> ReferSAM:
    return ReferSAM(preset("tiny", "bert"))


def written(tmp_path: Path, saved: object) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(saved, path)
    return path


def assert_holds(model: ReferSAM, state: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    assert all(torch.equal(own[key], value) for key, value in state.items())


@pytest.mark.parametrize("entry", [None, "model", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_layouts(tmp_path, source, model, entry, prefix):
    state = {prefix + key: value for key, value in source.items()}
    state[prefix + "text_encoder.embeddings.position_ids"] = torch.arange(512)[None]
    load_checkpoint(model, written(tmp_path, {entry: state, "epoch": 3} if entry else state))
    assert_holds(model, source)


def test_one_error_lists_every_difference_and_changes_nothing(tmp_path, source, model):
    state = dict(source)
    del state["mask_scaling.weight"], state["vl_adapter.level_embed"]
    state["mask_scaling.wieght"] = source["mask_scaling.weight"]
    state["sparse_embedding.0.weight"] = torch.zeros(2, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, written(tmp_path, state))
    assert str(caught.value).splitlines()[1:] == [
        "missing:",
        "  mask_scaling.weight",
        "  vl_adapter.level_embed",
        "extra:",
        "  mask_scaling.wieght",
        "misshapen:",
        "  sparse_embedding.0.weight is [2, 2], not [64, 64]",
    ]
    assert_holds(model, before)


@pytest.mark.parametrize("saved", [[1, 2], {"model": {"epoch": 3}}, {"epoch": 3}])
def test_files_without_weights(tmp_path, model, saved):
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_checkpoint(model, written(tmp_path, saved))


def test_code_in_a_checkpoint_is_not_run(tmp_path, model):
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(model, written(tmp_path, {"model": Path("anything but tensors")}))


def sam_state(source: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        theirs + key.removeprefix(ours): value
        for theirs, ours in SAM_PREFIXES.items()
        for key, value in source.items()
        if key.startswith(ours)
    }


def test_sam_fills_its_three_parts(tmp_path, source, model):
    untouched = model.vl_adapter.level_embed.detach().clone()
    sam = sam_state(source)
    assert len({key.split(".")[0] for key in sam}) == 3
    load_sam(model, written(tmp_path, sam))
    assert_holds(model, {key: v for key, v in source.items() if key.startswith(tuple(SAM_PREFIXES.values()))})
    assert torch.equal(model.vl_adapter.level_embed, untouched)


def test_sam_of_another_size(tmp_path, source, model):
    sam = sam_state(source)
    sam["image_encoder.pos_embed"] = torch.zeros(1, 64, 64, 768)
    sam["image_encoder.blocks.4.norm1.weight"] = torch.zeros(768)
    del sam["mask_decoder.iou_token.weight"]
    with pytest.raises(CheckpointError) as caught:
        load_sam(model, written(tmp_path, sam))
    for part in (
        "sam_mask_decoder.iou_token.weight",
        "blocks.4.norm1.weight",
        "[1, 64, 64, 768], not [1, 8, 8, 96]",
    ):
        assert part in str(caught.value)
