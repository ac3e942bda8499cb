"""A Triton backend named `onnxruntime`, in Python: it serves `model.onnx` with ONNX Runtime on the CPU.

It stands in for the C++ backend of that name, which is in NVIDIA's image but not in the `nvidia-pytriton`
wheel, so that one `configs/cpu.pbtxt` serves both. Of the C++ backend's model parameters it knows

    intra_op_thread_count   threads within one operator; 0 or absent: $REFERSAM_ONNX_THREADS, and if that
                            is not set either, what ONNX Runtime finds right

and one that the C++ backend ignores:

    row_cache_bytes         bytes of results of rows that are kept; equal rows are computed once. 0 or absent:
                            every row is computed

Models have a batch axis (`max_batch_size` >= 1) on every tensor; requests that the dynamic batcher hands
over together run as one batch.
"""

from __future__ import annotations  # pb_utils gets its types after this module has been read

import ctypes
import hashlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

# The element types that ONNX Runtime, Triton's configs and NumPy share.
TRITON_TYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
}


class TritonPythonModel:
    """One instance of one model, with an ONNX Runtime session of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        """Loads the graph and holds it against the config: names, types and shapes.

        Triton refuses requests that do not fit the config, so what fits the graph here fits it always.
        """
        config = json.loads(args["model_config"])
        if args["model_instance_kind"] != "CPU":
            raise pb_utils.TritonModelException(
                f"an instance of kind {args['model_instance_kind']} cannot run on this backend, only KIND_CPU"
            )
        if config["max_batch_size"] < 1:
            raise pb_utils.TritonModelException("max_batch_size must be at least 1 on this backend")
        filename = config["default_model_filename"] or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], filename)
        if not path.is_file():
            raise pb_utils.TritonModelException(f"{path} does not exist")

        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_op_threads(config["parameters"])
        # Stages work in turn, each with a pool of its own: threads that spin after one stage would take
        # the cores from the next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        problems = mismatches("input", config["input"], inputs)
        problems += mismatches("output", config["output"], outputs)
        unfed = {node.name for node in inputs} - {entry["name"] for entry in config["input"]}
        problems += [f"the graph's input {name} is not in the config" for name in sorted(unfed)]
        if problems:
            raise pb_utils.TritonModelException(f"{filename} does not fit its config: " + "; ".join(problems))
        self.input_names = [node.name for node in inputs]
        kept = whole_number(config["parameters"], "row_cache_bytes")
        self.cache = RowCache(kept) if kept else None
        self.output_names = [node.name for node in outputs]

    def execute(self, requests: list) -> list:
        """Runs all requests as one batch and gives each the rows and outputs it asked for."""
        feeds = [
            [to_numpy(pb_utils.get_input_tensor_by_name(request, name)) for name in self.input_names]
            for request in requests
        ]
        asked = [request.requested_output_names() for request in requests]
        names = self.output_names if self.cache else sorted(set().union(*asked))

        def run(batch: list[np.ndarray]) -> list[np.ndarray]:
            return self.session.run(names, dict(zip(self.input_names, batch, strict=True)))

        try:
            batch = [joined(arrays) for arrays in zip(*feeds, strict=True)]
            results = self.cache.results(batch, run) if self.cache else run(batch)
        except Exception as error:  # the errors of ONNX Runtime have no common base
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]

        responses = []
        first = 0
        for feed, wanted in zip(feeds, asked, strict=True):
            end = first + len(feed[0])
            tensors = [
                from_numpy(name, result[first:end])
                for name, result in zip(names, results, strict=True)
                if name in wanted
            ]
            responses.append(pb_utils.InferenceResponse(tensors))
            first = end
        return responses


class RowCache:
    """Results of rows; the least recently used rows go first once all together exceed `limit` bytes.

    A stage that reads nothing but the picture gives the same results for every phrase about that picture, in
    one batch and in later ones.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self.rows: OrderedDict[bytes, list[np.ndarray]] = OrderedDict()

    def results(
        self, batch: list[np.ndarray], run: Callable[[list[np.ndarray]], list[np.ndarray]]
    ) -> list[np.ndarray]:
        """What `run` gives for a batch, arrays [N, …]. `run` gets each row once, and no row that is kept."""
        keys = [digest([array[row] for array in batch]) for row in range(len(batch[0]))]
        used = {key: self.rows[key] for key in keys if key in self.rows}
        new: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            if key not in used:
                new.setdefault(key, row)
        if new:
            computed = run([array[list(new.values())] for array in batch])
            for row, key in enumerate(new):
                used[key] = [array[row].copy() for array in computed]
        for key, arrays in used.items():
            self.keep(key, arrays)
        return [np.stack(arrays) for arrays in zip(*(used[key] for key in keys), strict=True)]

    def keep(self, key: bytes, arrays: list[np.ndarray]) -> None:
        if key not in self.rows:
            self.size += sum(array.nbytes for array in arrays)
        self.rows[key] = arrays
        self.rows.move_to_end(key)
        while self.size > self.limit:
            _, dropped = self.rows.popitem(last=False)
            self.size -= sum(array.nbytes for array in dropped)


def digest(arrays: list[np.ndarray]) -> bytes:
    """SHA-256 of a row. Clients choose the pictures, so two rows must never be mistaken for one another."""
    hasher = hashlib.sha256()
    for array in arrays:
        hasher.update(np.ascontiguousarray(array))
    return hasher.digest()


# The wheel's stub was built for NumPy 1: of an array of NumPy 2 it reads the size of an element from the
# wrong place and finds 0 bytes, without an error. So tensors pass as DLPack, which copies nothing, and
# neither Tensor.as_numpy nor Tensor(name, array) is called.


def to_numpy(tensor: pb_utils.Tensor) -> np.ndarray:
    """The tensor's memory as an array, valid until `execute` returns."""
    return np.from_dlpack(tensor)


def from_numpy(name: str, array: np.ndarray) -> pb_utils.Tensor:
    """The array, in C order, as a tensor that keeps it alive."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    # Whoever takes a capsule's memory renames it, to tell its destructor. The stub uses a name of its own,
    # about which NumPy's destructor would complain.
    rename_capsule(capsule, TAKEN)
    return tensor


TAKEN = b"used_dltensor"  # a capsule points to its name, so this lives as long as the process
rename_capsule = ctypes.pythonapi.PyCapsule_SetName
rename_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]


def joined(arrays: tuple[np.ndarray, ...]) -> np.ndarray:
    """The rows of all arrays, in order; a single array is not copied."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def intra_op_threads(parameters: dict[str, dict[str, str]]) -> int:
    """Threads within one operator as ONNX Runtime takes it: 0 leaves the choice to it."""
    count = whole_number(parameters, "intra_op_thread_count")
    return count or int(os.environ.get("REFERSAM_ONNX_THREADS", "0"))


def whole_number(parameters: dict[str, dict[str, str]], name: str) -> int:
    """A parameter of the config, 0 where it has none. Raises TritonModelException for anything else."""
    text = parameters.get(name, {"string_value": "0"})["string_value"]
    if not text.isdecimal():
        raise pb_utils.TritonModelException(f"parameter {name} is {text!r}; it must be a whole number")
    return int(text)


def mismatches(kind: str, declared: list[dict[str, Any]], nodes: list[ort.NodeArg]) -> list[str]:
    """What the config declares and the graph does not have."""
    graph = {node.name: node for node in nodes}
    problems = []
    for entry in declared:
        name = entry["name"]
        node = graph.get(name)
        if node is None:
            problems.append(f"{kind} {name} is not in the graph")
            continue
        if TRITON_TYPES.get(node.type) != entry["data_type"]:
            problems.append(f"{kind} {name} is {entry['data_type']} in the config, {node.type} in the graph")
        dims, shape = [int(dim) for dim in entry["dims"]], node.shape[1:]
        if len(dims) != len(shape) or not all(map(fits, dims, shape)):
            problems.append(f"{kind} {name} is {dims} in the config, {shape} in the graph, batch axis apart")
    return problems


def fits(dim: int, size: int | str | None) -> bool:
    """Whether a config's dim fits an axis of the graph; a free axis (-1, a name, None) fits any size."""
    return dim == -1 or not isinstance(size, int) or dim == size
