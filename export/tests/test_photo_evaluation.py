"""The scores of photo variants, and the baseline that they stand beside."""

import dataclasses

import numpy as np
import pytest
import torch
from test_photos_data import write_set

from refersam import photos
from refersam.data.photos import load
from refersam.data.sample import Question
from refersam.evaluation import photo_cuts
from refersam.evaluation.photo_baseline import Rule, choose, read
from refersam.evaluation.photo_report import mirror, swapped
from refersam.evaluation.photos import PhotoBoard, score
from refersam.model.config import TextConfig
from refersam.model.names import coco_names
from refersam.model.photo import PhotoSAM
from refersam.model.photo_config import photo_preset
from refersam.serving.checkpoint import load as load_checkpoint


@pytest.mark.parametrize(
    ("phrase", "rule"),
    [
        ("the dog", Rule(("dog",))),
        ("find the puppy", Rule(("dog",))),
        ("the leftmost wine glass", Rule(("wine glass",), pick="left")),
        ("the bigger of the dogs", Rule(("dog",), pick="big")),
        ("all the people", Rule(("person",), every=True)),
        ("both dogs", Rule(("dog",), every=True)),
        ("the second cup from the right", Rule(("cup",), pick="right", nth=1)),
        ("the cup to the left of the laptop", Rule(("cup",), ("laptop",), "of-left")),
        ("the man next to the bicycle", Rule(("person",), ("bicycle",), "near")),
        ("the dog that is not on the left", Rule(("dog",), pick="left", every=True, spared=True)),
        ("the sofa", Rule(("couch",))),
        ("the lighthouse", None),
    ],
)
def test_rules_of_phrases(phrase, rule):
    assert read(phrase) == rule


def test_a_negated_name_is_left_out():
    rule = read("the animal that is not a dog")
    assert rule is not None
    assert "dog" not in rule.classes
    assert "horse" in rule.classes


BOXES = np.array([[0.0, 0.4, 0.2, 0.6], [0.01, 0.4, 0.2, 0.6], [0.4, 0.3, 0.8, 0.7], [0.85, 0.1, 0.95, 0.2]])


def scores(**by_name: list[float]) -> np.ndarray:
    table = np.zeros((80, len(BOXES)), np.float32)
    for name, values in by_name.items():
        table[coco_names().index(name)] = values
    return table


def test_boxes_by_rule():
    seen = scores(dog=[0.9, 0.8, 0.7, 0.1], cat=[0.0, 0.0, 0.0, 0.6])
    np.testing.assert_array_equal(choose(Rule(("dog",)), seen, BOXES), BOXES[[0]])
    np.testing.assert_array_equal(choose(Rule(("dog",), pick="right"), seen, BOXES), BOXES[[2]])
    np.testing.assert_array_equal(choose(Rule(("dog",), pick="big"), seen, BOXES), BOXES[[2]])
    np.testing.assert_array_equal(choose(Rule(("dog",), every=True), seen, BOXES), BOXES[[0, 2]])
    np.testing.assert_array_equal(choose(Rule(("dog",), ("cat",), "of-left"), seen, BOXES), BOXES[[2]])
    np.testing.assert_array_equal(
        choose(Rule(("dog",), pick="left", every=True, spared=True), seen, BOXES), BOXES[[2]]
    )
    assert not len(choose(Rule(("horse",)), seen, BOXES))
    assert not len(choose(Rule(("dog",), ("horse",), "near"), seen, BOXES))


def test_a_board_counts_sets_and_kinds_apart():
    board = PhotoBoard()
    truth = np.zeros((4, 4), bool)
    truth[:2] = True
    half = truth.copy()
    half[0] = False
    board.add("voc", Question("the dog", lambda: truth, "name"), truth)
    board.add("voc", Question("the cat", lambda: truth, "name"), half)
    board.add("voc", Question("the bus", lambda: truth & False, "none"), truth & False)
    lines = board.table().splitlines()
    assert lines[2:] == [
        "| voc | all | 3 | 75.0 | 100.0 | 100.0 | 100.0 |",
        "| voc | name | 2 | 75.0 | 100.0 | 100.0 | – |",
        "| voc | none | 1 | – | – | – | 100.0 |",
    ]


def test_right_answers_score_full(tmp_path):
    photos = load(write_set(tmp_path, "coco", 40), "test", 512)

    def right(index: int, picture: np.ndarray, phrases: list[str]) -> np.ndarray:
        questions = photos[index].questions
        assert [question.phrase for question in questions] == phrases
        return np.stack([question.answer() for question in questions])

    table = score(right, photos, range(len(photos))).table()
    assert "| coco | all |" in table
    assert "| 100.0 | 100.0 | 100.0 | 100.0 |" in table


def test_a_report_has_the_mirror_test(tmp_path):
    """The half that the phrase names mirrors exactly; the left half, whatever is asked, never does."""
    photos = load(write_set(tmp_path, "coco", 60), "train", 512)
    photos.composites = 0

    def half(picture: np.ndarray, phrase: str, fixed: bool) -> np.ndarray:
        mask = np.zeros(picture.shape[:2], bool)
        middle = mask.shape[1] // 2
        right = "right" in phrase and not fixed
        mask[:, middle:] = right
        mask[:, :middle] = not right
        return mask

    samples = list(range(len(photos)))
    for fixed, share in ((False, "100.0 %"), (True, "0.0 %")):
        text = mirror(
            lambda picture, phrases, fixed=fixed: np.stack([half(picture, p, fixed) for p in phrases]),
            photos,
            samples,
        )
        assert f": {share} of " in text
        assert not text.endswith(" of 0")


def test_left_and_right_are_swapped():
    assert swapped("the second dog from the left") == "the second dog from the right"
    assert swapped("leftmost cat") == "rightmost cat"
    assert swapped("the biggest horse") == "the biggest horse"


def measured(presence: list[float], best: list[int | None], sets: str) -> photo_cuts.Measured:
    """Phrases whose IoU is 1 at one cut and 0.5 at the others, None for those that mean nothing."""
    ious = np.full((len(best), len(photo_cuts.MASK_CUTS)), 0.5)
    for row, at in enumerate(best):
        ious[row] = np.nan if at is None else ious[row]
        if at is not None:
            ious[row, at] = 1
    return photo_cuts.Measured([{"c": "coco", "v": "voc"}[s] for s in sets], np.array(presence), ious)


def test_cuts_part_the_absent_from_the_present():
    chosen = photo_cuts.choose(measured([2.0, 1.0, -1.0, -3.0], [5, 5, None, None], "cvcv"))
    assert chosen == photo_cuts.Cuts(photo_cuts.MASK_CUTS[5], 1.0, 1.0, 1.0)


def test_a_large_set_does_not_outvote_a_small_one():
    # Three phrases of VOC are best at one cut, the only one of COCO at another: each set counts once.
    rows = measured([1.0] * 4, [3, 3, 4, 7], "vvvc")
    assert photo_cuts.choose(rows).mask == photo_cuts.MASK_CUTS[7]


def test_cuts_are_written_into_the_checkpoint(tmp_path):
    place = write_set(tmp_path, "coco", 40)
    path = tmp_path / "model.pt"
    torch.manual_seed(0)
    made = PhotoSAM(
        dataclasses.replace(photo_preset("bert"), text=TextConfig("bert", 1, 2, 384, 64, 30522, 40))
    )
    meta = {"image_size": 64, "max_tokens": 8, "resize": "longest_side_pad"}
    torch.save({"model": made.state_dict(), "config": made.config.to_dict(), "meta": meta}, path)
    photos.main(["cuts", "--checkpoint", str(path), "--data", str(place)])
    written = load_checkpoint(path)
    again = photo_cuts.choose(photo_cuts.measure(written, load(place, "dev", 512)))
    assert (written.model.config.mask_cut, written.model.config.presence_cut) == (again.mask, again.presence)
