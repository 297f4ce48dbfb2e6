"""Replies have the statuses, media types and objects that the OpenAPI schema documents, whatever is asked."""

import asyncio
from collections import Counter

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.server.app import create_app
from mmrnn.inference.server.limits import Limits
from mmrnn.inference.server.openapi import ErrorBody, Health
from tests.inference.server.conftest import LIMITS, body
from tests.inference.server.live import Live

CHAT = ("post", "/v1/chat/completions")

OTHERS = [("get", "/v1/models"), ("get", "/v1/models/{wanted}"), ("get", "/health")]

FIXED = settings(derandomize=True, database=None, deadline=None, suppress_health_check=[*HealthCheck])


KEY = {"Authorization": "Bearer key"}


@pytest.fixture(scope="module")
def schema(used):
    live = Live(used.reader, {**vars(LIMITS), "max_body_bytes": 2**24}, api_key="key")
    made = schemathesis.openapi.from_url(f"{live.url.removesuffix('/v1')}/openapi.json", headers=KEY)
    made.config.update(headers=KEY)
    yield made
    live.stop()


def test_every_operation_is_tried(schema):
    found = {(each.ok().method, each.ok().path) for each in schema.get_all_operations()}
    assert found == {CHAT, *OTHERS}


def validate(operation, mode, count):
    """Statuses of the replies to requests that the schema allows, or does not."""
    statuses = Counter()

    @settings(FIXED, max_examples=count)
    @given(operation.as_strategy(generation_mode=mode))
    def check(case):
        # The schema does not say in which order roles follow each other, or which data is an image.
        statuses[case.call_and_validate(excluded_checks=[positive_data_acceptance]).status_code] += 1

    check()
    return statuses


@pytest.mark.parametrize(("method", "path"), OTHERS)
def test_other_replies_are_as_documented(schema, method, path):
    assert validate(schema[path][method], GenerationMode.POSITIVE, 20)


@pytest.mark.parametrize("count", [12, pytest.param(400, marks=pytest.mark.slow)])
def test_replies_of_the_chat_are_as_documented(schema, count):
    operation = schema[CHAT[1]][CHAT[0]]
    assert validate(operation, GenerationMode.POSITIVE, count).keys() == {200, 400}
    # A model that is not served is not found, whatever else is wrong.
    assert {400} <= validate(operation, GenerationMode.NEGATIVE, count).keys() <= {400, 404}


def test_every_documented_error(used, monkeypatch):
    with Engine(used.reader, max_rows=1, max_waiting=0) as engine:
        app = create_app(engine, "tiny", limits=LIMITS, api_key="key")
        client, found = TestClient(app, headers=KEY), {}

        def post(given, **options):
            reply = client.post(CHAT[1], json=given, **options)
            found[reply.status_code] = reply.content

        post(body(n=2))
        post(body(), headers={"Authorization": "Bearer other"})
        post(body() | {"model": "gpt"})
        post(body("x" * 200_000))
        status, found[408] = asyncio.run(stall(create_app(engine, "tiny", limits=Limits(client_seconds=0.05))))
        assert status == 408
        with engine.reserve():
            post(body())
        with monkeypatch.context() as patch:
            patch.setattr(used.model, "head", lambda _: 1 / 0)
            post(body())
        engine.close()
        post(body())
        assert Health.model_validate_json(client.get("/health").content).status == "closed"
    documented = app.openapi()["paths"][CHAT[1]][CHAT[0]]["responses"]
    assert {*map(str, found)} == documented.keys() - {"200"}
    for content in found.values():
        assert ErrorBody.model_validate_json(content).error.message


async def stall(app):
    """Status and body for a client that never sends its body."""
    sent = []

    async def send(message):
        sent.append(message)

    async def never():
        await asyncio.sleep(60)

    headers = [(b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": CHAT[1], "headers": headers, "query_string": b""}
    await asyncio.wait_for(app(scope, never, send), 10)
    return sent[0]["status"], sent[1]["body"]
