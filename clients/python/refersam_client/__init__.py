"""A client of a refersam service: which pixels does a phrase mean?

    from refersam_client import Client

    with Client("http://127.0.0.1:8080") as client:
        answer = client.segment("picture.jpg", ["the duck on the left"])
        answer.results[0].mask  # bool, (height, width)

`AsyncClient` has the same methods, to be awaited.
"""

from .answers import (
    Answer,
    BatchResult,
    Event,
    Feedback,
    Image,
    Item,
    Job,
    Limits,
    Model,
    Models,
    Problem,
    Quality,
    Result,
    UnusableModel,
    UsageDay,
    Webhook,
    WebhookSecret,
)
from .bodies import BatchItem, Output, PromptFields
from .client import AsyncClient, Client
from .rle import decode_rle, encode_rle
from .webhooks import WebhookEvent, parse_webhook, verify_webhook

__all__ = [
    "Answer",
    "AsyncClient",
    "BatchItem",
    "BatchResult",
    "Client",
    "Event",
    "Feedback",
    "Image",
    "Item",
    "Job",
    "Limits",
    "Model",
    "Models",
    "Output",
    "Problem",
    "PromptFields",
    "Quality",
    "Result",
    "UnusableModel",
    "UsageDay",
    "Webhook",
    "WebhookEvent",
    "WebhookSecret",
    "decode_rle",
    "encode_rle",
    "parse_webhook",
    "verify_webhook",
]
