"""Scores written down: as a table for people, as JSON for programs."""

from __future__ import annotations

import json

from refersam.evaluation.metrics import THRESHOLDS, Scoreboard


def table(board: Scoreboard) -> str:
    """The scores as a Markdown table, percentages with one decimal."""
    columns = ["mIoU", "oIoU", *(f"P@{t}" for t in THRESHOLDS), "empty"]
    lines = [f"| kind | phrases | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for kind, scores in board.scores().items():
        cells = [f"{100 * scores[c]:.1f}" if c in scores else "–" for c in columns]
        lines.append(f"| {kind} | {scores['phrases']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def as_json(board: Scoreboard) -> str:
    """The scores by kind of phrase, as fractions."""
    return json.dumps(board.scores(), indent=1) + "\n"
