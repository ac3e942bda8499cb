"""The demo model's five stages in this process, on ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import phrases_and_masks as parts

STAGES = ("text", "image", "vli", "vlp", "decoder")


class Stages:
    def __init__(self, threads: int) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.sessions = [
            ort.InferenceSession(
                parts.ROOT / f"tests/models/refersam_bert_{stage}/1/model.onnx",
                options,
                providers=["CPUExecutionProvider"],
            )
            for stage in STAGES
        ]

    def run(self, images: np.ndarray, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """uint8 [n, S, S, 3], int32 [n, L], int32 [n, L] -> float32 [n, S/4, S/4]."""
        tensors = {"image": images, "input_ids": ids, "attention_mask": mask}
        for session in self.sessions:
            names = [node.name for node in session.get_outputs() if node.name != "coarse_logits"]
            feed = {node.name: tensors[node.name] for node in session.get_inputs()}
            tensors.update(zip(names, session.run(names, feed), strict=True))
        return tensors["mask_logits"]


class Row:
    """One picture and one phrase, ready for the model."""

    def __init__(self, tokens: parts.BertWordPieceTokenizer, data: bytes, phrase: str) -> None:
        self.square, self.width, self.height = parts.read_with_opencv(data)
        ids, mask = parts.encode(tokens, [phrase])
        self.ids, self.mask = ids[0], mask[0]


def infer(stages: Stages, rows: list[Row]) -> list[np.ndarray]:
    """The logits of each row, float32 [S/4, S/4]."""
    return list(
        stages.run(
            np.stack([row.square for row in rows]),
            np.stack([row.ids for row in rows]),
            np.stack([row.mask for row in rows]),
        )
    )


def answer(row: Row, logits: np.ndarray) -> dict:
    results = parts.masks_with_opencv(logits[None], row.width, row.height)
    return parts.answer(results, row.width, row.height)
