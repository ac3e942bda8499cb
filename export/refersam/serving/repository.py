"""What Triton loads: the model folders of one variant and their configuration files.

A variant is an ensemble `refersam_<variant>` and one model per stage, `refersam_<variant>_<stage>`:

    refersam_bert/               config.pbtxt, 1/
    refersam_bert_image/         config.pbtxt (TensorRT), configs/{onnx,cpu}.pbtxt (ONNX Runtime),
                                 warmup/, 1/model.onnx, and 1/model.plan once an engine has been built;
                                 1/model.onnx.data with the weights of a graph beyond 2 GiB
    refersam_bert_text/ ...

Variants that differ in their text encoder alone share the other stages: `refersam_<shared>_<stage>`.

`tritonserver --model-config-name=cpu` reads `configs/cpu.pbtxt` where a model has one and `config.pbtxt`
where it has none, so the ensemble needs one file only. A tensor has the same name in every model that reads
or writes it, which makes the ensemble's wiring a matter of names.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from refersam.serving import graph as graphs

CONTRACT = "1"
"""Version of the ensemble's tensors and parameters. The gateway refuses any other."""

OUTPUTS = ("mask_logits", "coarse_logits")
"""Tensors that leave the ensemble beside the stages' stamps; all others stay between its stages."""

TEXT = "text"
"""The stage that every variant has for itself."""

ROW_CACHE_BYTES = 128 << 20
"""Results of the image stage that a CPU server keeps: 27 pictures of the photo variants. A second phrase
about a picture then costs only what depends on the phrase."""

MASK = "attention_mask"
IMAGE = "image"
ONES = "ones"
"""File below `warmup/` with one row of MASK."""

BATCH_SIZES = (1, 4, 8)
"""Least, usual and greatest number of rows: the engine's profile, and the warm-up's first and last."""

QUEUE_DELAY_US = 500
"""How long a stage waits for more rows, in microseconds; little, for the gateway forms batches itself."""


@dataclass(frozen=True)
class Tensor:
    """A tensor at a stage's boundary. `dims` leaves out the batch dimension; `dtype` is numpy's."""

    name: str
    dtype: np.dtype
    dims: tuple[int, ...]


@dataclass(frozen=True)
class StageSpec:
    """One model of the ensemble: its short name and its tensors, in the order of its graph."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def stamp(self) -> Tensor:
        """The output that names the checkpoint (see `graph.stamp`). It comes after `outputs`."""
        return Tensor(f"{self.name}_stamp", np.dtype(np.int32), (2,))


@dataclass(frozen=True)
class Variant:
    """A whole ensemble.

    Every one of `stages` comes after the stages that make its inputs. `parameters` are
    the ensemble's, as `ensemble_parameters` makes them. `shared` names the stages that other variants
    use too, which are all but the text stage; "" where there are none.
    """

    name: str
    stages: tuple[StageSpec, ...]
    parameters: Mapping[str, str]
    shared: str = ""

    @property
    def model(self) -> str:
        return ensemble_name(self.name)

    def stage_model(self, stage: StageSpec) -> str:
        return stage_name(stage.name, self.name, self.shared)


def ensemble_name(variant: str) -> str:
    return f"refersam_{variant}"


def stage_name(stage: str, variant: str, shared: str = "") -> str:
    """The model of a stage; `shared` as in `Variant`."""
    return f"refersam_{variant if stage == TEXT or not shared else shared}_{stage}"


def users(root: Path, models: Collection[str]) -> dict[str, str]:
    """The ensembles of a repository that have one of `models` as a step, with that model."""
    found = {}
    for path in sorted(root.glob("refersam_*/config.pbtxt")):
        steps = re.findall(r'\bmodel_name:\s*"([^"]+)"', path.read_text())
        used = [step for step in steps if step in models]
        if used:
            found[path.parent.name] = used[0]
    return found


def ensemble_parameters(
    *,
    variant: str,
    label: str,
    tokenizer: str,
    max_tokens: int,
    image_size: int,
    resize: str,
    checkpoint: str,
    precision: str,
) -> dict[str, str]:
    """All that a gateway must know of a variant.

    `resize` is one of `transforms.RULES`, `label` describes the weights to people, `checkpoint` is the
    SHA-256 of their file (see `export.identity`) in lower case hexadecimal, and `precision` what the stages
    compute in: `fp32`, `fp16`, `bf16`, `fp8` or `int8`.
    """
    return {
        "contract": CONTRACT,
        "variant": variant,
        "label": label,
        "tokenizer": tokenizer,
        "max_tokens": str(max_tokens),
        "image_size": str(image_size),
        "resize": resize,
        "upsample": "bilinear_align_corners",
        "threshold": "0.5",
        "checkpoint": checkpoint,
        "precision": precision,
    }


def write_stage(root: Path, variant: Variant, stage: StageSpec, graph: ModelProto) -> Path:
    """Write the folder of one stage under `root`, and `check` its graph; returns the graph's path.

    The graph gets its stamp here. It must not be used afterwards (see `graph.save`).
    """
    folder = root / variant.stage_model(stage)
    (folder / "1").mkdir(parents=True)
    path = folder / "1" / "model.onnx"
    graphs.stamp(graph, stage.stamp.name, variant.parameters["checkpoint"])
    graphs.save(graph, path)
    (folder / "config.pbtxt").write_text(pbtxt(stage_config(variant, stage, "tensorrt")))
    (folder / "configs").mkdir()
    for target in ("onnx", "cpu"):
        (folder / "configs" / f"{target}.pbtxt").write_text(pbtxt(stage_config(variant, stage, target)))
    for tensor in stage.inputs:
        if tensor.name == MASK:
            (folder / "warmup").mkdir()
            np.ones(tensor.dims, tensor.dtype).tofile(folder / "warmup" / ONES)
    return path


def write_ensemble(root: Path, variant: Variant) -> None:
    """Write the folder of the ensemble under `root`."""
    folder = root / variant.model
    (folder / "1").mkdir(parents=True)
    (folder / "1" / ".gitkeep").touch()
    (folder / "config.pbtxt").write_text(pbtxt(ensemble_config(variant)))


class Enum(str):
    """A value that the text format writes without quotes."""


def pbtxt(message: Mapping[str, Any], indent: int = 0) -> str:
    """Protocol buffer text format of nested mappings; a list stands for a repeated field."""
    pad = "  " * indent
    lines = []
    for field, content in message.items():
        for value in content if isinstance(content, list) else [content]:
            if isinstance(value, Mapping):
                lines += [f"{pad}{field} {{\n", pbtxt(value, indent + 1), f"{pad}}}\n"]
            else:
                lines.append(f"{pad}{field}: {_scalar(value)}\n")
    return "".join(lines)


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Enum):
        return str(value)
    if isinstance(value, str):
        # A JSON string is one of the text format too, but for the escapes of characters beyond ASCII.
        return json.dumps(value, ensure_ascii=False)
    raise TypeError(f"no text format for {value!r}")


def parse_pbtxt(text: str) -> dict[str, list[Any]]:
    """Read what `pbtxt` writes, one item a line: every field becomes a list of its values, in order."""
    stack: list[dict[str, list[Any]]] = [{}]
    for line in map(str.strip, text.splitlines()):
        if line == "}":
            stack.pop()
        elif line.endswith(" {"):
            message: dict[str, list[Any]] = {}
            stack[-1].setdefault(line[:-2], []).append(message)
            stack.append(message)
        else:
            field, value = line.split(": ", 1)
            stack[-1].setdefault(field, []).append(_parse_scalar(value))
    return stack[0]


def _parse_scalar(text: str) -> str | int | bool:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return Enum(text)


def stage_config(variant: Variant, stage: StageSpec, target: str) -> dict[str, Any]:
    """Configuration of a stage for `tensorrt`, `onnx` (ONNX Runtime, on the GPU if there is one) or `cpu`."""
    config: dict[str, Any] = {"name": variant.stage_model(stage)}
    parameters: dict[str, str] = {}
    if target == "tensorrt":
        config |= {"platform": "tensorrt_plan", "default_model_filename": "model.plan"}
    else:
        config |= {"backend": "onnxruntime", "default_model_filename": "model.onnx"}
    config |= {
        "max_batch_size": BATCH_SIZES[-1],
        "input": [_tensor_config(t) for t in stage.inputs],
        "output": [_tensor_config(t) for t in (*stage.outputs, stage.stamp)],
        # No max_queue_size: servers before 26.02 never answer an ensemble's request once a stage's queue is
        # full (triton-inference-server/core#466). The gateway bounds what is under way.
        "dynamic_batching": {
            "preferred_batch_size": list(BATCH_SIZES[1:]),
            "max_queue_delay_microseconds": QUEUE_DELAY_US,
        },
        "model_warmup": [_warmup(stage, size) for size in _warmup_sizes(target)],
    }
    if target == "cpu":
        config["instance_group"] = [{"count": 1, "kind": Enum("KIND_CPU")}]
        # 0 is as many threads as there are cores: the stages of a request work in turn.
        parameters |= {"intra_op_thread_count": "0", "inter_op_thread_count": "1"}
        if [tensor.name for tensor in stage.inputs] == [IMAGE]:
            parameters |= {"row_cache_bytes": str(ROW_CACHE_BYTES)}
    # By this the gateway sees that a server has loaded a stage of other weights.
    config["parameters"] = _parameters(parameters | {"checkpoint": variant.parameters["checkpoint"]})
    return config


def ensemble_config(variant: Variant) -> dict[str, Any]:
    """Configuration of the ensemble: inputs that no stage makes, `OUTPUTS` and stamps, one step per stage."""
    made = {t.name: t for stage in variant.stages for t in stage.outputs}
    read = {t.name: t for stage in variant.stages for t in stage.inputs}
    return {
        "name": variant.model,
        "platform": "ensemble",
        "max_batch_size": BATCH_SIZES[-1],
        "input": [_tensor_config(t) for t in read.values() if t.name not in made],
        "output": [
            _tensor_config(t)
            for t in (*(made[name] for name in OUTPUTS), *(stage.stamp for stage in variant.stages))
        ],
        "parameters": _parameters(variant.parameters),
        "ensemble_scheduling": {
            "step": [
                {
                    "model_name": variant.stage_model(stage),
                    "model_version": -1,
                    "input_map": [{"key": t.name, "value": t.name} for t in stage.inputs],
                    "output_map": [{"key": t.name, "value": t.name} for t in (*stage.outputs, stage.stamp)],
                }
                for stage in variant.stages
            ]
        },
    }


def _tensor_config(tensor: Tensor) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "data_type": Enum(f"TYPE_{_triton_type(tensor.dtype)}"),
        "dims": list(tensor.dims),
    }


def _triton_type(dtype: np.dtype) -> str:
    names = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32", np.dtype(np.uint8): "UINT8"}
    return names[np.dtype(dtype)]


def _parameters(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def _warmup_sizes(target: str) -> list[int]:
    """
    The batches that a stage runs before it counts as loaded.

    On a GPU each size may pay once for choosing kernels. On a CPU the first run of a size costs hardly more
    than the next ones, and 8 rows of `vit_b` at 448 pixels take 8 times the 1.4 s of a row on two cores.
    """
    return [BATCH_SIZES[0]] if target == "cpu" else [BATCH_SIZES[0], BATCH_SIZES[-1]]


def _warmup(stage: StageSpec, batch_size: int) -> dict[str, Any]:
    """A warm-up of one batch of zeros, but for the mask: softmax over nothing but padding would give NaN."""
    return {
        "name": f"batch_{batch_size}",
        "batch_size": batch_size,
        "inputs": [
            {
                "key": tensor.name,
                "value": {
                    "data_type": Enum(f"TYPE_{_triton_type(tensor.dtype)}"),
                    "dims": list(tensor.dims),
                    **({"input_data_file": ONES} if tensor.name == MASK else {"zero_data": True}),
                },
            }
            for tensor in stage.inputs
        ],
    }


def stage_graphs(repository: Path) -> dict[str, Path]:
    """The graph of every stage of every variant in a repository, by model name."""
    graphs = sorted(repository.glob("refersam_*/1/model.onnx"))
    return {graph.parent.parent.name: graph for graph in graphs}


def load_stages(
    repository: Path, variant: str
) -> tuple[Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]], dict[str, str]]:
    """A variant without Triton: a function from the ensemble's inputs to its outputs, and its parameters.

    The function runs the stages by ONNX Runtime on the CPU, for any number of rows.
    """
    ensemble = parse_pbtxt((repository / f"refersam_{variant}" / "config.pbtxt").read_text())
    parameters = {p["key"][0]: p["value"][0]["string_value"][0] for p in ensemble["parameters"]}
    sessions = [
        onnxruntime.InferenceSession(repository / step["model_name"][0] / "1" / "model.onnx")
        for step in ensemble["ensemble_scheduling"][0]["step"]
    ]

    def infer(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        tensors = dict(inputs)
        for session in sessions:
            names = [output.name for output in session.get_outputs()]
            results = session.run(names, {i.name: tensors[i.name] for i in session.get_inputs()})
            tensors.update(zip(names, results, strict=True))
        return {name: tensors[name] for name in OUTPUTS}

    return infer, parameters
