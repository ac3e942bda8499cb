"""Uvicorn with uvloop and httptools, its fastest settings."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI


def serve(app: FastAPI, port: int) -> None:
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
