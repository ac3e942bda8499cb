"""A client of a refersam service: which pixels does a phrase mean?

    from refersam_client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.segment("picture.jpg", ["the duck on the left"])
        answer.results[0].mask  # bool, (height, width)

`AsyncClient` has the same methods, to be awaited.
"""

from .answers import Answer, BatchResult, Image, Item, Job, Model, Problem, Result
from .client import AsyncClient, Client
from .rle import decode_rle
from .webhooks import verify_webhook

__all__ = [
    "Answer",
    "AsyncClient",
    "BatchResult",
    "Client",
    "Image",
    "Item",
    "Job",
    "Model",
    "Problem",
    "Result",
    "decode_rle",
    "verify_webhook",
]
