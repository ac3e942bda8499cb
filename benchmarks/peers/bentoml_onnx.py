# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "bentoml==1.4.40", "opencv-python-headless==5.0.0.93", "tokenizers==0.23.3", "onnxruntime==1.32.0",
#   "pycocotools==2.0.11", "numpy==2.4.6", "uvloop==0.23.0", "httptools==0.9.0",
# ]
# ///
"""BentoML with its adaptive batching, up to 8 rows, in the service that runs the model."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import bentoml
import numpy as np
import onnx_stages
import phrases_and_masks as parts

PIXELS = 3 * parts.SIZE * parts.SIZE
IDS = 4 * parts.TOKENS


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 256})
class Model:
    def __init__(self) -> None:
        self.stages = onnx_stages.Stages(int(os.environ["PEER_THREADS"]))

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=5000)
    def infer(self, packed: np.ndarray) -> np.ndarray:
        """Batches are arrays, so a row is packed: bytes of the square, of the ids and of the mask."""
        images, ids, mask = np.split(packed, [PIXELS, PIXELS + IDS], axis=1)
        squares = images.reshape(-1, parts.SIZE, parts.SIZE, 3)
        words = (np.ascontiguousarray(part).view(np.int32) for part in (ids, mask))
        return self.stages.run(squares, *words)


@bentoml.service(workers=1, traffic={"timeout": 60, "max_concurrency": 256})
class Segment:
    model = bentoml.depends(Model)

    def __init__(self) -> None:
        self.tokens = parts.tokenizer()

    @bentoml.api(route="/v1/segment")
    async def segment(self, image: Path, phrase: str) -> dict:
        row = onnx_stages.Row(self.tokens, image.read_bytes(), phrase)
        packed = np.concatenate([part.reshape(-1).view(np.uint8) for part in (row.square, row.ids, row.mask)])
        (logits,) = await self.model.to_async.infer(packed[None])
        return onnx_stages.answer(row, logits)


if __name__ == "__main__":
    args = parts.arguments(__doc__)
    os.environ["PEER_THREADS"] = str(args.threads)
    os.execv(
        sys.executable,
        [sys.executable, "-m", "bentoml", "serve", "bentoml_onnx:Segment", "--host", "127.0.0.1",
         "--port", str(args.port), "--working-dir", str(Path(__file__).parent), "--quiet"],
    )  # fmt: skip
