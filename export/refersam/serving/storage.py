"""Small weights: rounding a model to what a file can hold in half the bytes or fewer, and holding it so.

Two steps, so that the loss of rounding and the exactness of an export are two separate questions.
`round_weights` changes the model: matrices and kernels to float16's grid, vocabulary tables, and matrices on
demand, to 8 bits with a scale per row; from then on PyTorch computes with the rounded values in float32.
`compress` changes a graph exported from such a model: every constant that float16 holds exactly is stored so,
with a Cast to float32 behind it, and tables are stored as their 8-bit codes. It loses nothing: the graph
computes the same float32 numbers as before. ONNX Runtime folds the casts when it loads a graph, TensorRT when
it builds an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

TABLE_ROWS = 4096
"""Least number of rows of an embedding that is a vocabulary."""

MIN_SIZE = 256
"""Constants with fewer values are not worth a node."""

ZERO = 128
"""The code of 0. Codes are unsigned: TensorRT takes signed 8-bit constants only in front of a
DequantizeLinear, and ONNX Runtime would then expand the whole table on every call (3 ms instead of 0.01 ms
for 49,408 x 128)."""


@dataclass(frozen=True)
class Table:
    """A rounded table: row i is (codes[i] - ZERO) * scales[i], computed in float32.

    `codes` is uint8 [rows, width] with values 1..255, `scales` float32 [rows, 1].
    """

    codes: np.ndarray
    scales: np.ndarray

    def values(self) -> np.ndarray:
        """The table itself, float32 [rows, width]."""
        return (self.codes.astype(np.float32) - np.float32(ZERO)) * self.scales


@torch.no_grad()
def round_weights(model: nn.Module, eight_bits: Sequence[str] = ()) -> list[Table]:
    """Round a model's weights in place; returns the tables that went to 8 bits.

    `eight_bits` are beginnings of the names of modules whose linear layers go to 8 bits too. Vectors (biases,
    norms, scales) stay as they are. Raises ValueError for weights beyond float16's 65,504.
    """
    tables = {}
    for name, module in model.named_modules():
        vocabulary = isinstance(module, nn.Embedding) and module.num_embeddings >= TABLE_ROWS
        chosen = isinstance(module, nn.Linear) and name.startswith(tuple(eight_bits))
        if vocabulary or chosen:
            table = _quantise(module.weight.numpy(force=True))
            module.weight.copy_(torch.from_numpy(table.values()))
            tables[f"{name}.weight"] = table
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or name in tables:
            continue
        rounded = weight.half().float()
        if not rounded.isfinite().all():
            raise ValueError(f"{name} has values that float16 cannot hold")
        weight.copy_(rounded)
    return list(tables.values())


def _quantise(table: np.ndarray) -> Table:
    greatest = np.abs(table).max(axis=1, keepdims=True)
    scales = np.where(greatest > 0, greatest / 127, 1).astype(np.float32)
    codes = np.rint(table / scales) + ZERO
    return Table(codes.astype(np.uint8), scales)


def compress(model: onnx.ModelProto, tables: Sequence[Table]) -> None:
    """Store the constants of a graph, in place, in as few bytes as hold them exactly."""
    graph = model.graph
    constants, casts = [], []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_SIZE:
            constants.append(tensor)
        elif (table := _find(values, tables)) is not None:
            if _only_looked_up(graph, tensor.name):
                constants += _look_up_codes(graph, tensor.name, table)
            else:
                added, nodes = _expand_codes(tensor.name, table)
                constants += added
                casts += nodes
        elif (half := _as_half(values)) is not None:
            name = f"{tensor.name}_half"
            constants.append(numpy_helper.from_array(half, name))
            casts.append(
                helper.make_node("Cast", [name], [tensor.name], f"{name}_cast", to=TensorProto.FLOAT)
            )
        else:
            constants.append(tensor)
    _replace(graph.initializer, constants)
    _replace(graph.node, [*casts, *graph.node])


def _as_half(values: np.ndarray) -> np.ndarray | None:
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    return half if np.array_equal(half, values) else None


def _find(values: np.ndarray, tables: Sequence[Table]) -> Table | None:
    """The table that a constant holds. Linear layers are exported with their matrices transposed."""
    for table in tables:
        for turned in (table, Table(table.codes.T, table.scales.T)):
            if turned.codes.shape == values.shape and np.array_equal(turned.values(), values):
                return turned
    return None


def _only_looked_up(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a constant is read as a table. A matrix is read whole."""
    return any(node.op_type == "Gather" and name == node.input[0] for node in graph.node)


def _expand_codes(name: str, table: Table) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    """The constants and nodes that make a matrix of its codes; runtimes compute them once, when they load."""
    codes, scales, zero = f"{name}_codes", f"{name}_scales", f"{name}_zero"
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(table.codes), codes),
        numpy_helper.from_array(np.ascontiguousarray(table.scales), scales),
        numpy_helper.from_array(np.array(ZERO, np.float32), zero),
    ]
    nodes = [
        helper.make_node("Cast", [codes], [f"{name}_numbers"], to=TensorProto.FLOAT),
        helper.make_node("Sub", [f"{name}_numbers", zero], [f"{name}_centred"]),
        helper.make_node("Mul", [f"{name}_centred", scales], [name]),
    ]
    return constants, nodes


def _look_up_codes(graph: onnx.GraphProto, name: str, table: Table) -> list[onnx.TensorProto]:
    """Turn every look-up in the table called `name` into one in its codes; returns the constants it takes."""
    codes, scales, zero = f"{name}_codes", f"{name}_scales", f"{name}_zero"
    nodes = []
    for node in graph.node:
        if name not in node.input:
            nodes.append(node)
            continue
        if (
            node.op_type != "Gather"
            or node.input[0] != name
            or any(a.i for a in node.attribute if a.name == "axis")
        ):
            raise ValueError(f"{name} is read by {node.op_type} {node.name}, not only looked up by row")
        rows, result = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [codes, rows], [f"{result}_codes"], axis=0),
            helper.make_node("Gather", [scales, rows], [f"{result}_scales"], axis=0),
            helper.make_node("Cast", [f"{result}_codes"], [f"{result}_numbers"], to=TensorProto.FLOAT),
            helper.make_node("Sub", [f"{result}_numbers", zero], [f"{result}_centred"]),
            helper.make_node("Mul", [f"{result}_centred", f"{result}_scales"], [result]),
        ]
    _replace(graph.node, nodes)
    return [
        numpy_helper.from_array(table.codes, codes),
        numpy_helper.from_array(table.scales, scales),
        numpy_helper.from_array(np.array(ZERO, np.float32), zero),
    ]


def _replace(field: Any, items: Sequence[Any]) -> None:
    """Set a repeated field of a message, possibly to some of its own items."""
    del field[:]
    field.extend(items)
