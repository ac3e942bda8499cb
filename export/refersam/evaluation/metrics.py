"""Scores of referring segmentation, counted by kind of phrase.

IoU of one phrase is |P and G| / |P or G|. mIoU is its mean, oIoU is the sum of all intersections over the
sum of all unions (REFER; called cIoU elsewhere). Both are over the phrases that mean something in the
picture. Phrases that mean nothing have a score of their own: the share whose mask is empty to the last pixel.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np

THRESHOLDS = (0.5, 0.7, 0.9)


@dataclass
class Tally:
    """Sums over phrases of one kind."""

    ious: list[float] = field(default_factory=list)
    intersection: int = 0
    union: int = 0
    no_target: int = 0
    left_empty: int = 0

    def add(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Counts one phrase. Both masks are bool [H, W]."""
        if not truth.any():
            self.no_target += 1
            self.left_empty += not predicted.any()
            return
        intersection = int(np.count_nonzero(predicted & truth))
        union = int(np.count_nonzero(predicted | truth))
        self.ious.append(intersection / union)
        self.intersection += intersection
        self.union += union

    def scores(self) -> dict[str, float]:
        """mIoU, oIoU and precision at THRESHOLDS of the phrases with a target; `empty` of those without."""
        out: dict[str, float] = {"phrases": len(self.ious) + self.no_target}
        if self.ious:
            ious = np.array(self.ious)
            out |= {"mIoU": float(ious.mean()), "oIoU": self.intersection / self.union}
            out |= {f"P@{t}": float((ious >= t).mean()) for t in THRESHOLDS}
        if self.no_target:
            out["empty"] = self.left_empty / self.no_target
        return out


class Scoreboard:
    """Tallies by kind of phrase, and one over everything."""

    def __init__(self) -> None:
        self.kinds: dict[str, Tally] = defaultdict(Tally)
        self.all = Tally()

    def add(self, kind: str, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Counts one phrase, of the kind "" under everything alone."""
        if kind:
            self.kinds[kind].add(predicted, truth)
        self.all.add(predicted, truth)

    def scores(self) -> dict[str, dict[str, float]]:
        return {"all": self.all.scores()} | {kind: self.kinds[kind].scores() for kind in sorted(self.kinds)}
