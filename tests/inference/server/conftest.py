"""A served tiny model, and requests to it."""

import base64
import io
import json

import pytest
from fastapi.testclient import TestClient

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.server.app import create_app
from mmrnn.inference.server.limits import Limits
from tests.inference.scripted import assistant


def data_uri(image, form="PNG"):
    """Image as clients send it."""
    file = io.BytesIO()
    image.save(file, form)
    return f"data:image/{form.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"


def image_part(image):
    return {"type": "image_url", "image_url": {"url": image if isinstance(image, str) else data_uri(image)}}


def body(question="what is it?", *images, before=(), **arguments):
    """Body of a request about some images."""
    content = [*map(image_part, images), {"type": "text", "text": question}] if images else question
    messages = [*before, {"role": "user", "content": content}]
    return {"model": "tiny", "messages": messages, "max_tokens": 6, **arguments}


@pytest.fixture(scope="session")
def used():
    return assistant("visualrwkv6_tiny", "prompt=first")


@pytest.fixture(scope="module")
def engine(used):
    with Engine(used.reader, max_rows=4, max_waiting=8, prefill_chunk=16) as made:
        yield made


LIMITS = Limits(
    max_prompt_tokens=400, max_new_tokens=50, max_images=3, max_pixels=10_000, max_body_bytes=100_000, client_seconds=20
)


@pytest.fixture(scope="module")
def app(engine):
    return create_app(engine, "tiny", limits=LIMITS)


@pytest.fixture(scope="module")
def client(app):
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture(scope="module")
def post(client):
    """`post(body)`: status and object of the reply."""

    def send(given, **options):
        content = given if isinstance(given, bytes) else json.dumps(given).encode()
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        reply = client.post("/v1/chat/completions", content=content, headers=headers, **options)
        return reply.status_code, reply.json()

    return send
