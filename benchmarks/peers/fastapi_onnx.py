# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "python-multipart==0.0.34",
#   "orjson==3.13.0", "opencv-python-headless==5.0.0.93", "tokenizers==0.23.3", "onnxruntime==1.32.0",
#   "pycocotools==2.0.11", "numpy==2.4.6",
# ]
# ///
"""FastAPI with the model in its process; endpoints run in its thread pool, without batches."""

import cv2
import onnx_stages
import orjson
import phrases_and_masks as parts
import uvicorn_server
from fastapi import FastAPI, Form, Response, UploadFile

if __name__ == "__main__":
    cv2.setNumThreads(1)
    args = parts.arguments(__doc__)
    stages, tokens = onnx_stages.Stages(args.threads), parts.tokenizer()
    app = FastAPI()

    @app.get("/readyz")
    async def ready() -> Response:
        return Response()

    @app.post("/v1/segment")
    def segment(image: UploadFile, phrase: str = Form()) -> Response:
        row = onnx_stages.Row(tokens, image.file.read(), phrase)
        (logits,) = onnx_stages.infer(stages, [row])
        return Response(orjson.dumps(onnx_stages.answer(row, logits)), media_type="application/json")

    uvicorn_server.serve(app, args.port)
