# /// script
# requires-python = ">=3.11,<3.14"
# dependencies = [
#   "fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "python-multipart==0.0.34",
#   "orjson==3.13.0", "pillow==13.0.0", "tokenizers==0.23.3", "tritonclient[grpc]==2.73.0", "torch==2.15.0",
#   "pycocotools==2.0.11", "numpy==2.4.6",
# ]
# ///
"""FastAPI, Pillow, Hugging Face's tokenizers, tritonclient, torch and pycocotools."""

import before_triton
import phrases_and_masks as parts
import torch
import uvicorn_server

if __name__ == "__main__":
    torch.set_num_threads(1)
    args = parts.arguments(__doc__)
    app = before_triton.application(args, parts.read_with_pillow, parts.masks_with_torch)
    uvicorn_server.serve(app, args.port)
