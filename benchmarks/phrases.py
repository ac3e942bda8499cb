"""Times phrase → token ids against Hugging Face's tokenizers, in one run on one core.

    python3 benchmarks/phrases.py [--rounds 7]       # needs Go and a package index

The expressions are those of tokenize/testdata/expressions.txt, cut and padded to 20 tokens. Hugging Face is
called from Python, as training chains do: `encode` once an expression, and `encode_batch_fast` with all of
them, its cheapest way. It comes from its package, in the version of export/requirements/dev.txt, into a
virtual environment that is thrown away. The rounds of both take turns; the figures are medians. The floor is
explained at BenchmarkFloor in tokenize/bench_test.go.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXPRESSIONS = ROOT / "tokenize" / "testdata" / "expressions.txt"
TOKENS = 20
SECONDS = 0.5  # a measurement


def time_peer() -> None:
    """Runs in the virtual environment: prints nanoseconds an expression by tokenizer and way."""
    sys.path.insert(0, str(ROOT / "export"))
    from refersam import tokenizer

    texts = EXPRESSIONS.read_text(encoding="utf-8").splitlines()
    out = {}
    for name in tokenizer.NAMES:
        loaded = tokenizer.load(name)
        backend = loaded.backend
        backend.enable_truncation(TOKENS)
        backend.enable_padding(length=TOKENS, pad_id=loaded.pad_id)
        ways = {
            "encode": lambda b=backend: [b.encode(text).ids for text in texts],
            "encode_batch_fast": lambda b=backend: [e.ids for e in b.encode_batch_fast(texts)],
        }
        for way, run in ways.items():
            run()
            runs, start = 0, time.perf_counter()
            while (took := time.perf_counter() - start) < SECONDS:
                run()
                runs += 1
            out[f"{name} {way}"] = took / (runs * len(texts)) * 1e9
    print(json.dumps(out))


def time_ours(binary: Path) -> tuple[dict[str, float], dict[str, int]]:
    """Nanoseconds an expression by tokenizer, with the floor, and allocations."""
    command = [binary, "-test.run=^$", "-test.bench=^Benchmark(EncodeExpression|Floor)$", "-test.cpu=1"]
    command.append(f"-test.benchtime={SECONDS}s")
    text = subprocess.run(command, cwd=ROOT / "tokenize", check=True, capture_output=True, text=True).stdout
    times, allocs = {}, {}
    for name, nanoseconds, rest in re.findall(
        r"^Benchmark(\S+)\s+\d+\s+([\d.]+) ns/op(.*)$", text, re.MULTILINE
    ):
        name = name.removeprefix("EncodeExpression/")
        times[name] = float(nanoseconds)
        if found := re.search(r"(\d+) allocs/op", rest):
            allocs[name] = int(found[1])
    return times, allocs


def pinned(package: str) -> str:
    lock = (ROOT / "export" / "requirements" / "dev.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==\S+", lock, re.MULTILINE)
    assert found, f"{package} is not in the lock"
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peer:
        time_peer()
        return

    packages = [pinned("tokenizers"), pinned("numpy")]
    times = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        print(f"installing {', '.join(packages)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
        ours = Path(folder) / "tokenize.test"
        go = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-tags=nomsgpack"}
        subprocess.run(["go", "test", "-c", "-o", ours, "./tokenize"], cwd=ROOT, env=go, check=True)
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # for this process and those it starts
        for _ in range(args.rounds):
            measured, allocs = time_ours(ours)
            out = subprocess.run(
                [python, __file__, "--peer"], check=True, capture_output=True, text=True
            ).stdout
            for what, nanoseconds in (measured | json.loads(out)).items():
                times[what].append(nanoseconds)

    medians = {what: statistics.median(values) for what, values in times.items()}
    print(
        f"\nmedians of {args.rounds} rounds, ns an expression, {packages[0]}; floor {medians['Floor']:.0f}\n"
    )
    print("| tokenizer | refersam | allocations | encode | ratio | encode_batch_fast | ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, count in allocs.items():
        own = medians[name]
        row = [name, f"{own:.0f}", str(count)]
        for way in ("encode", "encode_batch_fast"):
            peer = medians[f"{name} {way}"]
            row += [f"{peer:,.0f}", f"{peer / own:.1f}"]
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
