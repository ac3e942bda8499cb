"""Training on a pool of a few scenes: what must hold of batches, schedules, checkpoints and a resumed run."""

import csv
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from refersam import tokenizer, train
from refersam.data.batches import Batches, choose
from refersam.data.sample import Question
from refersam.data.scenes import Drawn, pool
from refersam.data.scenes.pool import Pool
from refersam.data.scenes.questions import CLASSES
from refersam.evaluation.predictors import Inputs, of_checkpoint
from refersam.evaluation.score import score
from refersam.model import Output, ReferSAM, preset
from refersam.model.weights import SAM_PREFIXES
from refersam.training import checkpoints, demo
from refersam.training.config import Phase, TrainConfig, read_configs
from refersam.training.loop import Run
from refersam.training.objective import (
    CRITERIA,
    TEXT_ENCODER,
    Objective,
    Weights,
    bce_and_dice,
    near_outline,
)

SIZE = 64
CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(scope="module")
def pool_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    assert list(pool.build(folder, count=6, size=SIZE, expressions=4, workers=1)) == [1, 2, 3, 4, 5, 6]
    return folder


@pytest.fixture(scope="module")
def encode():
    return functools.partial(tokenizer.load("bert-base-uncased").encode, max_tokens=20)


@pytest.fixture
def config() -> TrainConfig:
    phase = Phase("prefix", samples=8, pictures=2, rate=1e-3, masks=False, side=32, warmup=1)
    return TrainConfig(
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


def a_run(config: TrainConfig, out: Path, device: torch.device, pool_dir: Path, **options: Any) -> Run:
    return Run(config, out, device, Pool.open(pool_dir, config.largest_side), demo.heads_for, **options)


def batches_of(pool_dir: Path, encode: Any, pictures: int, phrases: int, side: int = SIZE, **options: Any):
    return Batches(Pool.open(pool_dir, side), encode, side, "stretch", pictures, phrases, **options)


def test_an_unfinished_pool_is_not_opened(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        Pool.open(tmp_path, SIZE)


def test_a_pool_of_smaller_pictures_is_refused(pool_dir: Path):
    with pytest.raises(ValueError, match="64"):
        Pool.open(pool_dir, 128)


def test_a_pool_of_larger_pictures_is_shrunk(pool_dir: Path, encode):
    full, small = (batches_of(pool_dir, encode, 6, 1, side, seed=1).batch(0, False) for side in (SIZE, 32))
    assert small.images.shape == (6, 32, 32, 3)
    assert small.labels["classes"].shape == (6, 32, 32)
    means = full.images.numpy().reshape(6, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(means - small.images.numpy()).mean() < 4, "the same pictures"
    shares = (full.targets.mean((1, 2)) - small.targets.mean((1, 2))).abs()
    assert shares.max() < 0.02, "the same masks"
    assert set(small.labels["classes"].unique().tolist()) <= set(full.labels["classes"].unique().tolist())


def test_batches_hold_what_the_scenes_say(pool_dir: Path, encode):
    batch = batches_of(pool_dir, encode, pictures=2, phrases=3, seed=1).batch(0, easy=False)
    assert batch.images.shape == (2, SIZE, SIZE, 3)
    assert batch.targets.shape == (6, SIZE, SIZE)
    assert set(batch.targets.unique().tolist()) <= {0.0, 1.0}
    assert batch.attention_mask.sum(1).max() == batch.input_ids.shape[1]
    for row, target in enumerate(batch.targets):
        seen = batch.labels["classes"][row // 3][target.bool()].unique().tolist()
        assert seen in ([], [int(batch.labels["thing"][row])])
    assert {
        name: int(values.max()) < CLASSES[name] for name, values in batch.labels.items()
    } == dict.fromkeys(CLASSES, True)


def test_scenes_drawn_anew_are_samples_like_those_of_a_pool(pool_dir: Path):
    drawn, pooled = Drawn("val")[3], Pool.open(pool_dir, SIZE)[3]
    assert drawn.labels.keys() == pooled.labels.keys()
    for question in drawn.questions:
        assert question.labels.keys() == pooled.questions[0].labels.keys()
        mask = question.answer()
        assert mask.shape == drawn.picture.shape[:2]
        assert mask.any() == (question.kind != "none")
        assert set(drawn.labels["classes"][mask].tolist()) <= {question.labels["thing"]}
    assert len(Drawn("val")) == 100_000


def test_batches_are_a_function_of_the_step_and_the_ranks_share_an_epoch(pool_dir: Path, encode):
    first, again = (batches_of(pool_dir, encode, 2, 2, seed=3).batch(5, easy=False) for _ in range(2))
    for name in ("images", "input_ids", "attention_mask", "targets"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert all(torch.equal(first.labels[name], again.labels[name]) for name in CLASSES)
    ranks = [batches_of(pool_dir, encode, 1, 2, seed=3, rank=r, world=2) for r in range(2)]
    seen = [int(i) for step in range(3) for rank in ranks for i in rank.indices(step)]
    assert sorted(seen) == list(range(6))


def test_easy_questions_come_first():
    questions = [Question(str(i), lambda: np.zeros((1, 1), bool), easy=i % 2 == 1) for i in range(4)]
    for seed in range(10):
        chosen = choose(questions, 2, easy=True, rng=np.random.default_rng(seed))
        assert {question.phrase for question in chosen} == {"1", "3"}


def test_rate_and_auxiliary_schedules():
    phase = Phase("joint", samples=1, pictures=1, rate=1.0, warmup=10, floor=0.1, auxiliary=0.5)
    assert phase.rate_at(0, 100) == pytest.approx(0.1)
    assert phase.rate_at(10, 100) == pytest.approx(1.0)
    assert phase.rate_at(55, 100) == pytest.approx(0.55)
    assert phase.rate_at(100, 100) == pytest.approx(0.1)
    assert [phase.auxiliary_at(p) for p in (0, 0.25, 0.375, 0.5, 1)] == pytest.approx([1, 1, 0.5, 0, 0])


def test_unknown_keys_of_a_config_are_refused(tmp_path: Path):
    text = (CONFIGS / "demo_bert.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("image_size", "image_sise"))
    with pytest.raises(TypeError, match="image_sise"):
        TrainConfig.read(tmp_path / "c.toml")


def test_shipped_configs_can_be_trained_together():
    folder = CONFIGS
    configs = read_configs([folder / "demo_bert.toml", folder / "demo_clip.toml"])
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
    folder = CONFIGS
    text = (folder / "demo_clip.toml").read_text()
    assert old in text
    changed = text.replace(old, new).replace("[5, 5]]", "[5, 6]]" if "depth" in old else "[5, 5]]")
    (tmp_path / "changed.toml").write_text(changed)
    with pytest.raises(ValueError, match=message):
        read_configs([folder / "demo_bert.toml", tmp_path / "changed.toml"])


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
def sam(tmp_path: Path, config: TrainConfig) -> Path:
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


def test_a_run_may_start_from_sam(pool_dir: Path, tmp_path: Path, config: TrainConfig, sam: Path):
    """SAM's parts are SAM's; all others, of a model and of its average, start at the published values."""
    run = a_run(config, tmp_path, torch.device("cpu"), pool_dir, sam=sam)
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


def test_a_run_from_nothing_starts_livelier(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    run = a_run(config, tmp_path, torch.device("cpu"), pool_dir)
    for interaction in run.objective.model.vl_adapter.interactions:
        assert interaction.injector.gamma.detach().numpy() == pytest.approx(0.1)


def test_a_run_starts_from_one_thing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["c.toml", "--pool", "p", "--out", "o", "--sam", "sam.pth", "--start-from", "d"]
    with pytest.raises(SystemExit):
        train.main(arguments)
    assert "not allowed with argument" in capsys.readouterr().err


def test_a_gradient_that_is_not_finite_ends_the_run(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    run = a_run(config, tmp_path, torch.device("cpu"), pool_dir)
    with torch.no_grad():
        run.objective.auxiliary.cell8.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="non-finite"):
        run.run()
    assert not (tmp_path / "model.pt").exists()


def test_the_log_has_a_line_every_so_often(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    a_run(config, tmp_path, torch.device("cpu"), pool_dir, log_every=2).run()
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
    checkpoints.save(path, {"step": 1})
    with pytest.raises(Exception, match="pickle"):
        checkpoints.save(path, {"step": lambda: 2})
    assert torch.load(path, weights_only=True) == {"step": 1}


def test_a_resumed_run_ends_where_an_unbroken_one_does(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    cpu = torch.device("cpu")
    whole = a_run(config, tmp_path / "whole", cpu, pool_dir)
    (tmp_path / "whole").mkdir()
    whole.run()

    out = tmp_path / "broken"
    out.mkdir()
    # A stop in the middle of the second phase: its steps keep the schedule of the whole phase.
    broken = a_run(config, out, cpu, pool_dir)
    broken.train_phase(0)
    steps = broken.step
    original, broken.save = broken.save, lambda: None

    class KilledError(Exception):
        pass

    def stop_after_two() -> None:
        Run.update_average(broken)
        if broken.phase == "joint" and broken.step == 2:
            original()
            raise KilledError

    broken.update_average = stop_after_two
    with pytest.raises(KilledError):
        broken.train_phase(1)
    assert steps == 2

    resumed = a_run(config, out, cpu, pool_dir)
    assert resumed.resume()
    assert (resumed.phase, resumed.step) == ("joint", 2)
    resumed.run()
    assert resumed.step == whole.step == 4
    for key, value in whole.objective.state_dict().items():
        torch.testing.assert_close(resumed.objective.state_dict()[key], value, rtol=1e-5, atol=1e-6)


def test_a_run_may_start_from_weights(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    donor = a_run(config, tmp_path, torch.device("cpu"), pool_dir)
    donor.save()
    run = a_run(dataclasses.replace(config, seed=5), tmp_path, torch.device("cpu"), pool_dir)
    run.start_from(tmp_path / "model.pt")
    for state in (run.objective.model.state_dict(), run.average):
        assert all(torch.equal(v, donor.average[k]) for k, v in state.items())
    assert run.objective.auxiliary.cell8.weight.abs().max() == 0


def variants_in_two_processes(
    rank: int, folder: Path, pool_dir: Path, config: TrainConfig, attempt: int
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
    run = a_run(config, out, torch.device("cpu"), pool_dir, variants=2, save_seconds=0)
    (out / "resumed").write_text(str(run.step) if run.resume() else "no")
    run.run()
    torch.distributed.destroy_process_group()


def test_variants_trained_together_share_the_image_side(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    def train_both(attempt: int) -> dict[str, dict]:
        arguments = (tmp_path, pool_dir, config, attempt)
        torch.multiprocessing.spawn(variants_in_two_processes, arguments, nprocs=2)
        paths = {variant: tmp_path / variant / "state.pt" for variant in ("bert", "clip")}
        return {variant: torch.load(path, weights_only=True) for variant, path in paths.items()}

    states = train_both(1)
    bert, clip = (states[v]["objective"] for v in ("bert", "clip"))
    start = a_run(config, tmp_path, torch.device("cpu"), pool_dir).objective.state_dict()
    shared = [key for key in bert if not key.startswith((TEXT_ENCODER, "auxiliary.words."))]
    assert shared == [key for key in clip if not key.startswith((TEXT_ENCODER, "auxiliary.words."))]
    for key in shared:
        assert torch.equal(bert[key], clip[key]), key
    moved = {key for key in bert if not torch.equal(bert[key], start[key])}
    assert {"model.vl_adapter.vis_model.blocks.0.mlp.lin1.weight", "auxiliary.words.thing.weight"} <= moved
    assert not torch.equal(bert["auxiliary.words.thing.weight"], clip["auxiliary.words.thing.weight"])
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


def test_a_process_for_each_variant_is_needed(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    with pytest.raises(ValueError, match="torchrun --nproc-per-node 2"):
        a_run(config, tmp_path, torch.device("cpu"), pool_dir, variants=2)


def test_the_saved_model_is_scored(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    run = a_run(config, tmp_path, torch.device("cpu"), pool_dir)
    run.run()
    assert all(math.isfinite(float(v.sum())) for v in run.average.values())
    predict, meta = of_checkpoint(tmp_path / "model.pt", torch.device("cpu"))
    assert meta == Inputs("bert-base-uncased", SIZE, "stretch", 20)
    board = score(predict, meta, Drawn("val"), 2)
    assert board.scores()["all"]["phrases"] == 8
    assert (tmp_path / "log.csv").exists() is False  # fewer steps than a log line


def test_a_state_of_the_first_version_is_resumed(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    """Its heads stood beside the model; the numbers of the optimizer's parameters are the same."""
    run = a_run(config, tmp_path, torch.device("cpu"), pool_dir)
    run.train_phase(0)
    state = run.state()
    state["objective"] = {key.removeprefix("auxiliary."): value for key, value in state["objective"].items()}
    assert "cell8.weight" in state["objective"]
    checkpoints.save(tmp_path / "state.pt", state)
    again = a_run(dataclasses.replace(config, seed=5), tmp_path, torch.device("cpu"), pool_dir)
    assert again.resume()
    assert (again.phase, again.step) == ("prefix", 2)
    for key, value in run.objective.state_dict().items():
        assert torch.equal(again.objective.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: dataclasses.replace(c, model=preset("tiny", "clip")), "another model or data set"),
        (
            lambda c: dataclasses.replace(c, phases=(dataclasses.replace(c.phases[0], name="other"),)),
            "is of the phase 'joint'; the config has",
        ),
    ],
)
def test_a_state_of_another_run_is_refused(
    pool_dir: Path, tmp_path: Path, config: TrainConfig, change: Any, message: str
):
    a_run(config, tmp_path, torch.device("cpu"), pool_dir).run()
    with pytest.raises(ValueError, match=message):
        a_run(change(config), tmp_path, torch.device("cpu"), pool_dir).resume()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("samples = 72_000", "samples = 0", "'prefix'.samples is 0"),
        ("pictures = 16", "pictures = 0", "'prefix'.pictures is 0"),
        ("pictures = 16", "scenes = 16", "now called `pictures`"),
        ("\nside = 160", "\nside = 100", "side is 100"),
        ("rate = 2e-3", "rate = -1.0", "'prefix'.rate is -1.0"),
        ("easy = 0.1", "easy = 2", "'joint'.easy is 2"),
        ("auxiliary = 0.8", "auxiliary = true", "'joint'.auxiliary is True"),
        ("image_size = 224", "image_size = 0", "image_size is 0"),
        ("image_size = 224", "image_size = 200", "image_size is 200"),
        ("max_tokens = 20", "max_tokens = 41", "max_tokens is 41"),
        ("max_tokens = 20", "max_tokens = 2", "max_tokens is 2"),
        ("max_tokens = 20", 'max_tokens = 20\ncriterion = "pixels"', "allowed: dense, points"),
        ("max_tokens = 20", 'max_tokens = 20\nresize = "crop"', "allowed: stretch, longest_side_pad"),
        ("max_tokens = 20", "max_tokens = 20\nphrases = 0", "phrases is 0"),
        ("max_tokens = 20", "max_tokens = 20\nema = 1.5", "ema is 1.5"),
        ("vocab = 30522", "vocab = 30521", "has 30522 words"),
        ("bert-base-uncased", "word2vec", "word2vec"),
    ],
)
def test_settings_beyond_their_bounds_are_refused_by_name(tmp_path: Path, old: str, new: str, message: str):
    text = (CONFIGS / "demo_bert.toml").read_text()
    assert old in text
    (tmp_path / "c.toml").write_text(text.replace(old, new))
    with pytest.raises(ValueError, match=message):
        TrainConfig.read(tmp_path / "c.toml")


def test_settings_at_their_bounds_are_trained_with(pool_dir: Path, tmp_path: Path, config: TrainConfig):
    phase = Phase("least", samples=1, pictures=1, rate=0, side=32, warmup=0, floor=0, easy=1, auxiliary=0)
    least = dataclasses.replace(
        config, phases=(phase,), phrases=1, weight_decay=0, clip=0, ema=0, max_tokens=3, image_size=32
    )
    run = a_run(least, tmp_path, torch.device("cpu"), pool_dir)
    before = {key: value.clone() for key, value in run.objective.state_dict().items()}
    run.run()
    assert run.step == 1
    assert all(torch.equal(value, before[key]) for key, value in run.objective.state_dict().items())
