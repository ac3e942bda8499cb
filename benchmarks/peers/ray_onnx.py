# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "ray[serve]==2.60.0", "opencv-python-headless==5.0.0.93", "tokenizers==0.23.3", "onnxruntime==1.32.0",
#   "pycocotools==2.0.11", "numpy==2.4.6", "python-multipart==0.0.34",
# ]
# ///
"""Ray Serve with @serve.batch: 8 rows that wait 10 ms, and one replica that has all threads."""

from __future__ import annotations

import signal

import numpy as np
import onnx_stages
import phrases_and_masks as parts
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Segment:
    def __init__(self, threads: int) -> None:
        self.stages, self.tokens = onnx_stages.Stages(threads), parts.tokenizer()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.01)
    async def infer(self, rows: list[onnx_stages.Row]) -> list[np.ndarray]:
        return onnx_stages.infer(self.stages, rows)

    async def __call__(self, request: Request) -> dict | str:
        if request.method == "GET":
            return "ready"
        async with request.form() as form:
            row = onnx_stages.Row(self.tokens, await form["image"].read(), form["phrase"])
        return onnx_stages.answer(row, await self.infer(row))


if __name__ == "__main__":
    args = parts.arguments(__doc__)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": args.port})
    serve.run(Segment.bind(args.threads), route_prefix="/v1/segment")
    signal.pause()
