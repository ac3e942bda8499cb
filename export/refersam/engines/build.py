"""The command that builds a TensorRT engine from a stage's graph."""

from collections.abc import Sequence
from pathlib import Path

import onnx

from refersam.serving.repository import BATCH_SIZES


def command(graph: Path, options: Sequence[str]) -> list[str]:
    """The trtexec call that turns `1/model.onnx` into `1/model.plan` for batches of BATCH_SIZES."""
    inputs = onnx.load(graph, load_external_data=False).graph.input
    dims = {value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]] for value in inputs}

    def shapes(rows: int) -> str:
        return ",".join(f"{name}:{'x'.join(map(str, [rows, *sizes]))}" for name, sizes in dims.items())

    least, usual, greatest = map(shapes, BATCH_SIZES)
    return [
        "trtexec",
        f"--onnx={graph}",
        f"--saveEngine={graph.with_name('model.plan')}",
        f"--minShapes={least}",
        f"--optShapes={usual}",
        f"--maxShapes={greatest}",
        "--skipInference",
        *options,
    ]
