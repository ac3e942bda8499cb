"""Compiles every stage of a repository with NVIDIA's compiler (see `refersam.engines.compile_check`).

python -m refersam.compile_check --repository model_repository
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from refersam.engines.compile_check import CompileError, compile_graph
from refersam.serving.repository import stage_graphs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.compile_check", description=__doc__.split("\n")[0]
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("model_repository"), help="default: %(default)s"
    )
    args = parser.parse_args(argv)
    graphs = stage_graphs(args.repository)
    if not graphs:
        sys.exit(f"{args.repository} holds no stage of any variant")
    failed = False
    for name, graph in graphs.items():
        start = time.monotonic()
        try:
            size = compile_graph(graph)
        except CompileError as failure:
            failed = True
            print(f"{name}: FAILED\n{failure}")
            continue
        print(f"{name}: ok, engine of {size / 1e6:.1f} MB in {time.monotonic() - start:.1f} s")
    if failed:
        sys.exit("not every stage compiles")


if __name__ == "__main__":
    main()
