"""Training on a pool of a few scenes: what must hold of batches, schedules, checkpoints and a resumed run."""

import csv
import dataclasses
import functools
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from refersam import tokenizer, train
from refersam.checkpoint import SAM_PREFIXES
from refersam.data import pool
from refersam.data.batches import EASY_KINDS, NUM_THINGS, Batches, choose
from refersam.data.expressions import Expression
from refersam.evaluate import evaluate, of_checkpoint
from refersam.model import Output, ReferSAM, preset
from refersam.objectives import CRITERIA, Objective, Weights, bce_and_dice, near_outline

SIZE = 64


@pytest.fixture(scope="module")
def pool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    assert list(pool.build(folder, count=6, size=SIZE, expressions=4, workers=1)) == [1, 2, 3, 4, 5, 6]
    return folder


@pytest.fixture(scope="module")
def encode():
    return functools.partial(tokenizer.load("bert-base-uncased").encode, max_tokens=20)


@pytest.fixture
def config() -> train.TrainConfig:
    phase = train.Phase("prefix", samples=8, scenes=2, rate=1e-3, masks=False, side=32, warmup=1)
    return train.TrainConfig(
        variant="bert",
        tokenizer="bert-base-uncased",
        image_size=SIZE,
        max_tokens=20,
        phrases=2,
        model=preset("tiny", "bert"),
        phases=(phase, dataclasses.replace(phase, name="joint", samples=16, masks=True, side=0)),
    )


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_an_unfinished_pool_is_not_opened(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        pool.load(tmp_path, SIZE)


def test_a_pool_of_smaller_pictures_is_refused(pool_dir: Path):
    with pytest.raises(ValueError, match="64"):
        pool.load(pool_dir, 128)


def test_a_pool_of_larger_pictures_is_shrunk(pool_dir: Path):
    rows = np.arange(6)
    images, labels = pool.load(pool_dir, SIZE).pictures(rows)
    small_images, small_labels = pool.load(pool_dir, SIZE // 2).pictures(rows)
    assert small_images.shape == (6, SIZE // 2, SIZE // 2, 3)
    assert small_labels.shape == (6, SIZE // 2, SIZE // 2)
    means = images.reshape(6, SIZE // 2, 2, SIZE // 2, 2, 3).mean((2, 4))
    assert np.abs(means - small_images).mean() < 4, "the same pictures"
    for full, small in zip(labels, small_labels, strict=True):
        shares = [np.bincount(x.ravel(), minlength=7) / x.size for x in (full, small)]
        assert np.abs(shares[0] - shares[1]).max() < 0.02, "the same masks"
    assert set(np.unique(small_labels)) <= set(np.unique(labels)), "no label between two labels"


def test_batches_hold_what_the_scenes_say(pool_dir: Path, encode):
    batch = Batches(pool.load(pool_dir, SIZE), encode, scenes=2, phrases=3, seed=1).batch(0, easy=False)
    assert batch.images.shape == (2, SIZE, SIZE, 3)
    assert batch.targets.shape == (6, SIZE, SIZE)
    assert set(batch.targets.unique().tolist()) <= {0.0, 1.0}
    assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]
    for row, target in enumerate(batch.targets):
        seen = batch.classes[row // 3][target.bool()].unique().tolist()
        assert seen in ([], [int(batch.thing[row])])
    assert int(batch.classes.max()) < NUM_THINGS


def test_batches_are_a_function_of_the_step_and_the_ranks_share_an_epoch(pool_dir: Path, encode):
    opened = pool.load(pool_dir, SIZE)
    first, again = (Batches(opened, encode, 2, 2, seed=3).batch(5, easy=False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    ranks = [Batches(opened, encode, 1, 2, seed=3, rank=r, world=2) for r in range(2)]
    seen = [int(i) for step in range(3) for rank in ranks for i in rank.indices(step)]
    assert sorted(seen) == list(range(6))


def test_easy_phrases_come_first():
    kinds = ["place", "name", "relation", "plural"]
    expressions = [Expression(str(i), k, (0,), 0, None, None, None) for i, k in enumerate(kinds)]
    for seed in range(10):
        chosen = choose(expressions, 2, easy=True, rng=np.random.default_rng(seed))
        assert {e.kind for e in chosen} <= set(EASY_KINDS)


def test_rate_and_auxiliary_schedules():
    phase = train.Phase("joint", samples=0, scenes=1, rate=1.0, warmup=10, floor=0.1, auxiliary=0.5)
    assert train.rate_at(phase, 0, 100) == pytest.approx(0.1)
    assert train.rate_at(phase, 10, 100) == pytest.approx(1.0)
    assert train.rate_at(phase, 55, 100) == pytest.approx(0.55)
    assert train.rate_at(phase, 100, 100) == pytest.approx(0.1)
    assert [train.auxiliary_at(phase, p) for p in (0, 0.25, 0.375, 0.5, 1)] == pytest.approx(
        [1, 1, 0.5, 0, 0]
    )


def test_unknown_keys_of_a_config_are_refused(tmp_path: Path):
    text = (Path(train.__file__).parents[1] / "configs" / "demo_bert.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("image_size", "image_sise"))
    with pytest.raises(TypeError, match="image_sise"):
        train.TrainConfig.read(tmp_path / "c.toml")


def test_shipped_configs_can_be_trained_together():
    folder = Path(train.__file__).parents[1] / "configs"
    configs = train.read_configs([folder / "demo_bert.toml", folder / "demo_clip.toml"])
    assert [config.variant for config in configs] == ["bert", "clip"]
    for config in configs:
        assert all(side % 32 == 0 for side in (config.image_size, *(p.side for p in config.phases)))
        assert config.image_size <= 256
        assert config.max_tokens <= config.model.text.positions
        assert config.model.text.vocab == tokenizer.load(config.tokenizer).vocab_size


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rate = 5e-4", "rate = 4e-4", "differ in more than"),
        ("depth = 6", "depth = 7", "differ in more than"),
        ('name = "outline"', 'name = "joint"', "different names"),
        ('variant = "clip"', 'variant = "bert"', "one variant"),
    ],
)
def test_configs_that_cannot_be_trained_together_are_refused(
    tmp_path: Path, old: str, new: str, message: str
):
    folder = Path(train.__file__).parents[1] / "configs"
    text = (folder / "demo_clip.toml").read_text()
    assert old in text
    changed = text.replace(old, new).replace("[5, 5]]", "[5, 6]]" if "depth" in old else "[5, 5]]")
    (tmp_path / "changed.toml").write_text(changed)
    with pytest.raises(ValueError, match=message):
        train.read_configs([folder / "demo_bert.toml", tmp_path / "changed.toml"])


def test_near_outline_is_a_band_on_both_sides():
    target = torch.zeros(1, 7, 7)
    target[:, 2:5, 2:5] = 1
    band = near_outline(target, 1)[0]
    assert band[3, 3] == 0, "the inside"
    assert band[2, 3] == band[1, 3] == 1, "both sides of the outline"
    assert band[0].sum() == 0, "farther than the radius"
    assert near_outline(torch.ones(1, 4, 4), 2).sum() == 0, "the frame is no outline"


def test_an_error_at_the_outline_costs_more():
    target = torch.zeros(1, 16, 16)
    target[:, 4:12, 4:12] = 1
    logits = 8 * (target - 0.5)
    at_outline, inside = logits.clone(), logits.clone()
    at_outline[:, 4, 8] *= -1
    inside[:, 8, 8] *= -1
    costs = [float(bce_and_dice(x, target, Weights(), radius=1)) for x in (at_outline, inside)]
    assert costs[0] > 2 * costs[1]


@pytest.mark.parametrize("criterion", CRITERIA)
def test_both_criteria_fall_when_the_mask_is_right(criterion: str):
    torch.manual_seed(0)
    objective = Objective(ReferSAM(preset("tiny", "bert")), Weights(), criterion)
    target = torch.zeros(2, 32, 32)
    target[:, 8:24, 8:24] = 1
    coarse = torch.nn.functional.avg_pool2d(target[:, None], 4)
    right = Output(10 * (target - 0.5), coarse, 10 * (coarse - 0.5))
    wrong = Output(-right.logits, coarse, -right.coarse_logits)
    for name, value in objective.mask_losses(right, target).items():
        assert value < 0.2 * objective.mask_losses(wrong, target)[name]


def test_an_unknown_criterion_is_refused():
    with pytest.raises(ValueError, match="dense, points"):
        Objective(ReferSAM(preset("tiny", "bert")), Weights(), "pixels")


@pytest.fixture
def sam(tmp_path: Path, config: train.TrainConfig) -> Path:
    """A SAM checkpoint of random numbers."""
    torch.manual_seed(8)
    state = {
        theirs + key.removeprefix(ours): torch.randn_like(value)
        for theirs, ours in SAM_PREFIXES.items()
        for key, value in ReferSAM(config.model).state_dict().items()
        if key.startswith(ours)
    }
    torch.save(state, tmp_path / "sam.pth")
    return tmp_path / "sam.pth"


def test_a_run_may_start_from_sam(pool_dir: Path, tmp_path: Path, config: train.TrainConfig, sam: Path):
    """SAM's parts are SAM's; all others, of a model and of its average, start at the published values."""
    run = train.Run(config, tmp_path, torch.device("cpu"), pool_dir, sam)
    given = torch.load(sam, weights_only=True)
    torch.manual_seed(config.seed)
    published = ReferSAM(config.model).state_dict()
    for theirs, ours in SAM_PREFIXES.items():
        published |= {ours + k.removeprefix(theirs): v for k, v in given.items() if k.startswith(theirs)}
    for state in (run.objective.model.state_dict(), run.average):
        assert state.keys() == published.keys()
        for key, value in published.items():
            assert torch.equal(state[key], value), key
    for interaction in run.objective.model.vl_adapter.interactions:
        assert interaction.injector.gamma.detach().numpy() == pytest.approx(1e-6)


def test_a_run_from_nothing_starts_livelier(pool_dir: Path, tmp_path: Path, config: train.TrainConfig):
    run = train.Run(config, tmp_path, torch.device("cpu"), pool_dir)
    for interaction in run.objective.model.vl_adapter.interactions:
        assert interaction.injector.gamma.detach().numpy() == pytest.approx(0.1)


def test_a_run_starts_from_one_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["c.toml", "--pool", "p", "--out", "o", "--sam", "sam.pth", "--start-from", "d"]
    with pytest.raises(SystemExit):
        train.main(arguments)
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_ends_the_run(
    pool_dir: Path, tmp_path: Path, config: train.TrainConfig
):
    run = train.Run(config, tmp_path, torch.device("cpu"), pool_dir)
    with torch.no_grad():
        run.objective.cell8.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        run.run()
    assert not (tmp_path / "model.pt").exists()


def test_the_log_has_a_line_every_so_often(
    pool_dir: Path, tmp_path: Path, config: train.TrainConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(train, "LOG_EVERY", 2)
    train.Run(config, tmp_path, torch.device("cpu"), pool_dir).run()
    lines = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("prefix", "2"),
        ("joint", "2"),
        ("joint", "4"),
    ]
    assert lines[0]["mask"] == ""
    assert float(lines[2]["mask"]) > 0


def test_a_save_that_fails_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "state.pt"
    train.save(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        train.save(path, {"step": lambda: 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_resumed_run_ends_where_an_unbroken_one_does(
    pool_dir: Path, tmp_path: Path, config: train.TrainConfig
):
    cpu = torch.device("cpu")
    whole = train.Run(config, tmp_path / "whole", cpu, pool_dir)
    (tmp_path / "whole").mkdir()
    whole.run()

    out = tmp_path / "broken"
    out.mkdir()
    # A stop in the middle of the second phase: its steps keep the schedule of the whole phase.
    broken = train.Run(config, out, cpu, pool_dir)
    broken.train_phase(0)
    steps = broken.step
    original, broken.save = broken.save, lambda: None

    class KilledError(Exception):
        pass

    def stop_after_two() -> None:
        train.Run.update_average(broken)
        if broken.phase == "joint" and broken.step == 2:
            original()
            raise KilledError

    broken.update_average = stop_after_two
    with pytest.raises(KilledError):
        broken.train_phase(1)
    assert steps == 2

    resumed = train.Run(config, out, cpu, pool_dir)
    assert resumed.resume()
    assert (resumed.phase, resumed.step) == ("joint", 2)
    resumed.run()
    assert resumed.step == whole.step == 4
    for key, value in whole.objective.state_dict().items():
        torch.testing.assert_close(resumed.objective.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_a_run_may_start_from_weights(pool_dir: Path, tmp_path: Path, config: train.TrainConfig):
    donor = train.Run(config, tmp_path, torch.device("cpu"), pool_dir)
    donor.save()
    run = train.Run(dataclasses.replace(config, seed=5), tmp_path, torch.device("cpu"), pool_dir)
    run.start_from(tmp_path / "model.pt")
    for state in (run.objective.model.state_dict(), run.average):
        assert all(torch.equal(v, donor.average[k]) for k, v in state.items())
    assert run.objective.cell8.weight.abs().max() == 0


def variants_in_two_processes(
    rank: int, folder: Path, pool_dir: Path, config: train.TrainConfig, attempt: int
) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", f"file://{folder}/rendezvous{attempt}", rank=rank, world_size=2
    )
    if rank == 1:
        config = dataclasses.replace(
            config, variant="clip", tokenizer="clip-vit-large-patch14", model=preset("tiny", "clip"), seed=0
        )
    out = folder / config.variant
    out.mkdir(exist_ok=True)
    train.SAVE_SECONDS = 0
    run = train.Run(config, out, torch.device("cpu"), pool_dir, variants=2)
    (out / "resumed").write_text(str(run.step) if run.resume() else "no")
    run.run()
    torch.distributed.destroy_process_group()


def test_variants_trained_together_share_the_image_side(
    pool_dir: Path, tmp_path: Path, config: train.TrainConfig
):
    def train_both(attempt: int) -> dict[str, dict]:
        arguments = (tmp_path, pool_dir, config, attempt)
        torch.multiprocessing.spawn(variants_in_two_processes, arguments, nprocs=2)
        paths = {variant: tmp_path / variant / "state.pt" for variant in ("bert", "clip")}
        return {variant: torch.load(path, weights_only=True) for variant, path in paths.items()}

    states = train_both(1)
    bert, clip = (states[v]["objective"] for v in ("bert", "clip"))
    start = train.Run(config, tmp_path, torch.device("cpu"), pool_dir).objective.state_dict()
    shared = [key for key in bert if not key.startswith(train.TEXT_SIDE)]
    assert shared == [key for key in clip if not key.startswith(train.TEXT_SIDE)]
    for key in shared:
        assert torch.equal(bert[key], clip[key]), key
    moved = {key for key in bert if not torch.equal(bert[key], start[key])}
    assert {"model.vl_adapter.vis_model.blocks.0.mlp.lin1.weight", "words.thing.weight"} <= moved
    assert not torch.equal(bert["words.thing.weight"], clip["words.thing.weight"])
    assert states["bert"]["samples"] == 16, "phrases of both variants"

    # A kill between the two saves of the last step: both go on from the step that both have.
    assert (tmp_path / "bert" / "resumed").read_text() == "no"
    (tmp_path / "bert" / "state.old.pt").replace(tmp_path / "bert" / "state.pt")
    again = train_both(2)
    for variant in ("bert", "clip"):
        assert (tmp_path / variant / "resumed").read_text() == str(states[variant]["step"] - 1)
        for key, value in states[variant]["objective"].items():
            torch.testing.assert_close(again[variant]["objective"][key], value, rtol=1e-5, atol=1e-6)

    (tmp_path / "clip" / "state.pt").unlink()
    (tmp_path / "clip" / "state.old.pt").unlink()
    with pytest.raises(Exception, match="of different steps"):
        train_both(3)


def test_a_process_for_each_variant_is_needed(pool_dir: Path, tmp_path: Path, config: train.TrainConfig):
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        train.Run(config, tmp_path, torch.device("cpu"), pool_dir, variants=2)


def test_the_saved_model_is_scored(pool_dir: Path, tmp_path: Path, config: train.TrainConfig, encode):
    run = train.Run(config, tmp_path, torch.device("cpu"), pool_dir)
    run.run()
    assert all(math.isfinite(float(v.sum())) for v in run.average.values())
    predict, meta = of_checkpoint(tmp_path / "model.pt", torch.device("cpu"))
    want = {"tokenizer": "bert-base-uncased", "image_size": SIZE, "resize": "stretch", "max_tokens": 20}
    assert meta == want
    board = evaluate(predict, encode, meta["image_size"], "val", 2)
    assert board.scores()["all"]["phrases"] == 8
    assert (tmp_path / "log.csv").exists() is False  # fewer steps than a log line
