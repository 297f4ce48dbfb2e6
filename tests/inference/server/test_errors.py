"""Bad requests: each is refused with one sentence in OpenAI's schema, and costs the others nothing."""

import asyncio
import base64
import json
import struct
import zlib

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mmrnn.inference.engine.engine import Engine
from mmrnn.inference.server.app import create_app
from mmrnn.inference.server.gate import Gate
from mmrnn.inference.server.limits import Limits
from tests.inference.scripted import IMAGE
from tests.inference.server.conftest import LIMITS, body, data_uri

HUGE = data_uri(Image.new("L", (200, 200)))
CUT = data_uri(IMAGE)[:-60]

EPS = base64.b64encode(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n").decode()


def bomb(width, height):
    """PNG that ends where its pixels would begin."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    content += struct.pack(">I", 100) + b"IDAT"
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


BAD = {
    "not_json": (b'{"model": ', "the body is not JSON"),
    "no_object": (b"[1, 2]", "must be a JSON object"),
    "empty": (b"", "the body is empty"),
    "deep": (b'{"model": ' + b"[" * 50_000, "parsing the body"),
    "long_number": (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}", "parsing the body"),
    "not_utf8": (b'{"model": "\xff"}', "parsing the body"),
    "no_messages": ({"model": "tiny"}, "messages: Field required"),
    "empty_messages": ({"model": "tiny", "messages": []}, "messages: "),
    "text_as_message": ({"model": "tiny", "messages": ["hi"]}, "messages.0: "),
    "many_messages": ({"model": "tiny", "messages": [{}] * 2000}, "messages: "),
    "no_role": ({"model": "tiny", "messages": [{"content": "hi"}]}, "the last message must be the user's"),
    "unknown_role": (body(before=[{"role": "king", "content": "hi"}]), "a turn must be from one of human, user"),
    "listed_role": (body(before=[{"role": [], "content": "hi"}]), "a turn must be from one of"),
    "the_last_is_the_assistant": (
        {"model": "tiny", "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        "the last message must be the user's",
    ),
    "the_first_is_the_assistant": (body(before=[{"role": "assistant", "content": "a"}]), "must be the user's"),
    "two_users": (body(before=[{"role": "user", "content": "a"}]), "user and assistant must alternate"),
    "null_content": ({"model": "tiny", "messages": [{"role": "user", "content": None}]}, "must be text"),
    "unknown_part": (
        {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        "a part of a turn must be text, an image or a video",
    ),
    "video": (
        {"model": "tiny", "messages": [{"role": "user", "content": [{"type": "video", "video": "a.mp4"}]}]},
        "videos are not read",
    ),
    "tag_without_image": (body("<image> what?"), "image"),
    "half_a_character": (body("\ud800"), "half a character"),
    "half_a_character_in_stop": (body(stop="\ud800"), "half a character"),
    "url": (body("what?", "http://127.0.0.1:9/a.png"), "no address is fetched"),
    "file": (body("what?", "file:///etc/passwd"), "no address is fetched"),
    "path": (body("what?", "/etc/passwd"), "no address is fetched"),
    "no_base64": (body("what?", "data:image/png,abc"), "without base64"),
    "broken_base64": (body("what?", "data:image/png;base64,####"), "broken base64"),
    "broken_image": (body("what?", CUT), "is broken"),
    "no_image": (body("what?", "data:image/png;base64,aGVsbG8="), "not an image of a known format"),
    "huge_image": (body("what?", HUGE), "200 x 200 pixels, 10000 are allowed"),
    "bomb": (body("what?", bomb(2**31 - 1, 2**31 - 1)), "is too large to be opened"),
    "long_image": (body("what?", bomb(100_000, 1)), "100000 x 1 pixels"),
    "header_alone": (body("what?", bomb(10, 10)), "is broken"),
    "program": (body("what?", "data:image/eps;base64," + EPS), "not an image of a known format"),
    "no_pixels": (body("what?", bomb(0, 10)), "not an image of a known format"),
    "twenty_images": (body("what?", *[IMAGE] * 20), "20 images; this server allows 3"),
    "long_prompt": (body("why? " * 300), "this server allows 400"),
    "long_text": (body("why? " * 3000), "characters; 6400 are allowed"),
    "long_reply": (body(max_tokens=51), "51 tokens is asked for; this server allows 50"),
    "no_reply": (body(max_tokens=0), "max_tokens"),
    "nan_temperature": (
        json.dumps(body(temperature=float("nan"))).encode(),
        "temperature: Input should be a finite number",
    ),
    "infinite_temperature": (json.dumps(body(temperature=float("inf"))).encode(), "temperature"),
    "negative_temperature": (body(temperature=-1), r"temperature (-1.0) must be a finite number from 0 on"),
    "text_as_temperature": (body(temperature="1"), "temperature: Input should be a valid number"),
    "large_top_p": (body(top_p=1.5), "top_p"),
    "negative_seed": (body(seed=-1), "seed"),
    "large_seed": (body(seed=2**70), "seed"),
    "many_stops": (body(stop=["a"] * 17), "stop"),
    "long_stop": (body(stop="a" * 201), "201 characters; 200 are allowed"),
    "many_choices": (body(n=2), "n is not supported"),
    "tools": (body(tools=[{"type": "function"}]), "tools is not supported"),
    "json_mode": (body(response_format={"type": "json_object"}), "response_format is not supported"),
    "unknown_argument": (body(temprature=1), "there is no argument 'temprature'"),
    "many_log_probs": (body(logprobs=True, top_logprobs=21), "top_logprobs"),
    "top_log_probs_alone": (body(top_logprobs=2), "top_logprobs needs logprobs"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_requests(post, engine, name):
    given, sentence = BAD[name]
    status, reply = post(given)
    assert status == 400
    assert sentence in reply["error"]["message"]
    assert reply["error"]["type"] == "invalid_request_error"
    assert reply.keys() == {"error"}
    assert len(json.dumps(reply)) < 600
    assert engine.requests == 0
    if isinstance(given, dict):
        assert post({**given, "stream": True}) == (status, reply)


def test_other_statuses(post, client):
    status, reply = post({**body(), "model": "gpt"})
    assert (status, reply["error"]["code"], reply["error"]["param"]) == (404, "model_not_found", "model")
    status, reply = post(body("x" * 200_000))
    assert (status, reply["error"]["code"]) == (413, "body_too_large")
    for reply in (client.get("/v1/other"), client.get("/v1/chat/completions"), client.put("/health")):
        assert reply.status_code in (404, 405)
        assert reply.json()["error"]["type"]
    reply = client.post("/v1/chat/completions", content=json.dumps(body()), headers={"content-type": "text/plain"})
    assert reply.status_code == 400
    assert "application/json" in reply.json()["error"]["message"]


def test_a_body_of_unknown_length_is_bounded(client):
    parts = (b" " * 1000 for _ in range(10**6))
    reply = client.post("/v1/chat/completions", content=parts, headers={"content-type": "application/json"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")


def test_a_key(engine):
    client = TestClient(create_app(engine, "tiny", api_key="secret"))
    for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "secret"}):
        for reply in (
            client.get("/v1/models", headers=headers),
            client.post("/v1/chat/completions", json=body(), headers=headers),
        ):
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
    headers = {"authorization": "Bearer secret"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    assert client.post("/v1/chat/completions", json=body(max_tokens=1), headers=headers).status_code == 200
    assert client.get("/health").status_code == 200


def test_a_full_queue_and_a_closed_engine(used):
    with Engine(used.reader, max_rows=1, max_waiting=1) as small:
        client = TestClient(create_app(small, "tiny"))
        with small.reserve(), small.reserve():
            reply = client.post("/v1/chat/completions", json=body())
            assert (reply.status_code, reply.json()["error"]["code"]) == (429, "queue_full")
            assert reply.headers["retry-after"] == "1"
        assert client.post("/v1/chat/completions", json=body(max_tokens=1)).status_code == 200
    reply = client.post("/v1/chat/completions", json=body())
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "shutting_down")
    assert client.get("/health").status_code == 503


def test_a_fault_of_the_model(used, post, client, monkeypatch):
    def out_of_memory(*_):
        raise RuntimeError("not enough memory")

    with monkeypatch.context() as patch:
        patch.setattr(used.model, "head", out_of_memory)
        status, reply = post(body())
        assert (status, reply["error"]["type"]) == (500, "server_error")
        assert "the model has failed (RuntimeError)" in reply["error"]["message"]
        text = client.post("/v1/chat/completions", json=body(stream=True)).text
        assert "the model has failed (RuntimeError)" in text.rstrip().split("\n")[-1]
    assert post(body())[0] == 200


SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [], "query_string": b""}


async def never(*_):
    await asyncio.sleep(60)


def test_a_client_that_stalls(engine):
    limits = Limits(client_seconds=0.05)

    async def reply(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})

    asyncio.run(asyncio.wait_for(Gate(reply, engine, limits, None)(SCOPE, never, never), 10))
    sent = []

    async def send(message):
        sent.append(message)

    scope = {**SCOPE, "headers": [(b"content-type", b"application/json")]}
    app = create_app(engine, "tiny", limits=limits)
    asyncio.run(asyncio.wait_for(app(scope, never, send), 10))
    assert sent[0]["status"] == 408
    assert engine.requests == 0


def test_limits_are_checked():
    with pytest.raises(ValueError, match=r"max_images \(0\) must be above 0"):
        Limits(max_images=0)
    assert LIMITS.max_images == 3
