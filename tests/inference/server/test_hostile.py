"""Hostile bodies: never a failure of the server, and no memory that stays."""

import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrnn.io.process_memory import resident_bytes
from tests.inference.server.conftest import body
from tests.inference.server.test_errors import BAD

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["user", "system", "assistant", "text", "image_url", "<image>", "data:image/png;base64,AAAA"]),
)
KEYS = st.sampled_from(["role", "content", "type", "text", "image_url", "url", "from", "value", "images", "video"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
NAMES = st.sampled_from([*body(), "stop", "seed", "stream", "logprobs", "top_logprobs", "top_k", "tools", "n", "other"])
PARTS = st.lists(st.dictionaries(KEYS, VALUES, max_size=3), max_size=4)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": VALUES | PARTS}),
    max_size=4,
)
LOOSE = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def check(post, engine, sent):
    status, reply = post(sent)
    assert status in (200, 400, 404, 413)
    assert ("error" in reply) == (status != 200)
    assert engine.requests == 0


@pytest.mark.slow
@LOOSE
@given(changes=st.dictionaries(NAMES, VALUES, max_size=3))
def test_arguments(post, engine, changes):
    if changes.get("stream"):
        changes = {**changes, "stream": "yes"}
    check(post, engine, json.dumps({**body("why?", max_tokens=1), **changes}).encode())


@pytest.mark.slow
@LOOSE
@given(messages=MESSAGES)
def test_messages(post, engine, messages):
    check(post, engine, json.dumps({"model": "tiny", "max_tokens": 1, "messages": messages}).encode())


@pytest.mark.slow
@LOOSE
@given(content=st.binary(max_size=200))
def test_bytes(post, engine, content):
    check(post, engine, content)


@pytest.mark.slow
@LOOSE
@given(place=st.floats(0, 1), value=st.integers(0, 255))
def test_changed_bytes(post, engine, place, value):
    from tests.inference.scripted import IMAGE

    sent = bytearray(json.dumps(body("why?", IMAGE, max_tokens=1)).encode())
    sent[math.floor(place * (len(sent) - 1))] = value
    check(post, engine, bytes(sent))


@pytest.mark.slow
def test_memory_is_flat_over_bad_requests(post):
    """Less than 8 MB over 2,000 requests, after the allocator has warmed up."""
    names = [*BAD]
    for number in range(3 * len(names)):
        post(BAD[names[number % len(names)]][0])
    before = resident_bytes()
    for number in range(2000):
        assert post(BAD[names[number % len(names)]][0])[0] == 400
    assert resident_bytes() - before < 8 * 2**20
