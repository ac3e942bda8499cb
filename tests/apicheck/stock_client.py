"""Segments a picture with a client that openapi-python-client has generated.

    python stock_client.py http://127.0.0.1:8080 picture.jpg

The package is to be found as stock_client_generated.
"""

import io
import sys
from base64 import b64encode
from pathlib import Path

from stock_client_generated import Client
from stock_client_generated.api.masks import list_models, segment
from stock_client_generated.models import Picture, Prompt, SegmentFilesBody, SegmentRequest
from stock_client_generated.types import File

url, file = sys.argv[1], Path(sys.argv[2])
client = Client(base_url=url, raise_on_unexpected_status=True)
print([model.name for model in list_models.sync(client=client).models])

data = b64encode(file.read_bytes()).decode()
request = SegmentRequest(
    image=Picture(data=data), prompts=[Prompt(text="all the doggies"), Prompt(text="the elephant")]
)
answer = segment.sync(client=client, body=request)
assert len(answer.results) == 2, answer
assert answer.results[0].area > 0, answer
print([result.area for result in answer.results])

form = SegmentFilesBody(
    phrase=["all the doggies"], image=File(io.BytesIO(file.read_bytes()), "picture.jpg", "image/jpeg")
)
again = segment.sync(client=client, body=form)
assert again.results[0].area == answer.results[0].area, again
