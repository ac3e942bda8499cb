"""Proves that NVIDIA's compiler takes every stage of a repository, on a machine without a GPU.

TensorRT itself builds engines only on the GPU that they are for. TensorRT-RTX shares its ONNX parser and
optimiser and builds ahead of time for any GPU of a given compute capability, so it finds what TensorRT would
refuse: operators, types, shapes that are not known. It says nothing of an engine's numbers or speed.
"""

from pathlib import Path

import tensorrt_rtx as trt

from refersam.serving.repository import BATCH_SIZES

CAPABILITY = trt.ComputeCapability.SM80
"""What the engines are built for: Ampere, the oldest in wide use."""


class CompileError(Exception):
    """A graph that does not compile. The message is the compiler's."""


class Messages(trt.ILogger):
    """Keeps the compiler's errors."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, message: str) -> None:
        if severity <= trt.ILogger.ERROR:
            self.errors.append(message)


MESSAGES = Messages()
"""TensorRT keeps the first logger that it is given for the life of the process."""


def compile_graph(graph: Path) -> int:
    """Build an engine for batches of BATCH_SIZES from an ONNX file; returns its size in bytes.

    Raises CompileError with all that the compiler complains of.
    """
    MESSAGES.errors.clear()
    builder = trt.Builder(MESSAGES)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, MESSAGES)
    if not parser.parse_from_file(str(graph)):
        faults = [parser.get_error(i) for i in range(parser.num_errors)]
        raise CompileError("\n".join(f"{fault.node_name()}: {fault.desc()}" for fault in faults))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(CAPABILITY, 0)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        profile.set_shape(tensor.name, *((size, *tensor.shape[1:]) for size in BATCH_SIZES))
    config.add_optimization_profile(profile)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CompileError("\n".join(MESSAGES.errors))
    return engine.nbytes
