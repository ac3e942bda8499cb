"""Compiles every stage of a repository with NVIDIA's compiler (see `refersam.engines.compile_check`).

python -m refersam.compile_check --repository model_repository
"""

import argparse
import hashlib
import inspect
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tensorrt_rtx

from refersam.engines import compile_check
from refersam.engines.compile_check import CompileError, compile_graph
from refersam.serving.repository import BATCH_SIZES, stage_graphs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.compile_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="default: %(default)s"
    )
    parser.add_argument(
        "--passed",
        type=Path,
        help="a file of hashes: a stage that compiled before is not compiled again until its files,"
        " the compiler or the check change",
    )
    args = parser.parse_args(argv)
    graphs = stage_graphs(args.repository)
    if not graphs:
        sys.exit(f"{args.repository} holds no stage of any variant")
    passed = set(args.passed.read_text().split()) if args.passed and args.passed.exists() else set()
    failed = False
    for name, graph in graphs.items():
        digest = fingerprint(graph)
        if digest in passed:
            print(f"{name}: ok, compiled before")
            continue
        start = time.monotonic()
        try:
            size = compile_graph(graph)
        except CompileError as failure:
            failed = True
            print(f"{name}: FAILED\n{failure}")
            continue
        if args.passed:
            with args.passed.open("a") as file:
                print(digest, file=file)
        print(f"{name}: ok, engine of {size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s")
    if failed:
        sys.exit("not every stage compiles")


def fingerprint(graph: Path) -> str:
    """SHA-256 of all that decides whether a stage compiles: its files, the compiler and the check."""
    digest = hashlib.sha256()
    digest.update(f"{tensorrt_rtx.__version__} {BATCH_SIZES}\n{inspect.getsource(compile_check)}".encode())
    for path in sorted(path for path in graph.parent.iterdir() if path.is_file()):
        digest.update(f"\n{path.name} {path.stat().st_size}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
