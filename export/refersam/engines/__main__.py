"""Prints the commands that build a repository's TensorRT engines, one per stage, as a shell script.

    python -m refersam.engines --repository model_repository > engines.sh

Run the script from the same folder, on the GPU and with the TensorRT version that will serve. What stands
behind `--` goes to every command: `-- --noTF32 --timingCacheFile=trt.cache`.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from refersam.engines.build import command
from refersam.serving.repository import stage_graphs


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m refersam.engines", description=__doc__.split("\n")[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"), help="%(default)s")
    parser.add_argument("--stages", nargs="+", metavar="NAME", help="only these: text image vli vlp decoder")
    parser.add_argument("options", nargs="*", help="further options of trtexec, behind --")
    args = parser.parse_args(argv)
    graphs = [
        graph
        for model, graph in stage_graphs(args.repository).items()
        if args.stages is None or model.rsplit("_", 1)[1] in args.stages
    ]
    if not graphs:
        sys.exit(f"{args.repository} holds no such stage")
    print("set -e")
    for graph in graphs:
        print(shlex.join(command(graph, args.options)))


if __name__ == "__main__":
    main()
