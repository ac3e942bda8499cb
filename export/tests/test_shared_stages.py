"""Two variants that differ in their text encoder alone share one copy of all other stages."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from refersam import export
from refersam.model import ReferSAM, preset
from refersam.serving import graph
from refersam.serving.checkpoint import load
from refersam.serving.comparison import examples
from refersam.serving.repository import load_stages, parse_pbtxt

SHARED = ("image", "vli", "vlp", "decoder")
OTHER = "mask_scaling.weight"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `one.pt` and `two.pt`, which has another text encoder."""
    folder = tmp_path_factory.mktemp("shared")
    torch.manual_seed(3)
    one = ReferSAM(preset("tiny", "bert")).state_dict()
    two = dict(one) | {
        name: weight + 0.2 * torch.randn_like(weight)
        for name, weight in one.items()
        if name.startswith("text_encoder.") and weight.is_floating_point()
    }
    for name, weights in (("one", one), ("two", two)):
        save(folder / f"{name}.pt", weights)
    return folder


def save(path: Path, weights: dict[str, Any], **meta: Any) -> Path:
    said = {"label": "test", "tokenizer": "bert-base-uncased", "image_size": 64, "max_tokens": 9} | meta
    torch.save({"model": weights, "config": preset("tiny", "bert").to_dict(), "meta": said}, path)
    return path


def export_both(one: Path, two: Path, repository: Path) -> None:
    also = ["--also", f"set_two={two}", "--shared", "set"]
    export.main(["--checkpoint", str(one), "--variant", "set_one", "--repository", str(repository), *also])


@pytest.fixture(scope="module")
def repository(checkpoints: Path) -> Path:
    export_both(checkpoints / "one.pt", checkpoints / "two.pt", checkpoints / "models")
    return checkpoints / "models"


def test_only_the_text_stage_is_there_twice(repository: Path):
    assert {path.name for path in repository.iterdir()} == {
        *("refersam_set_one", "refersam_set_two", "refersam_set_one_text", "refersam_set_two_text"),
        *(f"refersam_set_{name}" for name in SHARED),
    }
    for variant in ("set_one", "set_two"):
        config = parse_pbtxt((repository / f"refersam_{variant}" / "config.pbtxt").read_text())
        steps = [step["model_name"][0] for step in config["ensemble_scheduling"][0]["step"]]
        assert steps == [f"refersam_{variant}_text", *(f"refersam_set_{name}" for name in SHARED)]


def test_each_variant_gives_the_masks_that_it_gives_alone(
    checkpoints: Path, repository: Path, tmp_path: Path
):
    masks = []
    for name in ("one", "two"):
        path = checkpoints / f"{name}.pt"
        export.main(["--checkpoint", str(path), "--variant", name, "--repository", str(tmp_path)])
        inputs = {key: value.numpy() for key, value in examples(load(path), 2, seed=3).items()}
        alone, _ = load_stages(tmp_path, name)
        together, _ = load_stages(repository, f"set_{name}")
        masks.append(together(inputs)["mask_logits"])
        np.testing.assert_array_equal(masks[-1], alone(inputs)["mask_logits"])
    assert np.abs(masks[0] - masks[1]).max() > 1e-3


def test_all_stages_name_the_release(checkpoints: Path, repository: Path):
    digests = [
        hashlib.sha256((checkpoints / f"{name}.pt").read_bytes()).hexdigest() for name in ("one", "two")
    ]
    release = hashlib.sha256("".join(digests).encode()).hexdigest()
    for config in repository.glob("*/config.pbtxt"):
        parameters = parse_pbtxt(config.read_text())["parameters"]
        said = {each["key"][0]: each["value"][0]["string_value"][0] for each in parameters}
        assert said["checkpoint"] == release, config
    for path in repository.glob("*/1/model.onnx"):
        session = onnxruntime.InferenceSession(path)
        types = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
        inputs = {i.name: np.ones((1, *i.shape[1:]), types[i.type]) for i in session.get_inputs()}
        (stamp,) = session.run([f"{path.parents[1].name.rsplit('_', 1)[1]}_stamp"], inputs)
        np.testing.assert_array_equal(stamp[0], graph.stamp_values(release))


def test_a_cpu_server_keeps_results_of_the_image_stage_alone(repository: Path):
    for path in repository.glob("*/configs/cpu.pbtxt"):
        config = parse_pbtxt(path.read_text())
        said = {each["key"][0]: each["value"][0]["string_value"][0] for each in config["parameters"]}
        assert ("row_cache_bytes" in said) == (config["name"] == ["refersam_set_image"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda weights, path: save(path, weights | {OTHER: weights[OTHER] + 1}),
            f"set_two cannot share stages with set_one: its weights {OTHER} are others",
        ),
        (lambda weights, path: save(path, weights, label="x"), "its label is 'x', not 'test'"),
        (lambda weights, path: save(path, weights, max_tokens=8), "its max_tokens is 8, not 9"),
    ],
)
def test_variants_that_differ_elsewhere_are_refused(
    checkpoints: Path, tmp_path: Path, change: Callable[[dict[str, Any], Path], Path], message: str
):
    weights = torch.load(checkpoints / "two.pt", weights_only=True)["model"]
    with pytest.raises(SystemExit, match=message):
        export_both(checkpoints / "one.pt", change(weights, tmp_path / "other.pt"), tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_stage_that_another_variant_uses_is_not_replaced(checkpoints: Path, repository: Path):
    before = {path: path.stat().st_mtime_ns for path in repository.rglob("*")}
    also = ["--also", f"set_four={checkpoints / 'two.pt'}", "--shared", "set"]
    command = ["--checkpoint", str(checkpoints / "one.pt"), "--variant", "set_three", *also]
    with pytest.raises(SystemExit, match="refersam_set_one uses refersam_set_image too"):
        export.main([*command, "--repository", str(repository)])
    assert {path: path.stat().st_mtime_ns for path in repository.rglob("*")} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--variant", "set_one", "--also", "set_two=two.pt"], "--also and --shared go together"),
        (["--variant", "set_one", "--shared", "set"], "--also and --shared go together"),
        (["--variant", "set_one", "--shared", "set", "--also", "set_two"], "--also is 'set_two'"),
        (["--variant", "set_one", "--shared", "set", "--also", "set_one=two.pt"], "each variant once"),
        (["--variant", "set_one", "--shared", "set", "--also", "two=two.pt"], "'two' must begin with 'set_'"),
        (["--variant", "set_one", "--shared", "Set", "--also", "set_two=two.pt"], "'Set' is no name"),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        export.main(["--checkpoint", "one.pt", "--repository", str(tmp_path), *options])
    assert message in capsys.readouterr().err
