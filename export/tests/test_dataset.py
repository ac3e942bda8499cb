"""A data set is one folder: one that is new is trained on and scored through the same door as any other."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from refersam import data, evaluate, train
from refersam.data import catalogue
from refersam.data.batches import Batches
from refersam.data.sample import Question, Sample
from refersam.training.config import TrainConfig

SMOKE = Path(__file__).parent / "data" / "smoke" / "smoke.toml"


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch):
    """The folder `datasets` beside this file holds a data set as the folder `data` of the package does."""
    monkeypatch.setattr(data, "__path__", [*data.__path__, str(Path(__file__).parent / "datasets")])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The smoke test's model on whole pictures with padding, by the published criterion."""
    head, *phases = SMOKE.read_text().split("[[phases]]")
    head = head.replace(
        "image_size = 64", 'image_size = 64\nresize = "longest_side_pad"\ncriterion = "points"'
    )
    phase = phases[1].replace("samples = 480", "samples = 48").replace("side = 32\n", "")
    path = tmp_path / "squares.toml"
    path.write_text(f"{head}[[phases]]{phase}")
    return path


def test_it_is_trained_and_scored(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]):
    spec = f"squares:{tmp_path}"
    arguments = [str(config), "--data", spec, "--out", str(tmp_path / "out"), "--device", "cpu"]
    train.main([*arguments, "--val-samples", "2"])
    printed = capsys.readouterr().out
    assert [line.split("|")[1:3] for line in printed.splitlines() if "|" in line][2:] == [
        [" all ", " 6 "],
        [" absent ", " 2 "],
        [" seen ", " 4 "],
    ]

    model = tmp_path / "out" / "smoke" / "model.pt"
    evaluate.main(
        [
            *("--checkpoint", str(model), "--data", spec, "--split", "testA", "--samples", "3"),
            *("--json", str(tmp_path / "scores.json")),
        ]
    )
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {kind: score["phrases"] for kind, score in scores.items()} == {"all": 9, "absent": 3, "seen": 6}
    saved = torch.load(model, weights_only=True)
    assert saved["meta"]["resize"] == "longest_side_pad"
    state = torch.load(model.with_name("state.pt"), weights_only=True)
    assert all(key.startswith("model.") for key in state["objective"]), "heads for labels that are not there"


def test_its_losses_fall(tmp_path: Path, config: Path):
    text = config.read_text().replace("samples = 48", "samples = 320").replace('criterion = "points"', "")
    config.write_text(text)
    ready = train.prepare(train.Start([config], f"squares:{tmp_path}", tmp_path / "out", "cpu"))
    ready.run.log_every = 1
    ready.train()
    with (tmp_path / "out" / "smoke" / "log.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0])[-3:] == ["total", "mask", "coarse"]
    losses = [float(line["total"]) for line in lines]
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_a_phase_on_labels_needs_labels(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]):
    config.write_text(config.read_text() + "masks = false\n")
    with pytest.raises(SystemExit):
        train.main([str(config), "--data", f"squares:{tmp_path}", "--out", str(tmp_path / "out")])
    assert "phase 'joint' has masks = false" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("spec", "split", "message"),
    [
        ("refcoko:x", "train", "no data set 'refcoko'; allowed: photos, scenes, squares"),
        ("squares:{}", "dev", "no split 'dev'; allowed: train, val, testA"),
        ("squares:{}/absent", "train", "no folder of squares"),
        ("scenes", "train", "name its folder: scenes:DIR"),
        ("scenes", "minival", "no split 'minival'; allowed: train, val, test"),
    ],
)
def test_what_cannot_be_opened_is_named(tmp_path: Path, spec: str, split: str, message: str):
    with pytest.raises((ValueError, OSError), match=message):
        catalogue.load(spec.format(tmp_path), split, 64)


def test_a_mask_of_another_size_than_its_picture_is_refused():
    class Wrong:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            return Sample(np.zeros((8, 9, 3), np.uint8), (Question("dog", lambda: np.zeros((9, 8), bool)),))

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(texts), 3), np.int64), np.ones((len(texts), 3), np.int64)

    batches = Batches(Wrong(), encode, 32, "stretch", pictures=1, phrases=1, seed=0)
    with pytest.raises(ValueError, match=r"'dog' has a mask of \(9, 8\) pixels, its picture \(8, 9\)"):
        batches.batch(0, easy=False)


def test_padding_is_in_no_mask(tmp_path: Path):
    """A picture of 50 x 80 pixels in a square of 64 ends at row 40."""
    config = TrainConfig.read(SMOKE)
    assert dataclasses.replace(config, resize="longest_side_pad").meta()["resize"] == "longest_side_pad"

    class Full:
        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: int) -> Sample:
            depth = np.full((50, 80), 300)
            question = Question("all", lambda: np.ones((50, 80), bool), labels={"sort": 2})
            return Sample(np.zeros((50, 80, 3), np.uint8), (question,), {"depth": depth})

    def encode(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return np.ones((len(texts), 3), np.int64), np.ones((len(texts), 3), np.int64)

    batch = Batches(Full(), encode, 64, "longest_side_pad", pictures=1, phrases=2, seed=0).batch(0, False)
    assert batch.targets[:, :40].all()
    assert not batch.targets[:, 40:].any()
    assert batch.labels["depth"].shape == (1, 64, 64)
    assert batch.labels["depth"][0, :40].unique().tolist() == [300]
    assert not batch.labels["depth"][0, 40:].any()
    assert batch.labels["sort"].tolist() == [2, 2]
