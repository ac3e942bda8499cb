"""Shared by the benchmarks: builds, timing of Go and of Python on one core, and the table."""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 0.5  # per measurement
PURE_GO = {"CGO_ENABLED": "0", "GOFLAGS": "-tags=nomsgpack"}


@dataclass(frozen=True)
class Row:
    """A line of the table: medians in nanoseconds, and the targeted ratio to the peer's time.

    `floor` is the least that the task takes on this machine, where it says so measured in the same run.
    """

    what: str
    ours: float
    floor: float
    peer: str
    theirs: float
    target: float | None = None


def table(rows: Sequence[Row]) -> str:
    lines = [
        "| what | refersam | floor | peer | its time | ratio | target |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "–" if row.target is None else f"{row.target:g}"
        cells = (row.what, duration(row.ours), duration(row.floor), row.peer, duration(row.theirs))
        lines.append("| " + " | ".join((*cells, f"{row.theirs / row.ours:.1f}", target)) + " |")
    return "\n".join(lines)


def duration(nanoseconds: float) -> str:
    for unit, size in (("ms", 1e6), ("µs", 1e3)):
        if nanoseconds >= size:
            return f"{nanoseconds / size:.3g} {unit}"
    return f"{nanoseconds:.0f} ns"


def main(doc: str, measure: Callable[[int], Sequence[Row]]) -> None:
    """The command line of a benchmark: `measure` takes the number of rounds."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="default %(default)s")
    rounds = parser.parse_args().rounds
    rows = measure(rounds)
    print(f"\nmedians of {rounds} rounds on one core\n\n{table(rows)}")


def build(package: str, binary: Path, env: Mapping[str, str] = PURE_GO) -> Path:
    """Builds the tests of a package."""
    command = ["go", "test", "-c", "-o", binary, f"./{package}"]
    subprocess.run(command, cwd=ROOT, env=os.environ | env, check=True)
    return binary


def go(
    binary: Path, package: str, pattern: str, env: Mapping[str, str] | None = None
) -> dict[str, tuple[float, int]]:
    """Nanoseconds and allocations of the benchmarks with matching names, without `Benchmark` before them."""
    command = [binary, "-test.run=^$", f"-test.bench=^Benchmark{pattern}$", "-test.cpu=1", "-test.benchmem"]
    command.append(f"-test.benchtime={SECONDS}s")
    text = subprocess.run(
        command, cwd=ROOT / package, env=os.environ | (env or {}), check=True, capture_output=True, text=True
    ).stdout
    found = re.findall(r"^Benchmark(\S+)\s+\d+\s+([\d.]+) ns/op.*?(\d+) allocs/op", text, re.MULTILINE)
    return {name: (float(nanoseconds), int(allocs)) for name, nanoseconds, allocs in found}


def python(run: Callable[[], object]) -> float:
    """Nanoseconds per call."""
    run()
    runs, start = 0, time.perf_counter()
    while (took := time.perf_counter() - start) < SECONDS:
        run()
        runs += 1
    return took / runs * 1e9


@contextmanager
def one_core() -> Iterator[None]:
    """Keeps this process and its children on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Times:
    """Measurements by name, one per round."""

    def __init__(self) -> None:
        self._all: dict[str, list[float]] = defaultdict(list)

    def add(self, measured: Mapping[str, float]) -> None:
        for name, nanoseconds in measured.items():
            self._all[name].append(nanoseconds)

    def __getitem__(self, name: str) -> float:
        return statistics.median(self._all[name])
