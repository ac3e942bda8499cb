# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "litserve==0.2.19", "fastapi==0.165.0", "uvloop==0.23.0", "httptools==0.9.0", "python-multipart==0.0.34",
#   "opencv-python-headless==5.0.0.93", "tokenizers==0.23.3", "onnxruntime==1.32.0", "pycocotools==2.0.11",
#   "numpy==2.4.6",
# ]
# ///
"""LitServe with batches of 8 rows that wait 10 ms, and one worker that has all threads."""

import cv2
import litserve
import numpy as np
import onnx_stages
import phrases_and_masks as parts
from fastapi import Request


class Segment(litserve.LitAPI):
    threads: int

    def setup(self, device: str) -> None:
        cv2.setNumThreads(1)
        self.stages, self.tokens = onnx_stages.Stages(self.threads), parts.tokenizer()

    def decode_request(self, request: Request) -> onnx_stages.Row:
        """The annotation makes LitServe read a form and pass it on."""
        return onnx_stages.Row(self.tokens, request["image"].file.read(), request["phrase"])

    def batch(self, inputs: list[onnx_stages.Row]) -> list[onnx_stages.Row]:
        return inputs

    def predict(self, rows: list[onnx_stages.Row]) -> list[tuple[onnx_stages.Row, np.ndarray]]:
        return list(zip(rows, onnx_stages.infer(self.stages, rows), strict=True))

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: tuple[onnx_stages.Row, np.ndarray]) -> dict:
        return onnx_stages.answer(*output)


if __name__ == "__main__":
    args = parts.arguments(__doc__)
    api = Segment(max_batch_size=8, batch_timeout=0.01, api_path="/v1/segment")
    api.threads = args.threads
    server = litserve.LitServer(
        api, accelerator="cpu", workers_per_device=1, healthcheck_path="/readyz", timeout=60
    )
    server.run(host="127.0.0.1", port=args.port, num_api_servers=1, log_level="warning", access_log=False,
               generate_client_file=False, loop="uvloop", http="httptools")  # fmt: skip
