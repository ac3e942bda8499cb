"""Scenes and phrases: reproducible, exact and true. Truth is checked again here from the masks alone."""

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from refersam.data.scenes import drawing, expressions, questions, things
from refersam.data.scenes import samples as page
from refersam.data.scenes.drawing import SPLITS, Scene, make_scene, scene_of
from refersam.data.scenes.expressions import KIND_MIX, KINDS, Expression, make_expressions, target_mask
from refersam.data.scenes.things import THINGS, glyph

SIZES = ((320, 320), (384, 256), (256, 372))
LEFT_RIGHT_ABOVE_BELOW = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
PLACES = {"left": (0, -1), "right": (0, 1), "top": (1, -1), "bottom": (1, 1)}


def sample(
    split: str, index: int, count: int, width: int = 320, height: int = 320
) -> tuple[Scene, list[Expression]]:
    scene = scene_of(split, index, width, height)
    return scene, questions.phrases(scene, count)


@pytest.fixture(scope="module")
def samples() -> list[tuple[Scene, list[Expression]]]:
    """400 scenes of several shapes with 5 phrases each."""
    return [sample("val", index, 5, *SIZES[index % len(SIZES)]) for index in range(400)]


@pytest.fixture
def no_glyphs():
    """Forgets rendered glyphs before and after, so that a test may name another font."""
    glyph.cache_clear()
    yield
    glyph.cache_clear()


def digest() -> str:
    """A hash of what a few seeds give: pictures, masks and phrases."""
    found = hashlib.sha256()
    for index, (width, height) in enumerate(SIZES):
        scene, phrases = sample("test", index, 6, width, height)
        found.update(scene.image.tobytes())
        for thing in scene.objects:
            found.update(
                np.packbits(thing.mask).tobytes() + repr((thing.thing, thing.box, thing.size)).encode()
            )
        found.update(repr(phrases).encode())
    return found.hexdigest()


def test_fresh_processes_give_the_same_scenes():
    script = "import test_scenes; print(test_scenes.digest())"
    path = os.pathsep.join(sys.path)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parent,
            env={
                "PYTHONHASHSEED": str(salt),
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": path,
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for salt in (1, 2)
    ]
    outputs = [process.communicate()[0].strip() for process in processes]
    assert outputs == [digest()] * 2


def test_seeds_and_sizes_matter():
    assert not np.array_equal(make_scene(1).image, make_scene(2).image)
    assert make_scene(1, 300, 200).image.shape == (200, 300, 3)
    with pytest.raises(ValueError, match="64"):
        make_scene(1, 320, 63)


def test_a_larger_count_only_appends():
    assert sample("val", 3, 7)[1][:3] == sample("val", 3, 3)[1]


def test_splits_are_disjoint():
    assert len(SPLITS["train"]) >= 1_000_000
    assert len(SPLITS["val"]) >= 1_000
    assert len(SPLITS["test"]) >= 10_000
    for one, other in combinations(SPLITS.values(), 2):
        assert one.stop <= other.start or other.stop <= one.start
    assert scene_of("test", 7).seed == SPLITS["test"][7]
    with pytest.raises(IndexError):
        scene_of("val", len(SPLITS["val"]))


def test_masks_are_disjoint_and_in_sight(samples):
    for scene, _ in samples:
        height, width = scene.image.shape[:2]
        assert scene.image.dtype == np.uint8
        assert 2 <= len(scene.objects) <= 6
        stack = np.stack([o.mask for o in scene.objects])
        assert stack.shape[1:] == (height, width)
        assert stack.sum(axis=0).max() == 1
        for o in scene.objects:
            ys, xs = np.nonzero(o.mask)
            assert o.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            assert o.centre == pytest.approx((xs.mean(), ys.mean()))
            assert drawing.MIN_VISIBLE * o.size <= len(xs) <= o.size


def test_masks_are_where_the_things_were_drawn(monkeypatch):
    """White outlines over black: the pixels of the masks are light and all the others dark."""
    monkeypatch.setattr(drawing, "make_background", lambda rng, w, h: drawing.Image.new("RGB", (w, h)))
    monkeypatch.setattr(drawing, "_photograph", lambda rng, image: np.array(image))
    monkeypatch.setattr(drawing, "_levels", lambda thing, mirrored: [white(thing, mirrored)] * 2)
    for seed in range(20):
        scene = make_scene(seed)
        drawn = np.any([o.mask for o in scene.objects], axis=0)
        assert scene.image[drawn].min() >= 128
        assert np.mean(scene.image[~drawn].max(axis=1) >= 128) < 0.01


def white(thing: int, mirrored: bool) -> drawing.Image.Image:
    """The thing's outline filled with white, alpha premultiplied."""
    alpha = glyph(thing).getchannel("A")
    if mirrored:
        alpha = alpha.transpose(drawing.Image.Transpose.FLIP_LEFT_RIGHT)
    return drawing.Image.merge("RGBA", [alpha.point(lambda _: 255)] * 3 + [alpha]).convert("RGBa")


def test_half_of_the_scenes_repeat_a_thing(samples):
    repeated = [max(Counter(o.thing for o in scene.objects).values()) for scene, _ in samples]
    assert 0.45 < np.mean([n > 1 for n in repeated]) < 0.65
    assert set(repeated) == {1, 2, 3}


def test_kinds_come_in_the_promised_mix(samples):
    counts = Counter(e.kind for _, phrases in samples for e in phrases)
    total = sum(counts.values())
    for kind in KINDS:
        assert counts[kind] / total == pytest.approx(KIND_MIX[kind], abs=0.04), kind


def test_qualifiers_are_mostly_needed(samples):
    needed = [
        sum(o.thing == e.thing for o in scene.objects) > 1
        for scene, phrases in samples
        for e in phrases
        if e.kind in ("place", "size", "relation")
    ]
    assert np.mean(needed) >= 0.5


def test_every_phrase_is_true(samples):
    for scene, phrases in samples:
        assert len({e.text.lower() for e in phrases}) == len(phrases) == 5
        for e in phrases:
            assert is_true(scene, e), (scene.seed, e)
            assert np.array_equal(target_mask(scene, e), np.isin(owners(scene), e.targets))


def test_phrases_say_what_they_mean(samples):
    for _, phrases in samples:
        for e in phrases:
            text = e.text.lower()
            assert any(name in text for name in THINGS[e.thing].names + THINGS[e.thing].plurals), e
            if e.reference is not None:
                assert any(name in text for name in THINGS[e.reference].names), e
            assert (e.relation is None) == (e.reference is None)
            assert not (set("{}") & set(text))


def owners(scene: Scene) -> np.ndarray:
    """Index of the object at each pixel, -1 for none."""
    found = np.full(scene.image.shape[:2], -1)
    for index, o in enumerate(scene.objects):
        found[o.mask] = index
    return found


def centroid(mask: np.ndarray) -> np.ndarray:
    ys, xs = np.nonzero(mask)
    return np.array([xs.mean(), ys.mean()])


def is_true(scene: Scene, e: Expression) -> bool:
    """Whether an expression means its targets and nothing else, by the masks."""
    height, width = scene.image.shape[:2]
    side = min(width, height)
    same = [i for i, o in enumerate(scene.objects) if o.thing == e.thing]
    if e.kind == "none":
        return not same and e.targets == ()
    if e.kind == "plural":
        return len(same) > 1 and sorted(e.targets) == same and says_the_right_number(e.text, len(same))
    if e.kind == "name":
        return len(same) == 1 and list(e.targets) == same
    (target,) = e.targets
    others = [i for i in same if i != target]
    at = {i: centroid(o.mask) / side for i, o in enumerate(scene.objects)}
    if e.attribute in PLACES:
        axis, sign = PLACES[e.attribute]
        middle = (width, height)[axis] / side / 2
        if not others:
            return sign * (at[target][axis] - middle) > 0.05
        return all(sign * (at[target][axis] - at[i][axis]) >= 0.08 - 1e-9 for i in others)
    if e.attribute == "middle":
        away = {i: np.hypot(*(at[i] - np.array([width, height]) / side / 2)) for i in same}
        return all(away[i] - away[target] >= 0.16 - 1e-9 for i in others)
    if e.attribute in ("smallest", "biggest"):
        area = {i: np.count_nonzero(scene.objects[i].mask) for i in same}
        sign = 1 if e.attribute == "biggest" else -1
        return bool(others) and all((area[target] / area[i]) ** sign >= 1.35 for i in others)
    references = [i for i, o in enumerate(scene.objects) if o.thing == e.reference]
    if len(references) != 1 or e.reference == e.thing:
        return False
    if e.relation == "next to":
        distance = {i: np.hypot(*(at[i] - at[references[0]])) for i in same}
        return distance[target] <= 0.45 and all(distance[i] >= 1.4 * distance[target] for i in others)
    axis, sign = LEFT_RIGHT_ABOVE_BELOW[e.relation]
    along = {i: sign * (at[i][axis] - at[references[0]][axis]) for i in same}
    return along[target] >= 0.16 - 1e-9 and all(along[i] <= 1e-9 for i in others)


def says_the_right_number(text: str, amount: int) -> bool:
    words = set(text.lower().split())
    return not (words & {"both", "two"} and amount != 2) and not ("three" in words and amount != 3)


def test_things_have_names_of_their_own():
    assert 64 <= len(THINGS) <= 72
    assert len({thing.glyph for thing in THINGS}) == len(THINGS)
    words = Counter(word for thing in THINGS for word in set(thing.names) | set(thing.plurals))
    assert [word for word, count in words.items() if count > 1] == []
    for thing in THINGS:
        assert len(thing.names) == len(set(thing.names)) == len(thing.plurals)
        assert thing.name == thing.names[0]


def test_every_glyph_is_a_picture_of_its_own():
    pictures = [np.asarray(glyph(i).resize((32, 32)), np.float32) for i in range(len(THINGS))]
    for one, other in combinations(range(len(THINGS)), 2):
        difference = np.abs(pictures[one] - pictures[other]).mean()
        assert difference > 20, (THINGS[one].name, THINGS[other].name)
    for i, picture in enumerate(pictures):
        assert max(glyph(i).size) >= 100
        assert np.mean(picture[..., 3] >= 128) > 0.28, THINGS[i].name


@pytest.mark.usefixtures("no_glyphs")
def test_a_missing_font_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv(things.FONT_VARIABLE, str(tmp_path / "none.ttf"))
    with pytest.raises(FileNotFoundError, match=r"fonts-noto-color-emoji.*REFERSAM_EMOJI_FONT"):
        glyph(0)


def test_the_page_has_the_samples_that_the_script_writes(tmp_path):
    committed = Path(__file__).parents[2] / "gateway" / "web" / "samples"
    page.write(tmp_path)
    assert json.loads((committed / "samples.json").read_text()) == json.loads(
        (tmp_path / "samples.json").read_text()
    )
    for name in page.SAMPLES:
        with drawing.Image.open(committed / name) as old, drawing.Image.open(tmp_path / name) as new:
            assert old.size == new.size
            assert np.abs(np.asarray(old, np.int16) - np.asarray(new)).mean() < 2
        assert (committed / name).stat().st_size < 80_000


def test_names_of_attributes_and_relations_are_all_used():
    seen = {e.attribute or e.relation for i in range(60) for e in phrases_of(i)} - {None}
    assert seen == {*expressions.ATTRIBUTES, *expressions.RELATIONS}


def phrases_of(seed: int) -> list[Expression]:
    return make_expressions(make_scene(seed, 128, 128), np.random.default_rng(seed), 12)
