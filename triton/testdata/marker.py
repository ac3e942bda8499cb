"""A model that answers with what it was given, so that a test knows whose answer it has.

Every logit of a row is the first sample of its picture plus 256 times its first token id. As a step before
that, with the parameter `delay`, it passes the token ids on after so many seconds.
"""

import ctypes
import json
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args: dict[str, str]) -> None:
        parameters = json.loads(args["model_config"])["parameters"]
        self.delay = float(parameters["delay"]["string_value"]) if "delay" in parameters else None

    def execute(self, requests: list) -> list:
        if self.delay is None:
            return [self.answer(request) for request in requests]
        time.sleep(self.delay)
        return [self.passed_on(request) for request in requests]

    def passed_on(self, request):
        ids = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "input_ids"))
        return pb_utils.InferenceResponse([tensor("waited_ids", ids.copy())])

    def answer(self, request):
        image = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "image"))  # [N, S, S, 3]
        ids = np.from_dlpack(pb_utils.get_input_tensor_by_name(request, "input_ids"))  # [N, L]
        side = image.shape[1] // 4
        logits = np.empty((len(image), side, side), np.float32)
        logits[:] = (image[:, 0, 0, 0] + np.float32(256) * ids[:, 0])[:, None, None]
        return pb_utils.InferenceResponse([tensor(name, logits) for name in ("mask_logits", "coarse_logits")])


def tensor(name: str, array: np.ndarray):
    """Passes the array as DLPack: backends/onnxruntime/model.py says why."""
    capsule = array.__dlpack__()
    made = pb_utils.Tensor.from_dlpack(name, capsule)
    rename_capsule(capsule, TAKEN)
    return made


TAKEN = b"used_dltensor"
rename_capsule = ctypes.pythonapi.PyCapsule_SetName
rename_capsule.argtypes = [ctypes.py_object, ctypes.c_char_p]
