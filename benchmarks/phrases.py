"""Times phrase → token ids against Hugging Face's tokenizers, in one run on one core.

    python3 benchmarks/phrases.py [--rounds 7]       # needs Go and a package index

The expressions are those of tokenize/testdata/expressions.txt, cut and padded to 20 tokens. Hugging Face is
called from Python, as training chains do: `encode` once an expression, and `encode_batch_fast` with all of
them, its cheapest way. It comes from its package, in the version of export/requirements/dev.txt, into a
virtual environment that is thrown away. The rounds of both take turns; the figures are medians. The floor is
explained at BenchmarkFloor in tokenize/bench_test.go.
"""

import json
import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import timing

EXPRESSIONS = timing.ROOT / "tokenize" / "testdata" / "expressions.txt"
TOKENS = 20
EXPRESSION = "EncodeExpression/"
OURS = "(EncodeExpression|Floor)"


def time_peer() -> None:
    """Runs in the virtual environment: prints nanoseconds per expression, by tokenizer and method."""
    sys.path.insert(0, str(timing.ROOT / "export"))
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
            out[f"{name} {way}"] = timing.python(run) / len(texts)
    print(json.dumps(out))


def pinned(package: str) -> str:
    lock = (timing.ROOT / "export" / "requirements" / "dev.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{package}==\S+", lock, re.MULTILINE)
    assert found, f"{package} is not in the lock"
    return found[0]


def rows(rounds: int) -> list[timing.Row]:
    packages = [pinned("tokenizers"), pinned("numpy")]
    times, allocations = timing.Times(), {}
    with tempfile.TemporaryDirectory() as folder:
        print(f"installing {', '.join(packages)} into {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages], check=True
        )
        binary = timing.build("tokenize", Path(folder) / "tokenize.test")
        with timing.one_core():
            for _ in range(rounds):
                for name, (nanoseconds, count) in timing.go(binary, "tokenize", OURS).items():
                    times.add({name: nanoseconds})
                    allocations[name.removeprefix(EXPRESSION)] = count
                out = subprocess.run(
                    [python, __file__, "--peer"], check=True, capture_output=True, text=True
                ).stdout
                times.add(json.loads(out))
    floor = times["Floor"]
    del allocations["Floor"]
    return [
        timing.Row(
            f"phrase → {TOKENS} ids, {name}, {count} allocations",
            times[EXPRESSION + name],
            floor,
            f"{packages[0]} {way}",
            times[f"{name} {way}"],
            10 if way == "encode" else None,
        )
        for name, count in allocations.items()
        for way in ("encode", "encode_batch_fast")
    ]


if __name__ == "__main__":
    if "--peer" in sys.argv:
        time_peer()
    else:
        timing.main(__doc__, rows)
