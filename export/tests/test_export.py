"""A small model of each kind, from checkpoint to repository."""

import dataclasses
import functools
import hashlib
import re
import shlex
import shutil
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import json_format, text_format
from onnx import TensorProto, helper, numpy_helper

from refersam import compile_check, export
from refersam.engines import __main__ as engines
from refersam.model import ReferSAM, ReferSAMConfig, preset
from refersam.model.config import TextConfig
from refersam.serving import graph as graphs
from refersam.serving import repository, storage
from refersam.serving.checkpoint import TOKENIZERS, load
from refersam.serving.comparison import compare, error, examples
from refersam.serving.export import export as write
from refersam.serving.export import replace
from refersam.serving.stages import run, stages

SIZE, TOKENS = 64, 9
RESIZE = {"clip": "longest_side_pad"}  # the other says nothing
STAGES = ("text", "image", "vli", "vlp", "decoder")

# All that the stages may be made of. Whoever adds an operator sees first that `make compile-check` takes it.
OPERATORS = """
    Add And Cast Clip Concat ConstantOfShape Conv ConvTranspose Div Equal Erf Expand Floor Gather
    GatherElements GreaterOrEqual Identity LayerNormalization LessOrEqual MatMul MaxPool Min Mod Mul Not Or
    Pad Range ReduceMean ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Split Sqrt Squeeze Sub
    Transpose Unsqueeze Where
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(kind: str) -> ReferSAMConfig:
    """`tiny`, with a smaller vocabulary that is still one."""
    tiny = preset("tiny", kind)
    text = dataclasses.replace(tiny.text, vocab=5000)
    assert isinstance(text, TextConfig)
    return dataclasses.replace(tiny, text=text)


@functools.cache
def checkpoint(kind: str, folder: Path) -> Path:
    """A file as refersam.train writes it, with weights that let every path count."""
    torch.manual_seed(7)
    model = ReferSAM(config(kind))
    for name, parameter in model.named_parameters():
        if "gamma" in name:
            torch.nn.init.constant_(parameter, 0.5)
        elif name.endswith("pos_embed") or "rel_pos" in name:
            torch.nn.init.normal_(parameter, std=0.3)
        elif parameter.ndim == 2 and name.endswith("weight") and "embed" not in name:
            torch.nn.init.normal_(parameter, std=0.8 / parameter.shape[1] ** 0.5)
    path = folder / f"{kind}.pt"
    meta = {
        "variant": kind,
        "label": "test",
        "tokenizer": TOKENIZERS[kind],
        "image_size": SIZE,
        "max_tokens": TOKENS,
    }
    torch.save({"model": model.state_dict(), "config": model.config.to_dict(), "meta": meta}, path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both checkpoints and `models`, a repository of both variants."""
    folder = tmp_path_factory.mktemp("export")
    for kind in ("bert", "clip"):
        path = checkpoint(kind, folder)
        options = ["--resize", RESIZE[kind]] if kind in RESIZE else []
        models = str(folder / "models")
        export.main(["--checkpoint", str(path), "--variant", kind, "--repository", models, *options])
    return folder


@functools.cache
def schema() -> Any:
    """Triton's own message types, from the client's wheel and without the rest of the client."""
    wheel = util.find_spec("tritonclient")
    assert wheel is not None
    assert wheel.submodule_search_locations
    path = Path(wheel.submodule_search_locations[0], "grpc", "model_config_pb2.py")
    spec = util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None
    assert spec.loader
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_config(path: Path) -> Any:
    return text_format.Parse(path.read_text(), schema().ModelConfig())


def shapes(tensors: Any) -> dict[str, tuple[str, list[int]]]:
    types = schema().DataType
    return {t.name: (types.Name(t.data_type).removeprefix("TYPE_"), list(t.dims)) for t in tensors}


def graph_shapes(values: Any) -> dict[str, tuple[str, list[int]]]:
    names = {TensorProto.FLOAT: "FP32", TensorProto.INT32: "INT32", TensorProto.UINT8: "UINT8"}
    types = {value.name: value.type.tensor_type for value in values}
    return {name: (names[t.elem_type], [d.dim_value for d in t.shape.dim[1:]]) for name, t in types.items()}


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_ensemble_gives_the_masks_of_the_rounded_model(exported: Path, kind: str):
    loaded = load(exported / f"{kind}.pt")
    storage.round_weights(loaded.model)
    inputs = examples(loaded, 5, seed=3)
    pixels = inputs["image"].permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalised = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        truth = loaded.model(normalised, inputs["input_ids"].long(), inputs["attention_mask"].bool())

    infer, _ = repository.load_stages(exported / "models", kind)
    outputs = infer({name: tensor.numpy() for name, tensor in inputs.items()})
    assert set(outputs) == {"mask_logits", "coarse_logits"}
    assert error(outputs["mask_logits"], truth.low_res_logits[:, 0].numpy()) < 1e-4
    assert error(outputs["coarse_logits"], truth.coarse_logits[:, 0].numpy()) < 1e-4
    swapped = inputs | {
        "input_ids": inputs["input_ids"].flip(0),
        "attention_mask": inputs["attention_mask"].flip(0),
    }
    other = infer({name: tensor.numpy() for name, tensor in swapped.items()})
    assert error(other["mask_logits"], outputs["mask_logits"]) > 1e-2, "the phrase does not matter"


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_graphs_are_of_known_operators(exported: Path, kind: str):
    for name in STAGES:
        path = exported / "models" / f"refersam_{kind}_{name}" / "1" / "model.onnx"
        graphs.check(path)
        model = onnx.load(path)
        assert {node.op_type for node in model.graph.node} <= set(OPERATORS.split()), name


def test_models_are_back_when_replacing_them_fails(tmp_path: Path):
    root, folder = tmp_path / "models", tmp_path / "new"
    for name in ("first", "second"):
        (root / name).mkdir(parents=True)
        (root / name / "old").touch()
    (folder / "first").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="second"):
        replace(["first", "second"], folder, root)
    assert sorted(str(path.relative_to(root)) for path in root.glob("*/*")) == ["first/old", "second/old"]


def test_norms_of_large_pictures_stay_exact():
    """ONNX Runtime's own norm is off by 3e-4 here."""

    class Norm(torch.nn.GroupNorm):
        name, inputs, outputs = "norm", ("c1",), ("mask_logits",)

        def forward(self, c1: torch.Tensor) -> tuple[torch.Tensor]:
            return (super().forward(c1),)

    norm = Norm(1, 64, eps=1e-6).eval()
    c1 = torch.randn(2, 64, 224, 224, generator=torch.Generator().manual_seed(0))
    graph = graphs.export(norm, [c1])
    (normed,) = onnxruntime.InferenceSession(graph.SerializeToString()).run(None, {"c1": c1.numpy()})
    with torch.no_grad():
        truth = torch.nn.functional.group_norm(c1.double(), 1, eps=1e-6).numpy()
    assert error(normed, truth) < 5e-6


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_ensemble_config_is_the_contract(exported: Path, kind: str):
    ensemble = read_config(exported / "models" / f"refersam_{kind}" / "config.pbtxt")
    assert ensemble.name == f"refersam_{kind}"
    assert ensemble.platform == "ensemble"
    assert ensemble.max_batch_size >= 8
    assert shapes(ensemble.input) == {
        "image": ("UINT8", [SIZE, SIZE, 3]),
        "input_ids": ("INT32", [TOKENS]),
        "attention_mask": ("INT32", [TOKENS]),
    }
    assert shapes(ensemble.output) == {
        "mask_logits": ("FP32", [SIZE // 4, SIZE // 4]),
        "coarse_logits": ("FP32", [SIZE // 4, SIZE // 4]),
        **{f"{stage}_stamp": ("INT32", [2]) for stage in STAGES},
    }
    assert {key: value.string_value for key, value in ensemble.parameters.items()} == {
        "contract": "1",
        "variant": kind,
        "label": "test",
        "tokenizer": {"bert": "bert-base-uncased", "clip": "clip-vit-large-patch14"}[kind],
        "max_tokens": str(TOKENS),
        "image_size": str(SIZE),
        "resize": RESIZE.get(kind, "stretch"),
        "upsample": "bilinear_align_corners",
        "threshold": "0.5",
        "checkpoint": hashlib.sha256((exported / f"{kind}.pt").read_bytes()).hexdigest(),
        "precision": "fp32",
    }
    steps = {step.model_name: step for step in ensemble.ensemble_scheduling.step}
    assert list(steps) == [f"refersam_{kind}_{name}" for name in STAGES]
    assert (exported / "models" / f"refersam_{kind}" / "1").is_dir()
    assert not ensemble.model_warmup, "Triton refuses an ensemble that has one"


@pytest.mark.parametrize("kind", ["bert", "clip"])
@pytest.mark.parametrize("name", STAGES)
def test_stage_configs_fit_graph_and_ensemble(exported: Path, kind: str, name: str):
    folder = exported / "models" / f"refersam_{kind}_{name}"
    graph = onnx.load(folder / "1" / "model.onnx").graph
    ensemble = read_config(exported / "models" / f"refersam_{kind}" / "config.pbtxt")
    step = next(s for s in ensemble.ensemble_scheduling.step if s.model_name == folder.name)
    for file in ("config.pbtxt", "configs/onnx.pbtxt", "configs/cpu.pbtxt"):
        stage = read_config(folder / file)
        assert stage.name == folder.name
        assert stage.max_batch_size >= ensemble.max_batch_size
        assert shapes(stage.input) == graph_shapes(graph.input)
        assert shapes(stage.output) == graph_shapes(graph.output)
        assert set(step.input_map) == set(shapes(stage.input))
        assert set(step.output_map) == set(shapes(stage.output))
        assert stage.parameters["checkpoint"] == ensemble.parameters["checkpoint"]
        assert stage.HasField("dynamic_batching")
        assert stage.dynamic_batching.default_queue_policy.max_queue_size == 0
        assert [w.batch_size for w in stage.model_warmup] == ([1] if file == "configs/cpu.pbtxt" else [1, 8])
        for warmup in stage.model_warmup:
            assert set(warmup.inputs) == set(shapes(stage.input))
            mask = warmup.inputs.get("attention_mask")
            if mask is not None:
                row = np.fromfile(folder / "warmup" / mask.input_data_file, np.int32)
                assert row.tolist() == [1] * TOKENS
    assert read_config(folder / "config.pbtxt").platform == "tensorrt_plan"
    assert read_config(folder / "configs" / "onnx.pbtxt").backend == "onnxruntime"
    cpu = read_config(folder / "configs" / "cpu.pbtxt")
    assert cpu.backend == "onnxruntime"
    assert [group.kind for group in cpu.instance_group] == [schema().ModelInstanceGroup.KIND_CPU]


@pytest.mark.parametrize("kind", ["bert", "clip"])
@pytest.mark.parametrize("name", STAGES)
def test_every_row_of_a_stage_names_the_checkpoint(exported: Path, kind: str, name: str):
    session = onnxruntime.InferenceSession(
        exported / "models" / f"refersam_{kind}_{name}" / "1" / "model.onnx"
    )
    digest = hashlib.sha256((exported / f"{kind}.pt").read_bytes()).digest()
    types = {"tensor(float)": np.float32, "tensor(int32)": np.int32, "tensor(uint8)": np.uint8}
    for rows in (1, 5):
        inputs = {i.name: np.ones((rows, *i.shape[1:]), types[i.type]) for i in session.get_inputs()}
        (stamps,) = session.run([f"{name}_stamp"], inputs)
        assert stamps.dtype == np.int32
        assert [row.astype(">i4").tobytes() for row in stamps] == [digest[:8]] * rows


def test_written_config_reads_back(exported: Path):
    for path in (exported / "models").glob("**/*.pbtxt"):
        parsed = repository.parse_pbtxt(path.read_text())
        message = json_format.MessageToDict(read_config(path), preserving_proto_field_name=True)
        assert parsed["name"] == [message["name"]]
        assert [i["dims"] for i in parsed["input"]] == [list(map(int, i["dims"])) for i in message["input"]]
        assert len(parsed.get("parameters", [])) == len(message.get("parameters", {}))


def test_awkward_strings_survive_the_text_format():
    text = 'a "b" \\ c\nd — é'
    written = repository.pbtxt({"name": text})
    assert text_format.Parse(written, schema().ModelConfig()).name == text
    assert repository.parse_pbtxt(written) == {"name": [text]}


@pytest.mark.parametrize("kind", ["bert", "clip"])
def test_size_is_that_of_halves_and_bytes(exported: Path, kind: str):
    """Every matrix takes 2 bytes a value and the vocabulary 1, but for what nothing computes with."""
    model = load(exported / f"{kind}.pt").model
    vocabulary = max((p for p in model.text_encoder.parameters()), key=lambda p: p.numel())
    assert vocabulary.shape[0] == 5000
    others = sum(p.numel() for p in model.parameters()) - vocabulary.numel()
    files = {p: p.stat().st_size for p in (exported / "models").glob(f"refersam_{kind}_*/1/model.onnx")}
    assert len(files) == 5
    text = onnx.load(exported / "models" / f"refersam_{kind}_text" / "1" / "model.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in text.graph.initializer}
    codes = [a for a in stored.values() if a.dtype == np.uint8]
    assert [a.shape for a in codes] == [vocabulary.shape]
    assert not any(a.dtype == np.float32 and a.shape == vocabulary.shape for a in stored.values())
    # 15 % for scales, vectors, folded position tables and the nodes themselves.
    assert sum(files.values()) < 1.15 * (2 * others + vocabulary.numel()) + 500_000
    halves = 2 * others + vocabulary.numel()
    assert sum(files.values()) > 0.7 * halves


def test_fp32_storage_keeps_the_weights(exported: Path, tmp_path: Path):
    loaded = load(exported / "bert.pt")
    write(loaded, "plain", tmp_path, "fp32")
    inputs = examples(loaded, 2, seed=5)
    truth = run(stages(loaded.model), inputs)["mask_logits"].numpy()
    infer, parameters = repository.load_stages(tmp_path, "plain")
    assert error(infer({k: v.numpy() for k, v in inputs.items()})["mask_logits"], truth) < 1e-4
    assert parameters["variant"] == "plain"


@pytest.fixture
def external(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of a variant with graphs too large for one file, because the limit is lowered."""
    monkeypatch.setattr(graphs, "FILE_LIMIT", 50_000)
    arguments = ["--variant", "bert", "--repository", str(tmp_path), "--weights", "fp32"]
    export.main(["--checkpoint", str(exported / "bert.pt"), *arguments])
    return tmp_path


def test_weights_beyond_the_limit_of_a_file_stand_beside_the_graph(exported: Path, external: Path):
    for name in STAGES:
        folder = external / f"refersam_bert_{name}" / "1"
        assert sorted(path.name for path in folder.iterdir()) == ["model.onnx", "model.onnx.data"]
        graph, weights = (folder / file for file in ("model.onnx", "model.onnx.data"))
        assert graph.stat().st_size < weights.stat().st_size
    loaded = load(exported / "bert.pt")
    inputs = examples(loaded, 3, seed=5)
    truth = run(stages(loaded.model), inputs)["mask_logits"].numpy()
    infer, _ = repository.load_stages(external, "bert")
    assert error(infer({k: v.numpy() for k, v in inputs.items()})["mask_logits"], truth) < 1e-4


def test_the_exporter_can_write_beyond_2_gib(monkeypatch: pytest.MonkeyPatch, exported: Path):
    """It refuses to when its target is anything but a `str`; a graph of that size is too large for a test."""
    targets = []
    trace = torch.onnx.export

    def seen(stage: Any, arguments: Any, target: Any, **options: Any) -> None:
        targets.append(target)
        trace(stage, arguments, target, **options)

    monkeypatch.setattr(torch.onnx, "export", seen)
    loaded = load(exported / "bert.pt")
    text = stages(loaded.model)[0]
    graphs.export(text, [examples(loaded, 2)[name] for name in text.inputs])
    assert [type(target) for target in targets] == [str]


def test_weights_beside_the_graph_compile(external: Path, capsys: pytest.CaptureFixture[str]):
    for name in ("text", "image", "vli"):
        shutil.rmtree(external / f"refersam_bert_{name}")
    compile_check.main(["--repository", str(external)])
    lines = capsys.readouterr().out.splitlines()
    named = [line.split(", ")[0] for line in lines if line.startswith("refersam_")]
    assert named == ["refersam_bert_decoder: ok", "refersam_bert_vlp: ok"]


def test_a_variant_replaces_one_with_weights_beside_its_graphs(exported: Path, external: Path):
    graphs.FILE_LIMIT = 2**31
    arguments = ["--variant", "bert", "--repository", str(external)]
    export.main(["--checkpoint", str(exported / "bert.pt"), *arguments])
    assert not list(external.glob("**/*.data"))


@pytest.mark.parametrize("eight_bits", [(), ("text_encoder.",)])
def test_compression_loses_nothing(exported: Path, eight_bits: tuple[str, ...]):
    loaded = load(exported / "clip.pt")
    tables = storage.round_weights(loaded.model, eight_bits)
    parts = stages(loaded.model)
    tensors = run(parts, examples(loaded, 2))
    for part in (parts[0], parts[3]):
        plain = graphs.export(part, [tensors[name] for name in part.inputs])
        small = onnx.ModelProto()
        small.CopyFrom(plain)
        storage.compress(small, tables)
        feeds = {name: tensors[name].numpy() for name in part.inputs}
        results = [
            onnxruntime.InferenceSession(m.SerializeToString()).run(None, feeds) for m in (plain, small)
        ]
        for before, after in zip(*results, strict=True):
            np.testing.assert_array_equal(after, before)
        if eight_bits and part is parts[0]:
            # The vocabulary, and 6 matrices per layer of the encoder.
            codes = [t for t in small.graph.initializer if t.data_type == TensorProto.UINT8]
            assert len(codes) == 1 + 6 * loaded.model.config.text.layers


def test_rounding_stays_within_half_a_step():
    table = torch.nn.Embedding(storage.TABLE_ROWS, 16)
    model = torch.nn.ModuleDict({"table": table, "linear": torch.nn.Linear(16, 4)})
    table.weight.data[3] = 0
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    (codes,) = storage.round_weights(model)
    np.testing.assert_array_equal(codes.values(), table.weight.detach().numpy())
    step = before["table.weight"].abs().amax(1, keepdim=True) / 127
    assert ((table.weight - before["table.weight"]).abs() <= 0.5001 * step).all()
    assert torch.equal(model["linear"].weight, before["linear.weight"].half().float())
    assert torch.equal(model["linear"].bias, before["linear.bias"])


def test_weights_beyond_float16_are_refused():
    model = torch.nn.Linear(4, 4)
    model.weight.data[1, 2] = 1e5
    with pytest.raises(ValueError, match="weight has values that float16 cannot hold"):
        storage.round_weights(model)


def test_a_graph_that_disagrees_is_not_written(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The decoder's largest weights are off by 1 %; the repository keeps what it had."""
    (tmp_path / "refersam_bert_text").mkdir()
    export_stage = graphs.export

    def spoiled(stage: Any, arguments: Any) -> onnx.ModelProto:
        model = export_stage(stage, arguments)
        if stage.name == "decoder":
            tensor = max(model.graph.initializer, key=lambda t: np.prod(t.dims))
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array((values * 1.01).astype(values.dtype), tensor.name))
        return model

    monkeypatch.setattr(graphs, "export", spoiled)
    arguments = [
        "--checkpoint",
        str(exported / "bert.pt"),
        "--variant",
        "bert",
        "--repository",
        str(tmp_path),
    ]
    with pytest.raises(SystemExit, match=r"decoder +mask_logits .* FAILED"):
        export.main(arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["refersam_bert_text"]
    assert not list((tmp_path / "refersam_bert_text").iterdir())
    assert re.search(r"vlp +coarse_logits .* ok", capsys.readouterr().out)


def test_rows_that_depend_on_their_batch_are_found(tmp_path: Path):
    class Mixed(torch.nn.Module):
        name, inputs, outputs = "mixed", ("image",), ("mask_logits",)

        def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
            return (image.float() + image.float().mean(0, keepdim=True),)

    tensors = {"image": torch.randint(256, (8, 6), dtype=torch.uint8)}
    tensors |= {"mask_logits": Mixed()(tensors["image"])[0]}
    graphs.save(graphs.export(Mixed(), [tensors["image"]]), tmp_path / "mixed.onnx")
    (comparison,) = compare(Mixed(), tmp_path / "mixed.onnx", tensors)
    assert comparison.batch_error > 1e-3
    assert not comparison.ok


@pytest.mark.parametrize(
    ("value", "truth", "expected"),
    [
        ([1.0, -1.0], [1.0, -1.0], 0.0),
        ([2.0, 2.5], [2.0, 2.0], 0.25),
        ([np.nan, 1.0], [1.0, 1.0], np.inf),
        ([1.0, 1.0], [np.inf, 1.0], np.inf),
    ],
)
def test_error(value: list[float], truth: list[float], expected: float):
    assert error(np.array(value, np.float32), np.array(truth, np.float32)) == expected


def test_forbidden_graphs_are_refused(tmp_path: Path):
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    grid = helper.make_tensor_value_info("grid", TensorProto.FLOAT, [1, 4, 4, 2])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 3, 4, 4])
    node = helper.make_node("GridSample", ["image", "grid"], ["out"], "sample")
    model = helper.make_model(
        helper.make_graph([node], "g", [image, grid], [out]),
        opset_imports=[helper.make_opsetid("", 16)],
        ir_version=8,
    )
    with pytest.raises(graphs.GraphError) as failure:
        graphs.save(model, tmp_path / "model.onnx")
    message = str(failure.value)
    assert "opset is not 17" in message
    assert "GridSample sample" in message
    assert "grid: the first dimension" in message


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        ({"config": None}, [], "give --size and --text"),
        ({"meta": None}, [], "give --image-size, --max-tokens"),
        (
            {"meta": {"image_size": SIZE, "max_tokens": TOKENS, "resize": "crop"}},
            [],
            "allowed: stretch, longest",
        ),
        ({}, ["--image-size", "100"], "100 is not a multiple of 32"),
        ({}, ["--max-tokens", "513"], "reads 3 to 512 tokens, not 513"),
        ({"model": {}}, [], "text_encoder.embeddings.word_embeddings.weight"),
        ({}, ["--size", "mini", "--text", "bert"], "misshapen"),
    ],
)
def test_checkpoints_that_cannot_be_served(
    exported: Path, tmp_path: Path, change: dict[str, Any], arguments: list[str], message: str
):
    saved = torch.load(exported / "bert.pt", weights_only=True) | change
    path = tmp_path / "changed.pt"
    torch.save({key: value for key, value in saved.items() if value is not None}, path)
    with pytest.raises(SystemExit, match=re.escape(message)):
        export.main(
            [
                "--checkpoint",
                str(path),
                "--variant",
                "x",
                "--repository",
                str(tmp_path / "models"),
                *arguments,
            ]
        )
    assert not (tmp_path / "models").exists()


def test_bare_weights_need_only_their_sizes(tmp_path: Path):
    torch.manual_seed(1)
    model = ReferSAM(preset("tiny", "bert"))
    path = tmp_path / "bare.pth"
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, path)
    loaded = load(path, preset("tiny", "bert"), {"image_size": 64, "max_tokens": 12})
    assert (loaded.tokenizer, loaded.label) == ("bert-base-uncased", "bare")
    assert torch.equal(loaded.model.mask_scaling.weight, model.mask_scaling.weight)


def test_every_stage_compiles(exported: Path, capsys: pytest.CaptureFixture[str]):
    one = exported / "one"
    for name in ("text", "vlp"):
        graph = one / f"refersam_bert_{name}" / "1" / "model.onnx"
        graph.parent.mkdir(parents=True)
        graph.symlink_to(exported / "models" / f"refersam_bert_{name}" / "1" / "model.onnx")
    check = ["--repository", str(one), "--passed", str(exported / "passed")]
    compile_check.main(check)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" of ")[0] for line in lines] == [
        "refersam_bert_text: ok, engine",
        "refersam_bert_vlp: ok, engine",
    ]

    # What compiled is not compiled again until one of its files changes.
    (graph.parent / "weights").write_bytes(b"changed")
    compile_check.main(check)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" of ")[0] for line in lines] == [
        "refersam_bert_text: ok, compiled before",
        "refersam_bert_vlp: ok, engine",
    ]


def test_a_stage_that_does_not_compile_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The table of signed bytes that `refersam.serving.storage` avoids."""
    rows = helper.make_tensor_value_info("rows", TensorProto.INT32, ["batch", 4])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["batch", 4, 8])
    table = numpy_helper.from_array(np.ones((16, 8), np.int8), "table")
    nodes = [
        helper.make_node("Gather", ["table", "rows"], ["codes"]),
        helper.make_node("Cast", ["codes"], ["out"], to=TensorProto.FLOAT),
    ]
    path = tmp_path / "refersam_x_text" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(
        helper.make_model(
            helper.make_graph(nodes, "g", [rows], [out], [table]),
            opset_imports=[helper.make_opsetid("", 17)],
            ir_version=8,
        ),
        path,
    )
    check = ["--repository", str(tmp_path), "--passed", str(tmp_path / "passed")]
    for _ in range(2):  # a failure is not remembered
        capsys.readouterr()
        with pytest.raises(SystemExit, match="not every stage compiles"):
            compile_check.main(check)
    output = capsys.readouterr().out
    assert "refersam_x_text: FAILED" in output
    assert "table" in output


def test_engine_commands_cover_every_input(exported: Path, capsys: pytest.CaptureFixture[str]):
    engines.main(["--repository", str(exported / "models"), "--stages", "vli", "decoder", "--", "--noTF32"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == "set -e"
    assert len(lines) == 4
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "trtexec"
        options = dict(a.removeprefix("--").split("=", 1) for a in arguments if "=" in a)
        graph = Path(options["onnx"])
        assert Path(options["saveEngine"]) == graph.with_name("model.plan")
        inputs = {name: dims for name, (_, dims) in graph_shapes(onnx.load(graph).graph.input).items()}
        for option, rows in (("minShapes", 1), ("optShapes", 4), ("maxShapes", 8)):
            given = dict(item.split(":") for item in options[option].split(","))
            assert {n: list(map(int, d.split("x"))) for n, d in given.items()} == {
                name: [rows, *dims] for name, dims in inputs.items()
            }
        assert "--noTF32" in arguments
