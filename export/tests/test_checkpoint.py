import argparse
import collections
import datetime
import os
import random
import shutil
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import pytest
import torch

from refersam.model import ReferSAM, preset
from refersam.model.weights import SAM_PREFIXES, CheckpointError, load_checkpoint, load_sam, read

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


class Evil:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return shutil.copyfile, (__file__, str(self.path))


class Unknown:
    """A class of somebody's trainer."""


@pytest.mark.parametrize("entry", ["model", "args"])
def test_code_in_a_checkpoint_is_not_run_and_its_name_is_said(tmp_path, source, model, entry):
    ran = tmp_path / "ran"
    evil = {"model": source, entry: {"weight": Evil(ran)}}
    with pytest.raises(CheckpointError, match=r"holds shutil\.copyfile, .*weights_only=False"):
        load_checkpoint(model, written(tmp_path, evil))
    assert not ran.exists()


@pytest.mark.parametrize(
    ("what", "name"), [(eval, "eval"), (os.system, r"posix\.system"), (Unknown(), r"\S*Unknown")]
)
def test_a_class_that_is_not_known_is_named(tmp_path, source, model, what, name):
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=f"holds {name}, which is not loaded.*torch.save"):
        load_checkpoint(model, written(tmp_path, {"model": source, "args": what}))
    assert_holds(model, before)


HARMLESS = {
    "namespace": argparse.Namespace(lr=1e-4, out=Path("runs"), seen=np.float64(0.5), flags=[None, True]),
    "paths": [Path("a/b"), PurePosixPath("a"), PureWindowsPath("c:/x")],
    "numpy scalars": [np.float64(0.71), np.int64(3), np.bool_(True), np.float32, np.dtype("f4")],
    "numpy arrays": np.random.default_rng(0).random((3, 2)),
    "random states": (
        np.random.RandomState(1).get_state(),
        torch.get_rng_state(),
        random.Random(2).getstate(),
    ),
    "containers": [
        collections.OrderedDict(a=1),
        collections.defaultdict(list, a=[1]),
        collections.deque([1, 2]),
        collections.Counter("aab"),
        {1, 2},
    ],
    "times": [datetime.datetime(2025, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(seconds=3)],
    "version": torch.__version__,
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_trainers_save_beside_the_weights(tmp_path, source, model, kind, zipped):
    path = tmp_path / "weights.pth"
    saved = {"model": source, "args": HARMLESS[kind], "epoch": 3}
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    load_checkpoint(model, path)
    assert_holds(model, source)
    assert set(torch.serialization.get_safe_globals()) == allowed, (
        "what is allowed here is allowed nowhere else"
    )


def test_the_configuration_of_a_hydra_run(tmp_path, source, model):
    """`hydra.py` wrote the file `hydra.pkl`.

    The package omegaconf need not be installed to read it.
    """
    config = (Path(__file__).parent / "data" / "hydra.pkl").read_bytes()

    saved = written(tmp_path, {"model": source})
    changed = tmp_path / "hydra.pth"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(changed, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            if item.filename.endswith("/data.pkl"):
                # A tuple of the two: both pickles without PROTO and STOP, then TUPLE2. The second pickle's
                # memo overwrites the memo of the first, which is not read any more.
                content = content[:-1] + config[2:-1] + b"\x86" + b"."
            new.writestr(item, content)
    state, found = read(changed)
    assert repr(found["c"]) == "<omegaconf.dictconfig.DictConfig, not read>"
    assert state["model"].keys() == source.keys()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_damaged_file_is_named(tmp_path, source, model, kept):
    path = written(tmp_path, source)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if kept < 1 else kept])
    with pytest.raises(CheckpointError, match=str(path)):
        load_checkpoint(model, path)


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
