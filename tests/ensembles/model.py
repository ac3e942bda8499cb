"""A stage of a test ensemble: it computes marks and takes as long as it is told.

A row's answer tells which picture and which phrase it is made from: mask_logits are 7 x 7 squares, each +8 or
-8, that spell the marks of both, lowest bit first, and a last square that is always +8.

    image_mark = R + 256 G + 65536 B of the first pixel
    text_mark  = sum over the real tokens of (place + 1) * id, modulo 2^24

To both the parameter `weights` is added, so that an answer tells which "weights" made each part of it.

`function` says which part of that a model does. A batch of n rows takes `fixed_us` + n * `row_us`
microseconds, asleep, and meanwhile holds the file `device` of the repository, as the kernels of all stages
share one GPU; with the parameter `device` "own" every instance has a GPU of its own.
"""

from __future__ import annotations  # pb_utils gets its types after this module has been read

import ctypes
import fcntl
import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

SQUARES = 7
BITS = 24
LOGIT = np.float32(8)


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = {
            key: value["string_value"]
            for key, value in json.loads(args["model_config"])["parameters"].items()
        }
        self.function = FUNCTIONS[parameters["function"]]
        self.fixed, self.row = (int(parameters[key]) / 1e6 for key in ("fixed_us", "row_us"))
        self.weights = int(parameters["weights"])
        self.stamp = np.frombuffer(bytes.fromhex(parameters["checkpoint"][:16]), ">i4").astype(np.int32)
        self.stamp_name = parameters["function"] + "_stamp"
        own = parameters["device"] == "own"
        self.device = None if own else (Path(args["model_repository"]).parent / "device").open("wb")

    def execute(self, requests: list) -> list:
        batches = [
            {tensor.name(): np.from_dlpack(tensor) for tensor in request.inputs()} for request in requests
        ]
        rows = sum(len(next(iter(batch.values()))) for batch in batches)
        results = [self.marked(self.function(batch)) for batch in batches]
        if self.fixed or self.row:
            if self.device:
                fcntl.flock(self.device, fcntl.LOCK_EX)
            time.sleep(self.fixed + rows * self.row)
            if self.device:
                fcntl.flock(self.device, fcntl.LOCK_UN)
        return [
            pb_utils.InferenceResponse(
                [from_numpy(name, result[name]) for name in request.requested_output_names()]
            )
            for request, result in zip(requests, results, strict=True)
        ]

    def marked(self, result: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The marks of pictures and phrases show which weights made them, and so does the stamp."""
        rows = len(next(iter(result.values())))
        result[self.stamp_name] = np.tile(self.stamp, (rows, 1))
        if self.weights:
            for name in {"image_mark", "text_mark"} & result.keys():
                result[name] = (result[name] + self.weights) % 2**BITS
        return result


def image(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    first = batch["image"][:, 0, 0, :].astype(np.int32)
    return {"image_mark": first @ np.array([[1], [256], [65536]], np.int32)}


def text(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    ids = batch["input_ids"].astype(np.int64) * batch["attention_mask"]
    total = (ids * np.arange(1, ids.shape[1] + 1)).sum(1, keepdims=True)
    return {"text_mark": (total % 2**BITS).astype(np.int32)}


def vli(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"marks": np.concatenate([batch["image_mark"], batch["text_mark"]], 1)}


def vlp(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    marks = batch["marks"]
    return {"prompts": marks.copy(), "coarse_logits": spell(marks)}


def decoder(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {"mask_logits": spell(batch["prompts"])}


def whole(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    logits = spell(vli({**image(batch), **text(batch)})["marks"])
    return {"mask_logits": logits, "coarse_logits": logits}


FUNCTIONS = {"image": image, "text": text, "vli": vli, "vlp": vlp, "decoder": decoder, "whole": whole}


def spell(marks: np.ndarray) -> np.ndarray:
    """int32 [n, 2] -> float32 [n, 56, 56]."""
    bits = (marks[:, :, None] >> np.arange(BITS)) & 1
    last = np.ones((len(marks), 1), bits.dtype)
    squares = np.concatenate([bits.reshape(len(marks), -1), last], 1).reshape(-1, SQUARES, 1, SQUARES, 1)
    side = 56 // SQUARES
    logits = np.where(squares, LOGIT, -LOGIT)
    return np.broadcast_to(logits, (len(marks), SQUARES, side, SQUARES, side)).reshape(-1, 56, 56)


def from_numpy(name: str, array: np.ndarray) -> pb_utils.Tensor:
    """The array as a tensor; by DLPack, because the wheel's stub was built for NumPy 1."""
    capsule = array.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack(name, capsule)
    rename_capsule(capsule, TAKEN)
    return tensor


TAKEN = b"used_dltensor"  # a capsule points to its name, so this lives as long as the process
rename_capsule = ctypes.pythonapi.PyCapsule_SetName
rename_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]
