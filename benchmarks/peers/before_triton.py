"""A FastAPI service that gets its logits from Triton; two of the fastapi_*.py scripts run it."""

from __future__ import annotations

import argparse

import numpy as np
import orjson
import phrases_and_masks as parts
import tritonclient.grpc.aio as triton
from fastapi import FastAPI, Request, Response


def application(args: argparse.Namespace, read: parts.Reader, masks: parts.Masks) -> FastAPI:
    tokens = parts.tokenizer()
    app = FastAPI()
    clients: list[triton.InferenceServerClient] = []

    @app.get("/readyz")
    async def ready() -> Response:
        if not clients:
            clients.append(triton.InferenceServerClient(args.triton))
        return Response(status_code=200 if await clients[0].is_model_ready(args.model) else 503)

    @app.post("/v1/segment")
    async def segment(request: Request) -> Response:
        if not clients:
            clients.append(triton.InferenceServerClient(args.triton))
        async with request.form() as form:
            data = await form["image"].read()
            phrases = form.getlist("phrase")
        square, width, height = read(data)
        ids, mask = parts.encode(tokens, phrases)
        images = np.broadcast_to(square, (len(phrases), *square.shape))
        inputs = [
            tensor("image", "UINT8", images), tensor("input_ids", "INT32", ids),
            tensor("attention_mask", "INT32", mask),
        ]  # fmt: skip
        output = [triton.InferRequestedOutput("mask_logits")]
        reply = await clients[0].infer(args.model, inputs, outputs=output)
        results = masks(reply.as_numpy("mask_logits"), width, height)
        body = orjson.dumps(parts.answer(results, width, height))
        return Response(body, media_type="application/json")

    return app


def tensor(name: str, dtype: str, array: np.ndarray) -> triton.InferInput:
    value = triton.InferInput(name, array.shape, dtype)
    value.set_data_from_numpy(np.ascontiguousarray(array))
    return value
