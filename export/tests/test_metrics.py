import numpy as np
import pytest

from refersam.evaluation.metrics import Scoreboard
from refersam.evaluation.reports import table


def mask(*rows: str) -> np.ndarray:
    return np.array([[c == "#" for c in row] for row in rows])


def test_scores_by_hand():
    board = Scoreboard()
    board.add("name", mask("##", ".."), mask("##", ".."))  # IoU 1: 2 of 2
    board.add("name", mask("##", "##"), mask("#.", ".."))  # IoU 1/4: 1 of 4
    board.add("none", mask("..", ".."), mask("..", ".."))
    board.add("none", mask("#.", ".."), mask("..", ".."))
    scores = board.scores()
    assert scores["name"]["mIoU"] == pytest.approx((1 + 0.25) / 2)
    assert scores["name"]["oIoU"] == pytest.approx(3 / 6)
    assert scores["name"]["P@0.5"] == 0.5
    assert scores["none"] == {"phrases": 2, "empty": 0.5}
    # Phrases without a target count neither for nor against mIoU and oIoU.
    assert scores["all"]["mIoU"] == scores["name"]["mIoU"]
    assert scores["all"]["phrases"] == 4


def test_a_missed_target_scores_zero():
    board = Scoreboard()
    board.add("name", mask(".."), mask("#."))
    assert board.scores()["name"]["mIoU"] == 0


def test_the_table_has_a_row_a_kind():
    board = Scoreboard()
    board.add("place", mask("#."), mask("#."))
    board.add("none", mask(".."), mask(".."))
    lines = table(board).splitlines()
    assert [line.split("|")[1].strip() for line in lines] == ["kind", "---", "all", "none", "place"]
    assert "100.0" in lines[2]
