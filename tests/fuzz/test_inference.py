"""Samplers, states and streams drawn at random: a right value, or one sentence says why not."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmrnn.backbones import RWKV6, RWKV7, Transformer
from mmrnn.inference.sampler import Sampler, choose_tokens, seeded_generators
from mmrnn.inference.text_stream import TextStream
from mmrnn.prompts import StopCriteria
from mmrnn.tokenizers import DemoTokenizer, RWKVWorldTokenizer
from mmrnn.types import Sequence, State

pytestmark = pytest.mark.slow

FUZZ = settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
CPU = torch.device("cpu")
LOGITS = st.floats(width=32, allow_nan=True, allow_infinity=True)
EDGES = (0.0, 5e-324, 1e-45, 1e-7, 0.5, 1.0, 1e30, 1.7e308)


def attempt(call):
    """Value of a call, and the text of its `ValueError`."""
    try:
        return call(), ""
    except ValueError as refusal:
        return None, str(refusal)


@FUZZ
@given(
    rows=st.integers(1, 3),
    values=st.lists(LOGITS, min_size=1, max_size=12),
    temperature=st.one_of(st.sampled_from(EDGES), st.floats()),
    top_k=st.integers(-2, 20),
    top_p=st.one_of(st.sampled_from(EDGES[:6]), st.floats()),
    min_p=st.one_of(st.sampled_from(EDGES[:6]), st.floats()),
    penalty=st.one_of(st.sampled_from([1.0, 1.0, *EDGES]), st.floats()),
    reply=st.lists(st.integers(0, 11), max_size=4),
)
def test_samplers(rows, values, temperature, top_k, top_p, min_p, penalty, reply):
    sampler, refusal = attempt(lambda: Sampler(temperature, top_k, top_p, min_p, penalty))
    bad = {"temperature": not 0 <= temperature < math.inf, "top_k": top_k < 0, "top_p": not 0 <= top_p <= 1}
    bad |= {"min_p": not 0 <= min_p <= 1, "repetition_penalty": not 0 < penalty < math.inf}
    assert bool(refusal) == any(bad.values())
    if refusal:
        assert bad[refusal.split()[0]]
        return
    logits = torch.tensor(values).repeat(rows, 1)
    replies = [[id for id in reply if id < len(values)]] * rows
    samplers = [replace(sampler, seed=seed) for seed in range(rows)]
    found, refusal = attempt(lambda: choose_tokens(logits, samplers, seeded_generators(samplers, CPU), replies))
    assert bool(refusal) == (not math.isfinite(max(values)) or any(map(math.isnan, values)))
    if refusal:
        assert "not finite" in refusal
        return
    chosen = logits.gather(1, found[:, None])
    assert chosen.isfinite().all()
    if penalty == 1 or not replies[0]:
        if temperature == 0 or top_p == 0 or top_k == 1 or min_p == 1:
            assert (chosen == logits.amax(1, keepdim=True)).all()
        elif top_k:
            assert ((logits > chosen).sum(1) < top_k).all()
    alone = [choose_tokens(logits[:1], [each], seeded_generators([each], CPU), replies[:1]).item() for each in samplers]
    assert alone == found.tolist()


NAMES = st.text("abcdefghij_.0123456789", min_size=1, max_size=8)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool])


@st.composite
def states(draw):
    """States of any tensors: views, repeated and transposed ones, and such without elements."""
    rows = draw(st.integers(0, 3))

    def tensor():
        shape = (rows, *draw(st.lists(st.integers(0, 3), max_size=3)))
        value = torch.randint(0, 2, shape).to(draw(DTYPES))
        form = draw(st.integers(0, 3))
        if form == 1 and value.dim() > 1:
            value = value.transpose(1, -1)
        if form == 2:
            value = value[:1].expand(value.shape) if rows else value
        return torch.cat([value, value])[: len(value)] if form == 3 else value

    def tensors():
        return {name: tensor() for name in draw(st.lists(NAMES, max_size=3, unique=True))}

    return State(tuple(tensors() for _ in range(draw(st.integers(0, 3)))), tensors())


@FUZZ
@given(state=states(), facts=st.dictionaries(st.sampled_from(["weights", "scan"]), st.text(max_size=5)))
def test_state_files_give_back_what_was_written(tmp_path_factory, state, facts):
    path = tmp_path_factory.getbasetemp() / "state"
    state.save(path, facts)
    back = State.load(path, facts=facts)
    assert len(back.layers) == len(state.layers)
    assert back.tensors.keys() == state.tensors.keys()
    for name, value in state.tensors.items():
        assert torch.equal(back.tensors[name], value)
        assert back.tensors[name].dtype == value.dtype
    held = {value.untyped_storage().data_ptr(): value.untyped_storage().nbytes() for value in back.tensors.values()}
    assert sum(held.values()) == back.nbytes == state.nbytes


MODELS = {
    "rwkv6": RWKV6(vocab=9, width=16, depth=2, head_size=16).eval(),
    "rwkv7": RWKV7(vocab=9, width=16, depth=2, head_size=16).eval(),
    "transformer": Transformer(vocab=9, width=16, depth=2, heads=1, ffn=16).eval(),
}


@FUZZ
@given(
    maker=st.sampled_from([*MODELS]),
    reader=st.sampled_from([*MODELS]),
    change=st.sampled_from(["flip", "cut", "insert", "none"]),
    places=st.lists(st.floats(0, 0.999), min_size=1, max_size=6),
    byte=st.integers(0, 255),
)
def test_damaged_state_files(tmp_path_factory, maker, reader, change, places, byte):
    path, step = tmp_path_factory.getbasetemp() / "damaged", Sequence(torch.ones(1, 1, dtype=torch.long))
    with torch.no_grad():
        MODELS[maker](Sequence(torch.ones(1, 4, dtype=torch.long)))[1].save(path)
        data = bytearray(path.read_bytes())
        for place in places:
            # Most of the damage is done to the header, which is what is parsed.
            index = int(place * min(len(data), 1500))
            if change == "flip":
                data[index] ^= byte
            elif change == "cut":
                del data[index:]
            elif change == "insert":
                data.insert(index, byte)
        path.write_bytes(data)
        state, refusal = attempt(lambda: State.load(path))
        if refusal:
            assert change != "none"
            assert str(path) in refusal
            return
        _, refusal = attempt(lambda: MODELS[reader](step, state))
        if refusal:
            assert "state" in refusal
            assert change != "none" or maker != reader
        else:
            assert maker == reader


TEXTS = st.text(st.one_of(st.sampled_from(" \n\r#<>/sabé你🙂\ufffd"), st.characters(codec="utf-8")), max_size=20)
TOKENIZERS = {"demo": DemoTokenizer(), "world": RWKVWorldTokenizer()}


@FUZZ
@given(
    text=TEXTS,
    stops=st.lists(st.text("#</s>\n ab", min_size=1, max_size=4), max_size=3),
    tokenizer=st.sampled_from([*TOKENIZERS]),
    in_bytes=st.booleans(),
    limit=st.integers(0, 60),
)
def test_streams_only_grow(text, stops, tokenizer, in_bytes, limit):
    tokenizer = TOKENIZERS[tokenizer]
    # The ids 1 to 256 of both tokenizers are the bytes.
    ids = [byte + 1 for byte in text.encode()] if in_bytes else tokenizer.encode(text)
    stop = StopCriteria(tokenizer, stops)
    stream, texts, read = TextStream(tokenizer, stop), [""], []
    for id in ids[:limit]:
        read.append(id)
        texts.append(stream.push(id))
        if stop.finished(read):
            break
    texts.append(stream.finish())
    assert all(after.startswith(before) for before, after in pairwise(texts))
    assert texts[-1] == stop.clean(tokenizer.decode(read))
    assert not any(each in texts[-1] for each in stops)
    # A text that is whole is not held back once something else has followed it.
    if read == ids and not any(each in text for each in stops):
        assert texts[-1] == text.strip()
