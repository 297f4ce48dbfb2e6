"""Chat completions: replies equal those of the assistant, whole and as streams."""

import base64
import io
import json

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from mmrnn.data import InMemoryImage
from mmrnn.inference.sampler import Sampler
from mmrnn.inference.server.app import create_app
from mmrnn.types import Sample, Turn
from tests.inference.scripted import IMAGE, OTHER
from tests.inference.server.conftest import body, data_uri, image_part


def alone(used, *turns, images=(), system=None, **options):
    roles = [Turn(("user", "assistant")[number % 2], text) for number, text in enumerate(turns)]
    dialogue = Sample((*([Turn("system", system)] if system else ()), *roles), tuple(map(InMemoryImage, images)))
    return used.answer([dialogue], **{"max_new_tokens": 6, **options})[0]


def content(reply):
    return reply["choices"][0]["message"]["content"]


def streamed(client, given):
    """Objects of a stream."""
    with client.stream("POST", "/v1/chat/completions", json={**given, "stream": True}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def joined(chunks):
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_replies_equal_those_of_the_assistant(used, post):
    status, reply = post(body("what is it?", IMAGE))
    assert status == 200
    assert content(reply) == alone(used, "<image>\nwhat is it?", images=[IMAGE])
    assert reply["object"] == "chat.completion"
    assert reply["model"] == "tiny"
    assert reply["choices"][0]["finish_reason"] in ("stop", "length")
    _, reply = post(body("what has changed?", IMAGE, OTHER))
    assert content(reply) == alone(used, "<image>\n<image>\nwhat has changed?", images=[IMAGE, OTHER])
    _, reply = post(body("why?"))
    assert content(reply) == alone(used, "why?")
    _, reply = post(body("why?", before=[{"role": "system", "content": "Be brief."}]))
    assert content(reply) == alone(used, "why?", system="Be brief.")


def test_a_dialogue_is_resumed(used, post):
    first = body("what is it?", IMAGE)
    text = content(post(first)[1])
    before = [*first["messages"], {"role": "assistant", "content": text}]
    _, reply = post(body("and this?", OTHER, before=before))
    turns = "<image>\nwhat is it?", text, "<image>\nand this?"
    assert content(reply) == alone(used, *turns, images=[IMAGE, OTHER])
    used_tokens = reply["usage"]
    assert used_tokens["total_tokens"] == used_tokens["prompt_tokens"] + used_tokens["completion_tokens"]
    slots = used.model.modalities["image"].layout(*used.model.modalities["image"].image.size).tokens
    cached = used_tokens["prompt_tokens_details"]["cached_tokens"]
    assert slots < cached < used_tokens["prompt_tokens"] - slots


def test_streams(used, client):
    given = body("what is it?", IMAGE, stream_options={"include_usage": True})
    chunks = streamed(client, given)
    assert joined(chunks) == alone(used, "<image>\nwhat is it?", images=[IMAGE])
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]].count(None) == len(chunks) - 2
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] <= 6
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_seeds_stops_and_lengths(used, post, client):
    sampler = Sampler(temperature=1.5, top_p=0.9, top_k=50, min_p=0.01, repetition_penalty=1.2, seed=3)
    arguments = {"temperature": 1.5, "top_p": 0.9, "top_k": 50, "min_p": 0.01, "repetition_penalty": 1.2, "seed": 3}
    expected = alone(used, "why?", sampler=sampler)
    assert content(post(body("why?", **arguments))[1]) == expected
    assert joined(streamed(client, body("why?", **arguments))) == expected
    whole = alone(used, "why?")
    stop = whole[len(whole) // 2 :][:2]
    _, reply = post(body("why?", stop=stop))
    assert content(reply) == alone(used, "why?", stop=stop) != whole
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert joined(streamed(client, body("why?", stop=[stop, "zzz"]))) == content(reply)
    _, reply = post(body("why?", max_completion_tokens=2))
    assert content(reply) == alone(used, "why?", max_new_tokens=2)
    assert (reply["choices"][0]["finish_reason"], reply["usage"]["completion_tokens"]) == ("length", 2)


def test_log_probs(used, post, client):
    [expected] = used.generate([Sample((Turn("user", "why?"),))], max_new_tokens=4, log_probs=2)
    given = body("why?", max_tokens=4, logprobs=True, top_logprobs=2)
    found = post(given)[1]["choices"][0]["logprobs"]["content"]
    chunks = streamed(client, given)
    parts = [choice["logprobs"]["content"] for chunk in chunks for choice in chunk["choices"] if choice["logprobs"]]
    assert [token for part in parts for token in part] == found
    assert len(found) == len(expected.tokens)
    for token, like in zip(found, expected.tokens, strict=True):
        assert token["token"] == used.tokenizer.decode([like.id])
        assert token["logprob"] == pytest.approx(like.log_prob, abs=1e-5)
        assert token["bytes"] in (None, [*token["token"].encode()])
        assert [each["logprob"] for each in token["top_logprobs"]] == pytest.approx([p for _, p in like.top], abs=1e-5)
    [alone_] = post(body("why?", max_tokens=1, logprobs=True))[1]["choices"][0]["logprobs"]["content"]
    assert alone_["top_logprobs"] == []
    assert post(body("why?", max_tokens=1))[1]["choices"][0]["logprobs"] is None


def test_arguments_without_effect_are_accepted(post):
    neutral = {"n": 1, "presence_penalty": 0, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}}
    assert post(body(**neutral, user="me", metadata={"a": "b"}, logit_bias=None))[0] == 200


def test_defaults_of_the_server(used, engine):
    sampler = Sampler(temperature=1.5, seed=5)
    other = TestClient(create_app(engine, "tiny", defaults=sampler))
    reply = other.post("/v1/chat/completions", json=body("why?"))
    assert content(reply.json()) == alone(used, "why?", sampler=sampler)
    reply = other.post("/v1/chat/completions", json=body("why?", temperature=0))
    assert content(reply.json()) == alone(used, "why?")


def test_models_and_health(client):
    [model] = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("tiny", "model")
    assert client.get("/v1/models/tiny").json() == model
    reply = client.get("/v1/models/an/other")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert client.get("/health").json() == {"status": "ok", "requests": 0}
    assert "/v1/chat/completions" in client.get("/openapi.json").json()["paths"]
    assert client.get("/docs").status_code == 404


def test_image_forms(used, post):
    expected = alone(used, "<image>\nwhat is it?", images=[IMAGE])
    for part in (
        {"type": "image_url", "image_url": {"url": data_uri(IMAGE).replace("image/png", "IMAGE/PNG"), "detail": "low"}},
        {"type": "image_url", "image_url": data_uri(IMAGE, "BMP")},
        {"type": "input_image", "image_url": data_uri(IMAGE)},
        image_part(IMAGE),
    ):
        messages = [{"role": "user", "content": [part, {"type": "text", "text": "what is it?"}]}]
        status, reply = post({"model": "tiny", "messages": messages, "max_tokens": 6})
        assert (status, content(reply)) == (200, expected)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "PNG"])
def test_the_first_frame_of_an_animation_is_read(used, post, form):
    file = io.BytesIO()
    frames = [IMAGE.convert("RGB"), Image.new("RGB", IMAGE.size, "red"), Image.new("RGB", IMAGE.size, "blue")]
    frames[0].save(file, form, save_all=True, append_images=frames[1:], lossless=True)
    assert Image.open(file).n_frames == 3
    expected = alone(used, "<image>\nwhat is it?", images=[IMAGE])
    for content in (file.getvalue(), file.getvalue()[:-40] if form == "GIF" else file.getvalue()):
        uri = f"data:image/{form.lower()};base64,{base64.b64encode(content).decode()}"
        status, reply = post(body("what is it?", uri))
        assert (status, reply["choices"][0]["message"]["content"]) == (200, expected)
