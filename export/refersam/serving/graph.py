"""Stages as ONNX graphs: opset 17, a dynamic batch and nothing else dynamic."""

import math
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, Value
from torch.onnx import symbolic_helper

from refersam.serving.stages import Stage

OPSET = 17
"""17 is the first opset with LayerNormalization, which keeps norms in one piece and so in float32 under FP16;
from 20 on TensorRT's parser reads some interpolation modes wrongly (NVIDIA/TensorRT#4646)."""

FORBIDDEN = {
    "GridSample": "TensorRT 10.14 to 11.1 miscompiles it inside deformable attention (NVIDIA/TensorRT#4813)",
    "If": "control flow depends on data",
    "Loop": "control flow depends on data",
    "Scan": "control flow depends on data",
    "NonZero": "the size of its result depends on data",
}

FILE_LIMIT = 2**31 - 2**24
"""Bytes of constants that one file may hold. Protocol buffers end at 2 GiB; the rest is for the nodes."""

EXTERNAL = ".data"
"""Ending of the file with the constants of a graph beyond FILE_LIMIT, behind the graph's own file name.
Loaders look for it in the graph's folder."""

BATCH = "batch"
"""Name of the dynamic dimension."""


class GraphError(ValueError):
    """A graph that must not be served. The message lists all that is wrong with it."""


def export(stage: Stage, arguments: Sequence[Tensor]) -> onnx.ModelProto:
    """Trace a stage on example arguments.

    The first dimension of every argument is the batch, of at least 2 rows so that nothing is specialised for
    one; all other sizes become part of the graph. The model is in memory and may be too large for one file.
    """
    if any(argument.shape[0] < 2 for argument in arguments):
        raise ValueError("examples need at least 2 rows")
    names = (*stage.inputs, *stage.outputs)
    with (
        tempfile.TemporaryDirectory(prefix="refersam-") as folder,
        torch.no_grad(),
        warnings.catch_warnings(),
    ):
        path = Path(folder, "traced.onnx")
        # The exporter announces its age, and each size that becomes a constant.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        results = stage(*arguments)
        torch.onnx.register_custom_op_symbolic("aten::group_norm", _group_norm, OPSET)
        try:
            torch.onnx.export(
                stage,
                tuple(arguments),
                # Beyond 2 GiB the exporter writes constants to files of their own, if the path is a `str`.
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(stage.inputs),
                output_names=list(stage.outputs),
                dynamic_axes={name: {0: BATCH} for name in names},
            )
        finally:
            torch.onnx.unregister_custom_op_symbolic("aten::group_norm", OPSET)
        graph = onnx.load(path)
    for value, result in zip(graph.graph.output, results, strict=True):
        _set_shape(value, result.shape[1:])
    _constants_to_initializers(graph.graph)
    return graph


def stamp_values(checkpoint: str) -> np.ndarray:
    """The stamp of a checkpoint: the first 64 bits of its SHA-256 as two big-endian numbers, int32 [2]."""
    return np.frombuffer(bytes.fromhex(checkpoint[:16]), ">i4").astype(np.int32)


def stamp(model: onnx.ModelProto, name: str, checkpoint: str) -> None:
    """Add an output `name` to a graph, int32 [batch, 2]: the stamp of the checkpoint, once per row.

    A server may load other weights under the same name at any time, and its answers do not say which weights
    made them. The stamp travels with the answer, so the gateway can tell.
    """
    graph = model.graph
    constants = {
        f"{name}_values": stamp_values(checkpoint)[None],
        f"{name}_first": np.array([0], np.int64),
        f"{name}_width": np.array([2], np.int64),
    }
    graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in constants.items())
    graph.node.extend(
        [
            helper.make_node("Shape", [graph.input[0].name], [f"{name}_shape"]),
            helper.make_node("Gather", [f"{name}_shape", f"{name}_first"], [f"{name}_rows"]),
            helper.make_node("Concat", [f"{name}_rows", f"{name}_width"], [f"{name}_size"], axis=0),
            helper.make_node("Expand", [f"{name}_values", f"{name}_size"], [name]),
        ]
    )
    graph.output.append(helper.make_tensor_value_info(name, onnx.TensorProto.INT32, [BATCH, 2]))


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a model and `check` the file. Constants beyond FILE_LIMIT go to a file of their own.

    The model must not be used afterwards: constants that went to a file of their own have left it.
    """
    beside = size(model) > FILE_LIMIT
    onnx.save_model(
        model, path, save_as_external_data=beside, location=path.name + EXTERNAL, size_threshold=1024
    )
    check(path)


def size(model: onnx.ModelProto) -> int:
    """Bytes that the constants of a model take."""
    return sum(
        math.prod(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        for tensor in model.graph.initializer
    )


def check(path: Path) -> None:
    """Raise GraphError unless a model is of OPSET, free of FORBIDDEN operators and dynamic in batch alone.

    What is not valid ONNX raises `onnx.checker.ValidationError` or `onnx.shape_inference.InferenceError`.
    """
    onnx.checker.check_model(path, full_check=True)
    model = onnx.load(path, load_external_data=False)
    faults = []
    if [(opset.domain, opset.version) for opset in model.opset_import] != [("", OPSET)]:
        faults.append(f"opset is not {OPSET} alone")
    for node in model.graph.node:
        if node.op_type in FORBIDDEN:
            faults.append(f"{node.op_type} {node.name}: {FORBIDDEN[node.op_type]}")
    for value in (*model.graph.input, *model.graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        if first.dim_param != BATCH:
            faults.append(f"{value.name}: the first dimension is not {BATCH!r}")
        if not all(dim.HasField("dim_value") and dim.dim_value > 0 for dim in rest):
            faults.append(f"{value.name}: a dimension other than the first is not fixed")
    if faults:
        raise GraphError("\n".join(faults))


@symbolic_helper.parse_args("v", "i", "v", "v", "f", "b")
def _group_norm(
    graph: Any, x: Value, groups: int, weight: Value, bias: Value, eps: float, _cudnn: bool
) -> Value:
    """Normalisation over a whole picture, [B, C, H, W] with one group, by means of means of means.

    The exporter's own form is an InstanceNormalization. ONNX Runtime then adds up all values one after the
    other in float32: off by 3e-4 of the scale for 64 x 224 x 224 values (a picture of 448 pixels), by
    4e-3 for a picture of 1024 pixels. This form is off by 1e-6 for both.
    """
    if groups != 1:
        raise ValueError(f"{groups} groups; only normalisation over all channels is supported")

    def mean(values: Value) -> Value:
        for axis in (3, 2, 1):
            values = graph.op("ReduceMean", values, axes_i=[axis], keepdims_i=1)
        return values

    def per_channel(values: Value) -> Value:
        return symbolic_helper._unsqueeze_helper(graph, values, [1, 2])

    centred = graph.op("Sub", x, mean(x))
    variance = mean(graph.op("Mul", centred, centred))
    deviation = graph.op("Sqrt", graph.op("Add", variance, graph.op("Constant", value_t=torch.tensor(eps))))
    scaled = graph.op("Mul", graph.op("Div", centred, deviation), per_channel(weight))
    return graph.op("Add", scaled, per_channel(bias))


def _set_shape(value: onnx.ValueInfoProto, dims: Sequence[int]) -> None:
    """The exporter loses track of some sizes. Those of the trace are true, and `check` tests them."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    shape.dim.add().dim_param = BATCH
    for size in dims:
        shape.dim.add().dim_value = size


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Give every constant tensor one place, so that whoever looks for weights finds them all."""
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        tensor = graph.initializer.add()
        tensor.CopyFrom(next(a.t for a in node.attribute if a.name == "value"))
        tensor.name = node.output[0]
        graph.node.remove(node)
