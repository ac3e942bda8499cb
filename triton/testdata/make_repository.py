"""Writes triton/testdata/model_repository: the smallest ensemble that keeps the gateway's contract.

Beside it stands random_image.onnx, which a test puts in the place of the image stage's graph: its results
show whether a row was computed again.

Two stages with an answer that can be computed by hand, so that the Go tests know every logit:

    features[y, x]    = mean over the 4x4 cell and its three channels of pixel / 255
    mask_logits       = features * 10 - 5 + mean of the real input_ids / 100
    coarse_logits     = features

The decoder's numbers stand in a file beside its graph, as the weights of a graph beyond 2 GiB do.

Run it again after a change:  .venv/bin/python triton/testdata/make_repository.py
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

IMAGE_SIZE = 32  # S
MAX_TOKENS = 6  # L
LOGITS_SIZE = IMAGE_SIZE // 4
MAX_BATCH = 8
VARIANT = "tiny"
MODEL = f"refersam_{VARIANT}"
OPSET = 17
WEIGHTS = "model.onnx.data"

CHECKPOINT = "0123456789abcdef" * 4


def tensor(name: str, dtype: int, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, ["batch", *shape])


def constant(name: str, values: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(values, name)


def image_stage() -> onnx.ModelProto:
    """image UINT8 [N, S, S, 3] -> features FP32 [N, S/4, S/4]."""
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["pixels", "cells_shape"], ["cells"]),
        helper.make_node("ReduceMean", ["cells"], ["means"], axes=[2, 4, 5], keepdims=0),
        helper.make_node("Div", ["means", "full_scale"], ["features"]),
    ]
    cells = np.array([-1, LOGITS_SIZE, 4, LOGITS_SIZE, 4, 3], np.int64)
    graph = helper.make_graph(
        nodes,
        "image",
        [tensor("image", TensorProto.UINT8, IMAGE_SIZE, IMAGE_SIZE, 3)],
        [tensor("features", TensorProto.FLOAT, LOGITS_SIZE, LOGITS_SIZE)],
        [constant("cells_shape", cells), constant("full_scale", np.array(255, np.float32))],
    )
    return checked(graph)


def random_image_stage() -> onnx.ModelProto:
    """The image stage with a random number from 0 to 1 on each feature, another one each time it runs."""
    model = image_stage()
    model.graph.node[-1].output[0] = "exact"
    model.graph.node.extend(
        [
            helper.make_node("RandomUniformLike", ["exact"], ["noise"]),
            helper.make_node("Add", ["exact", "noise"], ["features"]),
        ]
    )
    return checked(model.graph)


def decoder_stage() -> onnx.ModelProto:
    """features, input_ids INT32 [N, L], attention_mask INT32 [N, L] -> mask_logits, coarse_logits."""
    nodes = [
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["real_ids"]),
        helper.make_node("ReduceSum", ["real_ids", "token_axis"], ["id_sum"], keepdims=1),
        helper.make_node("ReduceSum", ["attention_mask", "token_axis"], ["count"], keepdims=1),
        helper.make_node("Cast", ["id_sum"], ["id_sum_f"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["count"], ["count_f"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["id_sum_f", "count_f"], ["id_mean"]),
        helper.make_node("Div", ["id_mean", "hundred"], ["bias"]),
        helper.make_node("Unsqueeze", ["bias", "token_axis"], ["bias_2d"]),
        helper.make_node("Mul", ["features", "ten"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "five"], ["centred"]),
        helper.make_node("Add", ["centred", "bias_2d"], ["mask_logits"]),
        helper.make_node("Identity", ["features"], ["coarse_logits"]),
    ]
    size = (LOGITS_SIZE, LOGITS_SIZE)
    graph = helper.make_graph(
        nodes,
        "decoder",
        [
            tensor("features", TensorProto.FLOAT, *size),
            tensor("input_ids", TensorProto.INT32, MAX_TOKENS),
            tensor("attention_mask", TensorProto.INT32, MAX_TOKENS),
        ],
        [tensor("mask_logits", TensorProto.FLOAT, *size), tensor("coarse_logits", TensorProto.FLOAT, *size)],
        [
            constant("token_axis", np.array([1], np.int64)),
            constant("hundred", np.array(100, np.float32)),
            constant("ten", np.array(10, np.float32)),
            constant("five", np.array(5, np.float32)),
        ],
    )
    return checked(graph)


def moved(model: onnx.ModelProto) -> bytes:
    """The content of a file for the model's float constants, which the model names and no longer holds."""
    content = b""
    for constant in model.graph.initializer:
        if constant.data_type == TensorProto.FLOAT:
            external_data_helper.set_external_data(
                constant, WEIGHTS, offset=len(content), length=len(constant.raw_data)
            )
            content += constant.raw_data
            constant.ClearField("raw_data")
    return content


def checked(graph: onnx.GraphProto) -> onnx.ModelProto:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="refersam")
    model.ir_version = 8
    onnx.checker.check_model(model, full_check=True)
    return model


def fields(kind: str, tensors: list[tuple[str, str, list[int]]]) -> str:
    return "".join(
        f'{kind} {{ name: "{name}" data_type: TYPE_{dtype} dims: {dims} }}\n' for name, dtype, dims in tensors
    )


def config_of(graph: onnx.GraphProto) -> tuple[str, str]:
    """The inputs and outputs of a stage's config, without the batch axis."""

    def rows(values: list[onnx.ValueInfoProto]) -> list[tuple[str, str, list[int]]]:
        names = {TensorProto.UINT8: "UINT8", TensorProto.INT32: "INT32", TensorProto.FLOAT: "FP32"}
        return [
            (
                value.name,
                names[value.type.tensor_type.elem_type],
                [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]],
            )
            for value in values
        ]

    return fields("input", rows(graph.input)), fields("output", rows(graph.output))


def write_stage(repository: Path, name: str, model: onnx.ModelProto, beside: bool = False) -> None:
    version = repository / name / "1"
    configs = repository / name / "configs"
    version.mkdir(parents=True, exist_ok=True)
    configs.mkdir(exist_ok=True)
    if beside:
        (version / WEIGHTS).write_bytes(moved(model))
    (version / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    inputs, outputs = config_of(model.graph)
    tensors = f'name: "{name}"\nmax_batch_size: {MAX_BATCH}\n{inputs}{outputs}'
    (repository / name / "config.pbtxt").write_text(
        f'backend: "tensorrt"\ndefault_model_filename: "model.plan"\n{tensors}'
    )
    (configs / "cpu.pbtxt").write_text(
        f'backend: "onnxruntime"\ndefault_model_filename: "model.onnx"\n{tensors}'
        "instance_group { kind: KIND_CPU count: 1 }\n"
        "dynamic_batching { max_queue_delay_microseconds: 5000 }\n"
    )


def write_ensemble(repository: Path) -> None:
    size = [LOGITS_SIZE, LOGITS_SIZE]
    inputs = fields(
        "input",
        [
            ("image", "UINT8", [IMAGE_SIZE, IMAGE_SIZE, 3]),
            ("input_ids", "INT32", [MAX_TOKENS]),
            ("attention_mask", "INT32", [MAX_TOKENS]),
        ],
    )
    outputs = fields("output", [("mask_logits", "FP32", size), ("coarse_logits", "FP32", size)])
    parameters = {
        "contract": "1",
        "variant": VARIANT,
        "label": "two stages of arithmetic",
        "tokenizer": "bert-base-uncased",
        "max_tokens": str(MAX_TOKENS),
        "image_size": str(IMAGE_SIZE),
        "resize": "stretch",
        "upsample": "bilinear_align_corners",
        "threshold": "0.5",
        "checkpoint": CHECKPOINT,
        "precision": "fp32",
    }
    steps = [
        (f"{MODEL}_image", ["image"], ["features"]),
        (f"{MODEL}_decoder", ["features", "input_ids", "attention_mask"], ["mask_logits", "coarse_logits"]),
    ]
    text = f'name: "{MODEL}"\nplatform: "ensemble"\nmax_batch_size: {MAX_BATCH}\n{inputs}{outputs}'
    text += "ensemble_scheduling {\n"
    for model, step_inputs, step_outputs in steps:
        maps = [f'input_map {{ key: "{name}" value: "{name}" }}' for name in step_inputs]
        maps += [f'output_map {{ key: "{name}" value: "{name}" }}' for name in step_outputs]
        text += f'  step {{ model_name: "{model}" model_version: -1\n    ' + "\n    ".join(maps) + "\n  }\n"
    text += "}\n"
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
    version = repository / MODEL / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / ".gitkeep").touch()
    (repository / MODEL / "config.pbtxt").write_text(text)


def main() -> None:
    repository = Path(__file__).parent / "model_repository"
    write_stage(repository, f"{MODEL}_image", image_stage())
    write_stage(repository, f"{MODEL}_decoder", decoder_stage(), beside=True)
    write_ensemble(repository)
    random = random_image_stage().SerializeToString(deterministic=True)
    repository.with_name("random_image.onnx").write_bytes(random)


if __name__ == "__main__":
    main()
