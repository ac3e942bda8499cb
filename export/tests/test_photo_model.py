"""The photo model: its parts by hand, its stages as graphs, its training on cached features."""

import dataclasses
import functools
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_photos_data import write_set
from torch import Tensor

from refersam import tokenizer
from refersam.data.photos import load
from refersam.data.photos.collection import Thing
from refersam.model import ReferSAM
from refersam.model.candidates import box_around, box_of, comparisons, hottest, offsets, overlaps, painted
from refersam.model.config import TextConfig, preset
from refersam.model.names import ClassHeat, NameReader, aliases, coco_names, imagenet_names
from refersam.model.photo import PhotoSAM
from refersam.model.photo_config import PhotoConfig, photo_preset
from refersam.model.photo_encoders import PhotoFeatures
from refersam.serving.checkpoint import Checkpoint
from refersam.serving.checkpoint import load as load_checkpoint
from refersam.serving.comparison import compare, examples
from refersam.serving.export import export
from refersam.serving.repository import load_stages
from refersam.serving.stages import run, stages
from refersam.training.choosing import Chooser, ChooserRun, choice_loss, one_of_loss
from refersam.training.features import CacheError, FeatureCache, fingerprint
from refersam.training.joins import BoxPictures, Tile, tiles
from refersam.training.photo_batches import MASK_SIDE, PhotoBatches, SmallScene, mirrored, small_scene
from refersam.training.photo_start import PhotoTrainConfig, StudentConfig, teach
from refersam.training.photos import PhotoPhase, PhotoRun
from refersam.training.reading import accuracy, meanings, reading_loss, readings, set_names
from refersam.training.student import StudentRun, WordTokens
from refersam.training.text_cache import TextCache

SIDE, TOKENS = 64, 8


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(kind: str) -> PhotoConfig:
    """The shipped sizes with smaller layers between the frozen networks, and a small text encoder."""
    whole = photo_preset(kind)
    return dataclasses.replace(
        whole,
        interactor=dataclasses.replace(
            whole.interactor, width=32, trunk_blocks=1, reasoner_layers=1, layers=2, targets=5, references=2
        ),
        prompter=dataclasses.replace(whole.prompter, correlations=4, fine=4, mixed=8),
        text=TextConfig(kind, 1, 2, 32, 64, whole.text.vocab, 40),
        text_width=32 if kind == "bert" else 48,
    )


@functools.cache
def model(kind: str) -> PhotoSAM:
    torch.manual_seed(1)
    made = PhotoSAM(config(kind)).eval()
    encode = functools.partial(tokenizer.load(TOKENIZERS[kind]).encode, max_tokens=TOKENS)
    set_names(made, encode)
    return made


TOKENIZERS = {"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"}


def checkpoint(kind: str) -> Checkpoint:
    return Checkpoint(model(kind), "0" * 64, SIDE, "longest_side_pad", TOKENS, TOKENIZERS[kind], "photo")


def test_config_survives_json():
    whole = photo_preset("clip")
    assert PhotoConfig.from_dict(whole.to_dict()) == whole
    with pytest.raises(ValueError, match="unknown keys"):
        PhotoConfig.from_dict(whole.to_dict() | {"colour": 1})
    with pytest.raises(ValueError, match=r"decoder\.width is 64"):
        dataclasses.replace(whole, decoder=dataclasses.replace(whole.decoder, width=64))


@pytest.mark.parametrize("kind", ["bert", "clip"])
@torch.no_grad()
def test_stages_in_turn_give_what_the_whole_gives(kind):
    inputs = examples(checkpoint(kind), 3)
    tensors = run(stages(model(kind)), inputs)
    from refersam.data.transforms import normalise

    whole = model(kind)(normalise(inputs["image"]), inputs["input_ids"], inputs["attention_mask"])
    torch.testing.assert_close(tensors["mask_logits"], whole.low_res_logits)
    assert tensors["mask_logits"].shape == (3, SIDE // 4, SIDE // 4) == tensors["coarse_logits"].shape


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_a_checkpoint_becomes_a_repository_that_gives_its_numbers(kind, tmp_path):
    path = tmp_path / "model.pt"
    meta = {"image_size": SIDE, "max_tokens": TOKENS, "resize": "longest_side_pad", "label": "photo"}
    torch.save({"model": model(kind).state_dict(), "config": config(kind).to_dict(), "meta": meta}, path)
    read = load_checkpoint(path)
    assert read.tokenizer == TOKENIZERS[kind]
    assert isinstance(read.model, PhotoSAM)
    export(read, "photo", tmp_path / "repository", weights="fp32")
    infer, parameters = load_stages(tmp_path / "repository", "photo")
    assert (parameters["label"], parameters["resize"]) == ("photo", "longest_side_pad")
    inputs = examples(read, 2, seed=3)
    expected = run(stages(read.model), inputs)["mask_logits"]
    answer = infer({name: value.numpy() for name, value in inputs.items()})["mask_logits"]
    assert np.abs(answer - expected.numpy()).max() < 1e-3


def test_absent_things_leave_the_mask_empty():
    photo = model("bert")
    logits = torch.linspace(-5, 9, 64).reshape(1, 8, 8).expand(3, 8, 8)
    presence = torch.tensor([[-0.01], [0.2], [4.0]])
    gated = photo.gated(logits, presence)
    assert not (gated[0] >= 0).any()
    assert torch.equal(gated[1] >= 0, logits[1] >= 0)
    assert torch.equal(gated[2], logits[2])


def plain_nms(heat: np.ndarray, boxes: np.ndarray, pool: int, count: int) -> list[int]:
    """Cells of the pool by heat, without those that overlap a hotter one that is kept."""
    kept: list[int] = []
    for cell in np.argsort(-heat)[:pool]:
        pair = torch.from_numpy(boxes[:, [*kept, cell]].T)[None]
        if not (overlaps(pair, pair)[0, :-1, -1] > 0.6).any():
            kept.append(int(cell))
    return kept[:count]


def test_hottest_boxes_against_a_loop():
    generator = np.random.default_rng(0)
    for _ in range(20):
        corner, size = generator.random((2, 84)) * 0.6, generator.random((2, 84)) * 0.4
        boxes = np.concatenate([corner, corner + size]).astype(np.float32)
        heat = generator.random(84).astype(np.float32)
        top, chosen = hottest(torch.from_numpy(heat)[None], torch.from_numpy(boxes)[None], 6, 30)
        expected = plain_nms(heat, boxes, 30, 6)
        np.testing.assert_array_equal(chosen[0, : len(expected)].numpy(), boxes[:, expected].T)
        np.testing.assert_array_equal(top[0, : len(expected)].numpy(), heat[expected])
        assert not top[0, len(expected) :].any()
        assert not chosen[0, len(expected) :].any()


def test_box_of_a_mask():
    logits = torch.full((2, 8, 16), -3.0)
    logits[0, 2:5, 4:12] = 1.0
    logits[1, 6, 3] = -2.0  # nothing is above the cut: the box of the greatest
    expected = torch.tensor([[4 / 16, 2 / 8, 12 / 16, 5 / 8], [3 / 16, 6 / 8, 4 / 16, 7 / 8]])
    torch.testing.assert_close(box_of(logits, -1.0), expected)


def test_comparisons_count_the_hot_boxes_on_each_side():
    boxes = torch.tensor(
        [[[0.1, 0.1, 0.2, 0.2], [0.4, 0.4, 0.7, 0.7], [0.8, 0.1, 0.9, 0.2], [0.0, 0.0, 1.0, 1.0]]]
    )
    seen = comparisons(boxes, torch.tensor([[0.8, 0.8, 0.8, 0.0]]))[0]  # the last one is cold
    assert seen[:3, 0].round().tolist() == [0, 1, 2]  # left of it
    assert seen[:3, 3].round().tolist() == [2, 1, 0]  # right of it
    assert seen[1, 1].round() == 2  # above it
    assert seen[1, 2].round() == 2  # smaller than it
    assert seen[0, 5].round() == 1  # one is larger, and one of its own size counts half each way


def test_offsets_from_the_hottest_reference():
    boxes = torch.tensor([[[0.1, 0.1, 0.2, 0.3], [0.5, 0.1, 0.7, 0.3]]])
    other = torch.tensor([[[0.4, 0.1, 0.6, 0.3], [0.0, 0.0, 0.1, 0.1]]])
    seen = offsets(boxes, other, torch.tensor([[0.5, 0.2]]))[0]
    torch.testing.assert_close(seen[0], torch.tensor([-0.35, 0.0, 0.2, 0.0, 0.0, 0.5]))
    torch.testing.assert_close(seen[1], torch.tensor([0.1, 0.0, 0.0, 0.0, 1 / 3, 0.5]), atol=1e-4, rtol=0)
    assert not offsets(boxes, other, torch.zeros(1, 2)).any()  # no reference


def test_the_box_for_the_decoder():
    boxes = torch.tensor([[[0.1, 0.2, 0.3, 0.4], [0.5, 0.1, 0.9, 0.3], [0.0, 0.0, 1.0, 1.0]]]).expand(
        3, -1, -1
    )
    weights = torch.tensor([[0.9, 0.6, 0.1], [0.2, 0.4, 0.1], [0.0, 0.0, 0.0]])
    spare = torch.full((3, 4), 0.25)
    expected = torch.tensor([[0.1, 0.1, 0.9, 0.4], [0.5, 0.1, 0.9, 0.3], [0.25, 0.25, 0.25, 0.25]])
    torch.testing.assert_close(box_around(boxes, weights, spare), expected)


def test_painted_boxes():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]]])
    map_ = painted(boxes, torch.tensor([[1.0, 0.25]]), 32)[0]
    assert map_[8, 8] > 0.99
    assert 0.24 < map_[24, 24] < 0.26
    assert map_[24, 8] < 0.01


def test_aliases_mean_classes():
    table = dict(aliases())
    assert [word for word, _ in aliases()][:80] == list(coco_names())
    assert len(imagenet_names()) == 1000
    assert table["sofa"] == ("couch",)
    assert table["window"] == ()
    assert set(table["animal"]) > {"dog", "zebra"}
    assert all(set(classes) <= set(coco_names()) for classes in table.values())


def test_heat_of_a_name_is_its_class_map():
    heat = ClassHeat()
    words = len(aliases())
    names = torch.full((1, 2, words + 1000 + 1), -30.0)
    names[0, 0, coco_names().index("dog")], names[0, 0, -1] = 30.0, 20.0
    names[0, 1, [word for word, _ in aliases()].index("animal")], names[0, 1, -1] = 30.0, 0.0
    names[0, :, words + 7] = 30.0
    scores, classes = torch.randn(1, 80, 9), torch.randn(1, 1000, 4)
    detected, classified = heat(names, scores, classes)
    torch.testing.assert_close(detected[0, 0], scores.sigmoid()[0, coco_names().index("dog")])
    animals = [coco_names().index(name) for name in dict(aliases())["animal"]]
    # The reference is as likely as not, so it has half of the heat.
    expected = (0.5 * scores.sigmoid()[0, animals].sum(0)).clamp(max=1)
    torch.testing.assert_close(detected[0, 1], expected)
    torch.testing.assert_close(classified[0, 0], classes.softmax(1)[0, 7])


def test_a_reader_starts_at_the_mean_of_the_tokens():
    reader = NameReader(32)
    tokens, mask = torch.randn(2, 5, 32), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    torch.testing.assert_close(reader.vectors(tokens, mask)[1, 0], tokens[1, :3].mean(0))


def test_a_reader_learns_which_token_counts():
    """Each phrase has two names, which one channel tells apart, and a token of noise."""
    torch.manual_seed(0)
    reader, words = NameReader(64), len(aliases())
    model = SimpleNamespace(name_reader=reader, class_heat=ClassHeat())
    reader.set_names(torch.randn(words, 64), torch.randn(1000, 64))
    chosen = torch.randint(80, (500, 2))
    tokens = torch.cat([reader.detector[chosen], 0.1 * torch.randn(500, 1, 64)], 1)
    tokens[:, 0, 0], tokens[:, 1, 0] = 0.8, -0.8
    target, reference = (torch.eye(81)[chosen[:, role]] for role in range(2))
    data = (tokens, torch.ones(500, 3, dtype=torch.bool), target, reference)
    before = accuracy(model, *data)
    optimizer = torch.optim.Adam(reader.parameters(), 1e-2)
    for _ in range(150):
        loss = reading_loss(model, *data)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = accuracy(model, *data)
    assert before["target"] < 0.75 < 0.95 < after["target"]
    assert before["reference"] < 0.75 < 0.95 < after["reference"]


def test_readings_name_what_they_say():
    for reading in readings(200, 0):
        assert reading.target in dict(aliases())
        assert bool(reading.reference) == (reading.reference in dict(aliases()))
    table = meanings(["dog", "window", "pet", ""])
    assert table.sum(1).tolist() == [1, 1, 2, 0]
    assert table[1, -1] == 1


SHAPES = {
    "tiny8": (128, 64, 64),
    "tiny16": (160, 32, 32),
    "tiny_last": (320, 32, 32),
    "embedding": (256, 32, 32),
    "lite16": (112, 32, 32),
    "lite32": (1280, 16, 16),
    "scores": (80, 5376),
    "boxes": (4, 5376),
}


def some_features(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = {name: 0.3 * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    corner = torch.rand(2, 5376, generator=generator) * 0.7
    features["boxes"] = torch.cat([corner, corner + 0.05 + 0.25 * torch.rand(2, 5376, generator=generator)])
    return features


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory):
    """Photographs, their scenes and a cache with features of four of them."""
    place = write_set(tmp_path_factory.mktemp("photos"), "coco", 12)
    photos = load(place, "train", 512)
    cache = FeatureCache(place / "cache", SHAPES, len(photos), {"encoders": "a"})
    assert cache.fill([0, 1, 2, 3], some_features) == 4
    scenes = [small_scene(photos, i) if i < 4 else None for i in range(len(photos))]
    return photos, scenes, cache


def batches(drawn, seed: int = 0) -> PhotoBatches:
    return PhotoBatches(*drawn, pictures=1, phrases=3, absent=1, seed=seed)


def a_run(drawn, out: Path, steps: int = 3) -> PhotoRun:
    torch.manual_seed(2)
    made = PhotoSAM(config("bert"))
    encode = functools.partial(tokenizer.load("bert-base-uncased").encode, max_tokens=TOKENS)
    set_names(made, encode)
    phases = [PhotoPhase("head", steps - 1, 1e-3, warmup=1), PhotoPhase("decoder", 1, 1e-3, decoder=2)]
    text = TextCache(made, encode)
    return PhotoRun(
        *(made, batches(drawn), text, phases, out, {"image_size": 512}),
        chooser=a_chooser(made, text, drawn),
        log_every=1,
        bf16=False,
    )


def a_chooser(made: PhotoSAM, text: TextCache, drawn) -> Chooser:
    _, scenes, cache = drawn
    return Chooser(made, text, BoxPictures(scenes, cache.arrays, [0, 1, 2, 3]), 2, 3, 1, seed=0)


def test_a_run_that_was_stopped_goes_on_exactly(drawn, tmp_path):
    whole = a_run(drawn, tmp_path / "whole")
    frozen = {name: value.clone() for name, value in whole.model.encoders.state_dict().items()}
    whole.run()
    assert all(torch.equal(value, frozen[name]) for name, value in whole.model.encoders.state_dict().items())

    part = a_run(drawn, tmp_path / "part")
    part.model.train()
    torch.manual_seed(part.seen)
    part.learn(part.batches.batch(0), part.phases[0])
    part.step, part.seen = 1, 1
    part.save()
    again = a_run(drawn, tmp_path / "part")
    assert again.resume()
    again.run()
    for name, value in whole._own().items():
        assert torch.equal(value, again._own()[name]), name
    read = load_checkpoint(tmp_path / "part" / "model.pt", meta={"max_tokens": TOKENS})
    assert read.image_size == 512


def test_a_state_of_another_model_is_named(drawn, tmp_path):
    first = a_run(drawn, tmp_path)
    first.save()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["weights"].pop("coarse_share")
    torch.save(state, tmp_path / "state.pt")
    with pytest.raises(ValueError, match="is of another model than this run"):
        a_run(drawn, tmp_path).resume()


def test_batches_are_a_function_of_seed_and_step(drawn):
    one, two, other = batches(drawn).batch(5), batches(drawn).batch(5), batches(drawn, seed=1).batch(5)
    assert one.phrases == two.phrases
    assert torch.equal(one.masks, two.masks)
    assert torch.equal(one.features.boxes, two.features.boxes)
    assert one.phrases != other.phrases or not torch.equal(one.masks, other.masks)
    assert one.present.tolist() == [bool(mask.any()) for mask in one.masks]


def test_mirrored_features_are_those_of_mirrored_cells():
    boxes = torch.rand(4, 5376)
    back = mirrored("boxes", mirrored("boxes", boxes))
    torch.testing.assert_close(back, boxes)
    # The first cell of stride 8 becomes the last of its row, and its box lies on the other side.
    turned = mirrored("boxes", boxes)[:, 63]
    torch.testing.assert_close(
        turned, torch.stack([1 - boxes[2, 0], boxes[1, 0], 1 - boxes[0, 0], boxes[3, 0]])
    )


def test_choice_is_right_by_overlap():
    found = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 0.9], [0.6, 0.6, 1.0, 1.0, 0.8], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    meant = [torch.tensor([[0.0, 0.0, 0.5, 0.5]])]
    good, bad = torch.tensor([[9.0, -9.0, 9.0]]), torch.tensor([[-9.0, 9.0, 9.0]])
    assert choice_loss(good, found, meant) < 0.01 < 5 < choice_loss(bad, found, meant)


def test_one_of_several_is_right_by_its_rank():
    found = torch.tensor([[[0.0, 0.0, 0.5, 0.5, 0.9], [0.6, 0.6, 1.0, 1.0, 0.8], [0.0, 0.0, 0.0, 0.0, 0.0]]])
    one, both = torch.tensor([[0.0, 0.0, 0.5, 0.5]]), found[0, :2, :4]
    low = torch.tensor([[-3.0, -9.0, 9.0]])
    assert one_of_loss(low, found, [one]) < 0.01 < 5 < one_of_loss(low.flip(1), found.flip(1), [both[1:]])
    assert one_of_loss(low, found, [both]) == 0


def test_pictures_side_by_side_keep_their_boxes_on_their_things():
    """The detector's box of each thing is around the thing's mask wherever its picture is laid."""
    rng = np.random.default_rng(0)
    scenes, boxes = [], np.zeros((6, 4, 40), np.float16)
    scores = np.full((6, 80, 40), -9, np.float16)
    for index in range(6):
        rows, columns = ((128, 96), (96, 128))[index % 2]
        top, left = rng.integers(0, rows - 40), rng.integers(0, columns - 40)
        mask = np.zeros((rows, columns), bool)
        mask[top : top + 40, left : left + 30] = True
        scores[index, index, 3] = 5
        boxes[index, :, 3] = np.array([left, top, left + 30, top + 40]) / MASK_SIDE
        things = [Thing(coco_names()[index], True, mask)]
        scenes.append(SmallScene(things, frozenset({things[0].name}), "coco", np.zeros((3, 32, 32))))
    pictures = BoxPictures(scenes, {"scores": scores, "boxes": boxes}, range(6))
    counts = set()
    for _ in range(60):
        frame = pictures.draw(rng)
        counts.add(len(frame.things))
        assert frame.scores.shape == (80, 40)
        assert max(frame.things[0].mask.shape) == MASK_SIDE
        for thing in frame.things:
            rows, columns = np.flatnonzero(thing.mask.any(1)), np.flatnonzero(thing.mask.any(0))
            around = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]) / MASK_SIDE
            cells = np.flatnonzero(frame.scores[coco_names().index(thing.name)] > 0)
            assert np.abs(frame.boxes[:, cells].T - around).max(1).min() < 1.5 / MASK_SIDE
    assert counts == {1, 2, 3, 4}


def test_tiles_fill_the_longer_side_and_do_not_overlap():
    rng = np.random.default_rng(1)
    for _ in range(50):
        sizes = [(1.0, 0.75), (0.5, 1.0), (1.0, 1.0)][: rng.integers(2, 4)]
        placed = tiles(sizes, rng)
        ends = [
            (t.top + t.scale * rows, t.left + t.scale * columns)
            for t, (rows, columns) in zip(placed, sizes, strict=True)
        ]
        assert max(map(max, ends)) == pytest.approx(1)
        for first, second in pairwise(range(len(placed))):
            below = placed[second].top >= ends[first][0] - 1e-9
            beside = placed[second].left >= ends[first][1] - 1e-9
            assert below or beside
    assert isinstance(placed[0], Tile)


def test_a_cache_of_other_encoders_is_refused(tmp_path):
    FeatureCache(tmp_path, {"x": (2,)}, 3, {"encoders": "a"})
    with pytest.raises(CacheError, match="is of encoders 'a', not 'b'"):
        FeatureCache(tmp_path, {"x": (2,)}, 3, {"encoders": "b"})
    with pytest.raises(CacheError, match="is of count 3, not 4"):
        FeatureCache(tmp_path, {"x": (2,)}, 4, {"encoders": "a"})


def test_a_cache_fills_what_it_lacks_and_no_more(tmp_path):
    asked = []

    def compute(index: int) -> dict[str, Tensor]:
        asked.append(index)
        return {"x": torch.full((2,), float(index))}

    FeatureCache(tmp_path, {"x": (2,)}, 4, {}).fill([0, 2], compute)
    cache = FeatureCache(tmp_path, {"x": (2,)}, 4, {})  # as after a kill
    assert cache.fill(range(3), compute) == 1
    assert asked == [0, 2, 1]
    assert cache.available().tolist() == [0, 1, 2]
    assert cache.read([2, 0])["x"][:, 0].tolist() == [2, 0]
    with pytest.raises(CacheError, match=r"lacks the features of the samples \[3\]"):
        cache.read([3])


def test_a_cache_goes_on_after_a_kill(tmp_path):
    """The process dies by SIGKILL while it computes the third sample."""
    script = """
import sys, torch
from pathlib import Path
from refersam.training.features import FeatureCache

def compute(index):
    if index == 2:
        print("there", flush=True)
        sys.stdin.read()
    return {"x": torch.full((2,), float(index))}

FeatureCache(Path(sys.argv[1]), {"x": (2,)}, 4, {}).fill(range(4), compute)
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"there\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    cache = FeatureCache(tmp_path, {"x": (2,)}, 4, {})
    assert cache.available().tolist() == [0, 1]
    assert cache.fill(range(4), lambda index: {"x": torch.full((2,), float(index))}) == 2
    assert cache.read(range(4))["x"][:, 0].tolist() == [0, 1, 2, 3]


def test_a_damaged_cache_is_named(tmp_path):
    FeatureCache(tmp_path, {"x": (2,)}, 4, {})
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:100])
    with pytest.raises(CacheError, match=r"x\.npy cannot be read"):
        FeatureCache(tmp_path, {"x": (2,)}, 4, {})


def test_a_fingerprint_tells_weights_apart():
    one, two = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(two)


@pytest.mark.parametrize("kind", ["bert"])
def test_graphs_equal_the_stages_at_every_batch_size(kind, tmp_path):
    from refersam.serving import graph

    inputs = examples(checkpoint(kind), 8)
    parts = stages(model(kind))
    tensors = run(parts, inputs)
    for part in parts:
        path = tmp_path / f"{part.name}.onnx"
        graph.save(graph.export(part, [tensors[name][:2] for name in part.inputs]), path)
        assert all(comparison.ok for comparison in compare(part, path, tensors)), part.name


def test_features_of_pictures_have_the_shapes_that_the_cache_keeps():
    with torch.no_grad():
        features = model("bert").encoders(torch.zeros(1, 3, 512, 512))
    assert {name: tuple(value.shape[1:]) for name, value in features._asdict().items()} == SHAPES
    assert PhotoFeatures._fields == tuple(SHAPES)


def test_the_shipped_config_is_the_preset():
    whole = PhotoTrainConfig.read(Path(__file__).parents[1] / "configs" / "photo_bert.toml")
    assert whole.model == photo_preset("bert")
    assert whole.meta()["image_size"] == 512


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("max_tokens = 20", "max_tokens = 0"), "max_tokens is 0"),
        (("max_tokens = 20", "max_tokens = 600"), r"text\.positions allows 512"),
        (("max_tokens = 20", "max_tokens = 20\nabsent = 7"), "absent is 7"),
        (("reasoner_layers = 3", "reasoner_layers = -1"), r"interactor\.reasoner_layers is -1"),
        (("[model.prompter]", "[model.prompter]\ncolour = 1"), "unknown keys"),
    ],
)
def test_what_is_no_config_is_named(tmp_path, change, message):
    path = tmp_path / "photo.toml"
    path.write_text((Path(__file__).parents[1] / "configs" / "photo_bert.toml").read_text().replace(*change))
    with pytest.raises(ValueError, match=message):
        PhotoTrainConfig.read(path)


def test_the_chooser_learns_and_goes_on_exactly(drawn, tmp_path):
    def run_of(out: Path, steps: int) -> ChooserRun:
        torch.manual_seed(3)
        made = PhotoSAM(config("bert"))
        encode = functools.partial(tokenizer.load("bert-base-uncased").encode, max_tokens=TOKENS)
        set_names(made, encode)
        return ChooserRun(a_chooser(made, TextCache(made, encode), drawn), out, steps, 1e-3)

    whole = run_of(tmp_path / "whole", 4)
    before = {name: value.clone() for name, value in whole.parts.state_dict().items()}
    whole.run(log=lambda _: None)
    assert any(not torch.equal(before[name], value) for name, value in whole.parts.state_dict().items())

    part = run_of(tmp_path / "part", 4)
    part.run(log=lambda _: None, stop=2)
    again = run_of(tmp_path / "part", 4)
    assert again.step == 2
    again.run(log=lambda _: None)
    for name, value in whole.parts.state_dict().items():
        torch.testing.assert_close(again.parts.state_dict()[name], value)


@pytest.mark.parametrize("name", sorted(TOKENIZERS.values()))
def test_shares_average_the_tokens_of_each_word(name):
    phrases = ["the snowboarders on the left", "cat"]
    ids, mask, shares = WordTokens(name, 12)(phrases)
    backend = tokenizer.load(name).backend
    for row, phrase in enumerate(phrases):
        words = phrase.split()
        for place, word in enumerate(words):
            chosen = shares[row, place] > 0
            pieces = [backend.id_to_token(int(token)) for token in ids[row, chosen]]
            assert "".join(piece.removeprefix("##").removesuffix("</w>") for piece in pieces) == word
            assert shares[row, place].sum() == pytest.approx(1)
        assert not shares[row, len(words) : -1].any()
        assert torch.equal(shares[row, -1] > 0, mask[row])


def test_a_student_comes_closer_and_goes_on_exactly(tmp_path):
    def run_of(out: Path) -> StudentRun:
        torch.manual_seed(4)
        whole = dataclasses.replace(config("clip"), text_width=32)
        tokens = {kind: WordTokens(name, 12) for kind, name in TOKENIZERS.items()}
        student = PhotoSAM(whole)
        return StudentRun(
            model("bert"), tokens["bert"], student, tokens["clip"], out, 24, rate=5e-3, phrases=16
        )

    asked = readings(32, 9)
    whole = run_of(tmp_path / "whole")
    before = float(whole.loss(asked).detach())
    whole.run(log=lambda _: None)
    assert float(whole.loss(asked).detach()) < 0.8 * before

    run_of(tmp_path / "part").run(log=lambda _: None, stop=3)
    again = run_of(tmp_path / "part")
    assert again.step == 3
    again.run(log=lambda _: None)
    for name, value in whole.parts.state_dict().items():
        torch.testing.assert_close(again.parts.state_dict()[name], value)


def test_a_taught_variant_differs_in_its_text_encoder_alone(tmp_path):
    teacher = tmp_path / "teacher.pt"
    meta = {"image_size": 512, "max_tokens": TOKENS, "tokenizer": TOKENIZERS["bert"]}
    torch.save(
        {"model": model("bert").state_dict(), "config": model("bert").config.to_dict(), "meta": meta}, teacher
    )
    text = TextConfig("clip", 1, 2, 16, 32, 49408, 40)
    own = StudentConfig("photo_clip", "photo", TOKENIZERS["clip"], TOKENS, text, steps=2, phrases=4)
    teach(own, teacher, tmp_path / "out")
    made = load_checkpoint(tmp_path / "out" / "model.pt")
    assert (made.tokenizer, made.label, made.image_size) == (TOKENIZERS["clip"], "photo", 512)
    for name, value in model("bert").state_dict().items():
        if not name.startswith(("text_encoder.", "text_proj.", "name_reader.")):
            assert torch.equal(value, made.model.state_dict()[name]), name


def test_only_a_photo_variant_can_teach(tmp_path):
    path = Path(__file__).parents[1] / "configs" / "photo_clip.toml"
    config = StudentConfig.read(path)
    plain = ReferSAM(preset("tiny", "bert"))
    torch.save(
        {
            "model": plain.state_dict(),
            "config": plain.config.to_dict(),
            "meta": {"image_size": 64, "max_tokens": 8},
        },
        tmp_path / "plain.pt",
    )
    with pytest.raises(ValueError, match="is no photo variant"):
        teach(config, tmp_path / "plain.pt", tmp_path / "out")
    changed = tmp_path / "changed.toml"
    changed.write_text(path.read_text().replace("width = 192", "width = 192\nsize = 3"))
    with pytest.raises(ValueError, match="size"):
        StudentConfig.read(changed)
