"""Photographs as a data set: rows, splits, phrases, composites. The pictures are drawn here."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as runs

from refersam.data import catalogue
from refersam.data.photos import collection, count, load, names
from refersam.data.photos.collection import Thing, plain_colour
from refersam.data.photos.composites import Composer, join, put_in
from refersam.data.photos.grammar import KINDS, Asked, Speaker

ROWS, COLUMNS = 60, 90


def block(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((ROWS, COLUMNS), bool)
    mask[top:bottom, left:right] = True
    return mask


def thing(name: str, *box: int, single: bool = True, colour: str = "") -> Thing:
    return Thing(name, single, block(*box), colour)


def every_offer(things: list[Thing], draws: int = 40) -> list[Asked]:
    """All that a speaker may say of the things, over many draws of the wordings."""
    return [
        offer
        for seed in range(draws)
        for offer in Speaker(things, names.NAMES).offers(np.random.default_rng(seed))
    ]


def meant(offers: list[Asked], *starts: str) -> set[tuple[int, ...]]:
    return {offer.targets for offer in offers if offer.phrase.startswith(starts)}


def write_set(place: Path, name: str, count: int) -> Path:
    """A set of drawn photographs: picture i has a dog, and a second one where i is even."""
    folder = place / name
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(count):
        pixels = np.full((ROWS, COLUMNS, 3), (30, 120, 60), np.uint8)
        things = [("dog", block(5 + i % 7, 20, 30, 45))]
        if i % 2 == 0:
            things.append(("dog" if i % 4 else "cat", block(55, 10, 80, 50)))
        for _, mask in things:
            pixels[mask] = (200, 160, 90)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
        rows.append(
            {
                "image": f"images/{i}.png",
                "width": COLUMNS,
                "height": ROWS,
                "instances": [
                    {"name": word, "kind": "instance", "box": box_of(mask), "mask": coded(mask)}
                    for word, mask in things
                ],
            }
        )
    (folder / "instances.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place


def box_of(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1]


def coded(mask: np.ndarray) -> dict:
    code = runs.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(code["size"]), "counts": code["counts"].decode()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(write_set(tmp_path_factory.mktemp("photos"), "coco", 60), "voc", 60)


def test_splits_are_by_picture_and_cover_all(place):
    splits = {split: collection.read(place, split) for split in collection.SPLITS}
    identities = {split: {photograph.identity for photograph in found} for split, found in splits.items()}
    assert sum(map(len, identities.values())) == 120 == len(set().union(*identities.values()))
    assert all(identities.values())
    again = {photograph.identity for photograph in collection.read(place, "test")}
    assert again == identities["test"]


def test_samples_are_the_same_every_time_and_have_masks_of_their_picture(place):
    first, second = load(place, "train", 512), load(place, "train", 512)
    assert len(first) == round(1.5 * len(first.photographs))
    for index in (0, len(first.photographs), len(first) - 1):
        one, two = first[index], second[index]
        assert np.array_equal(one.picture, two.picture)
        assert [q.phrase for q in one.questions] == [q.phrase for q in two.questions]
        for asked in one.questions:
            mask = asked.answer()
            assert asked.kind in KINDS
            assert mask.shape == one.picture.shape[:2]
            assert mask.any() == (asked.kind != "none")


def test_the_catalogue_opens_photographs(place):
    assert "photos" in catalogue.names()
    assert len(catalogue.load(f"photos:{place}", "val", 512)) > 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no rows"),
        ('{"image": "a.jpg"}\n', "line 1 is no row of a photograph"),
        ("{}\nnot json\n", "line 1 is no row"),
        ('{"image": "a", "width": 1, "height": 1, "instances": [{"name": "dog"}]}\n', "kind of an instance"),
    ],
)
def test_damaged_rows_are_named(tmp_path, content, message):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "instances.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        collection.read(tmp_path, "train")


def test_a_folder_without_rows_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds no SET/instances\.jsonl"):
        load(tmp_path, "train", 512)
    with pytest.raises(ValueError, match="name it: photos:DIR"):
        load(None, "train", 512)


def test_a_set_without_rows_is_named(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "instances.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"instances\.jsonl has no rows"):
        load(tmp_path, "train", 512)


def test_a_picture_of_another_size_is_named(tmp_path):
    write_set(tmp_path, "coco", 3)
    Image.new("RGB", (10, 10)).save(tmp_path / "coco" / "images" / "1.png")
    found = {p.identity: p for split in collection.SPLITS for p in collection.read(tmp_path, split)}
    with pytest.raises(ValueError, match=r"1\.png is of \(10, 10\) pixels, its row says \(60, 90\)"):
        found["coco/images/1.png"].picture()


def test_places_and_sizes_of_two():
    offers = every_offer(
        [thing("dog", 50, 10, 85, 50), thing("dog", 5, 20, 25, 40), thing("cat", 35, 30, 45, 40)]
    )
    assert meant(offers, "the dog on the left", "the left dog", "leftmost dog") == {(1,)}
    assert meant(offers, "the dog on the right", "the right dog", "rightmost dog") == {(0,)}
    assert meant(offers, "the biggest dog", "the bigger dog", "the larger dog") == {(0,)}
    assert meant(offers, "the smallest dog", "the smaller dog") == {(1,)}
    assert meant(offers, "both dogs", "the two dogs", "all the dogs") == {(0, 1)}
    assert meant(offers, "the dog not on the left", "the dog that is not on the left") == {(0,)}
    assert meant(offers, "the cat") >= {(2,)}
    assert not meant(offers, "the dog in the picture", "find the dog")  # there are two


def test_no_side_without_a_gap():
    offers = every_offer([thing("dog", 20, 5, 40, 25), thing("dog", 22, 30, 42, 55)])
    assert not meant(offers, "the dog on the left", "the left dog", "the right dog", "rightmost dog")
    assert meant(offers, "the top dog", "the upper dog") == {(0,)}


def test_ordinals_count_from_both_ends():
    offers = every_offer([thing("cup", 5 + 22 * i, 20, 17 + 22 * i, 40) for i in (2, 0, 3, 1)], 120)
    by_place = [1, 3, 0, 2]
    for place, word in enumerate(names.ORDINALS[:4]):
        assert meant(offers, f"the {word} cup from the left") == {(by_place[place],)}
        assert meant(offers, f"the {word} cup from the right") == {(by_place[::-1][place],)}


def test_relations_hold_for_one_thing_alone():
    things = [thing("dog", 5, 20, 20, 40), thing("dog", 70, 20, 85, 40), thing("bench", 40, 20, 52, 40)]
    offers = every_offer(things, 120)
    assert meant(offers, "the dog left of the bench", "the dog to the left of the bench") == {(0,)}
    assert meant(offers, "the dog right of the bench") == {(1,)}
    both_left = [*things[:1], thing("dog", 22, 20, 34, 40), things[2]]
    assert not meant(every_offer(both_left, 120), "the dog left of the bench")


def test_doubtful_names_are_only_asked_for_together():
    things = [thing("dog", 5, 20, 20, 40), thing("dog", 40, 20, 80, 40, single=False)]
    offers = every_offer(things)
    assert {offer.kind for offer in offers} == {"plural"}
    assert {offer.targets for offer in offers} == {(0, 1)}
    tiny = [thing("dog", 5, 20, 20, 40), thing("dog", 50, 20, 52, 22)]
    assert not every_offer(tiny)  # the tiny one may be meant or not


def test_hypernyms_and_what_is_not_one():
    offers = every_offer([thing("dog", 5, 20, 20, 40), thing("horse", 50, 10, 80, 50)])
    assert meant(offers, "all the animals", "the animals") == {(0, 1)}
    assert meant(offers, "the animal that is not a dog") == {(1,)}


def test_colours_only_where_all_are_plain():
    red, blue, unsure = (
        thing("car", 5, 20, 20, 40, colour="red"),
        thing("car", 50, 20, 70, 40, colour="blue"),
        thing("car", 75, 20, 88, 40),
    )
    assert meant(every_offer([red, blue]), "the red car", "red car") == {(0,)}
    assert not meant(every_offer([red, blue, unsure]), "the red car", "red car")


@pytest.mark.parametrize(
    ("rgb", "name"),
    [((210, 25, 30), "red"), ((20, 60, 200), "blue"), ((12, 12, 14), "black"), ((240, 240, 238), "white")],
)
def test_plain_colours(rgb, name):
    noise = np.random.default_rng(0).integers(-10, 11, (400, 3))
    assert plain_colour(np.clip(np.array(rgb) + noise, 0, 255).astype(np.uint8)) == name


def test_no_plain_colour_in_a_mixture():
    pixels = np.concatenate([np.tile([[210, 25, 30]], (200, 1)), np.tile([[20, 60, 200]], (200, 1))])
    assert plain_colour(pixels.astype(np.uint8)) == ""


def test_absent_names_are_absent():
    things = [thing("sofa", 5, 20, 40, 50), thing("cat", 50, 10, 70, 40)]
    speaker = Speaker(things, names.NAMES, frozenset({"dog"}))
    for seed in range(200):
        asked = speaker.absent(np.random.default_rng(seed))
        assert asked.targets == ()
        assert asked.name not in {"sofa", "couch", "cat", "dog"}


def test_a_mirrored_picture_mirrors_the_places():
    things = [thing("dog", 50, 10, 85, 50), thing("dog", 5, 20, 25, 40)]
    mirrored = [Thing(t.name, t.single, t.mask[:, ::-1]) for t in things]
    assert (
        meant(every_offer(things), "leftmost dog") == meant(every_offer(mirrored), "rightmost dog") == {(1,)}
    )


def test_composites_keep_masks_on_their_things(place):
    photographs = collection.read(place, "train")
    composer = Composer(photographs)
    for number in range(12):
        picture, things, labelled, label = composer.compose(number)
        again = composer.compose(number)
        assert np.array_equal(picture, again[0])
        assert label in ("coco", "voc")
        for each in things:
            assert each.name in labelled
            assert each.mask.shape == picture.shape[:2]
            # Things are painted in one colour, the ground in another, so a mask that slips shows.
            inside = picture[each.mask].astype(int)
            assert (np.abs(inside - (200, 160, 90)).sum(1) < 60).mean() > 0.85


def test_a_join_shows_both_photographs(place):
    one, two = collection.read(place, "train")[:2]
    picture, things = join(one, two, np.random.default_rng(3))
    assert max(picture.shape[:2]) == 448
    assert len(things) >= 2


def test_what_is_put_in_hides_little(place):
    photographs = collection.read(place, "train")
    made = None
    for seed in range(20):
        made = made or put_in(photographs[1], photographs[2], np.random.default_rng(seed))
    assert made is not None
    _, things = made
    whole = sum(each.mask.sum() for each in photographs[1].things())
    assert sum(each.mask.sum() for each in things[:-1]) >= 0.75 * whole
    assert not (things[-1].mask & np.any([each.mask for each in things[:-1]], 0)).any()


def test_examples_are_counted_per_name(place):
    photographs = collection.read(place, "train")
    examples = count.count(photographs)
    assert len(examples) == 80
    assert "sofa" not in examples
    assert examples["zebra"] == 0
    assert next(iter(examples)) == "dog"
    assert sum(examples.values()) == sum(len(p.things()) for p in photographs)


def test_a_sofa_is_a_couch_and_an_unknown_name_is_named():
    def photograph(name: str) -> collection.Photograph:
        row = {"instances": [{"name": name, "kind": "instance", "mask": {}}, {"name": name, "kind": "crowd"}]}
        return collection.Photograph("voc", "voc/1", Path("1.jpg"), row)

    assert count.count([photograph("sofa"), photograph("couch")])["couch"] == 2
    with pytest.raises(ValueError, match=r"no such names in names\.py: unicorn"):
        count.count([photograph("unicorn")])
