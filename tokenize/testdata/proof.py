"""Compares `refersam tokenize` with Hugging Face's fast tokenizers on distinct strings from all over Unicode,
whole and cut. Exits with 1 when a single id differs.

    make tokenize-proof                                # a million strings, about 3 minutes
    python tokenize/testdata/proof.py --count 20000    # from the repository root, with bin/refersam built
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import IO

from golden import peers
from phrases import LONG, PHRASES, generate

BATCH = 10_000
CUT = 20
SHOWN = 10


def distinct(count: int, seed: int) -> list[str]:
    """count strings that are different and fit on a line."""
    lines = dict.fromkeys(text.replace("\n", "\r") for text in PHRASES + LONG)
    for text in generate(seed):
        if len(lines) >= count:
            return list(lines)[:count]
        lines[text.replace("\n", "\r")] = None
    raise AssertionError("generate ends")


def rows(binary: str, name: str, max_tokens: int, lines: IO[bytes]) -> Iterator[list[int]]:
    """What the program prints for each line."""
    lines.seek(0)
    command = [binary, "tokenize", "--tokenizer", name, "--max-tokens", str(max_tokens)]
    with subprocess.Popen(command, stdin=lines, stdout=subprocess.PIPE) as program:
        assert program.stdout is not None
        for row in program.stdout:
            yield json.loads(row)
    if program.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {program.returncode}")


def cut(ids: list[int], pad: int) -> list[int]:
    """As refersam.tokenizer does for training."""
    if len(ids) > CUT:
        return [*ids[: CUT - 1], ids[-1]]
    return ids + [pad] * (CUT - len(ids))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--binary", default="bin/refersam")
    args = parser.parse_args()

    texts = distinct(args.count, args.seed)
    characters = len(set().union(*texts))
    print(f"{len(texts):,} distinct strings, {characters:,} different characters", flush=True)
    differences = 0
    with tempfile.TemporaryFile() as lines:
        lines.writelines(text.encode() + b"\n" for text in texts)
        for name, peer in peers().items():
            start = time.monotonic()
            whole = rows(args.binary, name, 0, lines)
            tokens = wrong = 0
            kept = []  # what the cut rows must be; their program reads the same file, so it runs afterwards
            for first in range(0, len(texts), BATCH):
                for text, peer_ids in zip(
                    texts[first : first + BATCH], peer(texts[first : first + BATCH])["input_ids"], strict=True
                ):
                    got = next(whole, None)
                    tokens += len(peer_ids)
                    kept.append(cut(peer_ids, peer.pad_token_id))
                    if got != peer_ids:
                        wrong += 1
                        if wrong <= SHOWN:
                            print(f"{name}: {text!a}\n  Hugging Face {peer_ids}\n  refersam     {got}")
            surplus = sum(1 for _ in whole)
            short = rows(args.binary, name, CUT, lines)
            wrong_cut = sum(next(short, None) != want for want in kept) + sum(1 for _ in short)
            print(
                f"{name}: {wrong} differences in {len(texts):,} strings ({tokens:,} tokens), "
                f"{wrong_cut} when cut or padded to {CUT}, {surplus} lines too many; "
                f"{time.monotonic() - start:.0f} s",
                flush=True,
            )
            differences += wrong + wrong_cut + surplus
    sys.exit(differences > 0)


if __name__ == "__main__":
    main()
