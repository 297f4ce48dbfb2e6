"""Backbones against golden cases of the original projects."""

import pytest
import torch
from torch.nn import functional as F

from mmrnn import weights
from mmrnn.backbones import RWKV5, RWKV6, RWKV7, Transformer
from mmrnn.types import Sequence, State

pytestmark = pytest.mark.golden

CASES = {"rwkv5": RWKV5, "rwkv6": RWKV6, "rwkv6_strong": RWKV6, "rwkv7": RWKV7}


def build(name: str, meta: dict, **knobs):
    config = meta["config"]
    if CASES[name] is RWKV6:
        knobs |= {"mix_rank": config["mix_lora_rank"], "decay_rank": config["decay_lora_rank"]}
    return CASES[name](
        vocab=config["vocab_size"],
        width=config["n_embd"],
        depth=config["n_layer"],
        head_size=config["head_size"],
        heads=config["n_head"],
        ffn=config["dim_ffn"],
        **knobs,
    )


def state_of(tensors: dict, prefix: str, model) -> State:
    """State of a golden case: `in/init_state` has no batch axis, and RWKV-7 stores its matrices as (value, key)."""
    names = {"time_shift": "att_shift", "wkv": "wkv", "channel_shift": "ffn_shift"}
    layers = []
    for layer in range(model.depth):
        found = {ours: tensors[f"{prefix}/{layer}/{theirs}"] for ours, theirs in names.items()}
        single = found["time_shift"].dim() == 1
        if isinstance(model, RWKV7):
            found["wkv"] = found["wkv"].mT
        layers.append({key: value[None] if single else value for key, value in found.items()})
    return State(tuple(layers))


def assert_states(ours: State, theirs: State):
    for layer, (a, b) in enumerate(zip(ours.layers, theirs.layers, strict=True)):
        for name in b:
            torch.testing.assert_close(a[name], b[name], atol=1e-4, rtol=0, msg=f"layer {layer}: {name}")


@pytest.mark.parametrize("name", CASES)
def test_logits_loss_state_and_gradients(name, golden, params):
    meta, tensors = golden(name)
    model = build(name, meta)
    weights.load(model, params(tensors))
    hidden, state = model(Sequence(tensors["in/ids"]))
    logits = model.head(hidden)
    torch.testing.assert_close(logits, tensors["out/logits"], atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, tensors["out/pip_logits"], atol=1e-4, rtol=0)
    assert_states(state, state_of(tensors, "out/state", model))
    loss = F.cross_entropy(logits.flatten(0, 1), tensors["in/targets"].flatten())
    torch.testing.assert_close(loss, tensors["out/loss"], atol=2e-5, rtol=0)
    loss.backward()
    expected = weights.convert(model, params(tensors, "grad/"), format=name.removesuffix("_strong"))
    grads = {key: value.grad for key, value in model.named_parameters()}
    assert expected
    for key, value in expected.items():
        assert (grads[key] - value).abs().max() <= 1e-4 * value.abs().max(), key


@pytest.mark.parametrize("name", CASES)
def test_continuing_from_a_state(name, golden, params):
    meta, tensors = golden(name)
    model = build(name, meta)
    weights.load(model, params(tensors))
    start = state_of(tensors, "in/init_state", model)
    hidden, state = model(Sequence(tensors["in/init_ids"].view(1, -1)), start)
    torch.testing.assert_close(model.head(hidden)[0], tensors["out/init_logits"], atol=1e-4, rtol=0)
    end = state_of(tensors, "out/init_state", model)
    assert_states(state, end)


def test_visualrwkv7_pads_with_newlines(golden, params):
    """Its kernel needs multiples of 16 positions; the padding in front is read like any token."""
    meta, tensors = golden("rwkv7")
    model = build("rwkv7", meta)
    weights.load(model, params(tensors))
    theirs = tensors["out/vr7_padded_logits"]
    length = theirs.shape[1]
    ids = F.pad(tensors["in/ids"][:, :length], (-length % 16, 0), value=261)
    hidden, _ = model(Sequence(ids))
    torch.testing.assert_close(model.head(hidden)[:, -length:], theirs, atol=1e-4, rtol=0)


def test_rwkv7_files_with_values_for_the_first_layer(golden, params):
    """RWKV-LM stores the value residual of layer 0, which is not used."""
    meta, tensors = golden("rwkv7")
    model, source = build("rwkv7", meta), params(tensors)
    unused = {f"blocks.0.att.v{i}": source[f"blocks.1.att.v{i}"] for i in range(3)}
    report = weights.load(model, source | unused)
    assert set(report.ignored) == set(unused)


@pytest.mark.parametrize("name", ["rwkv6", "rwkv6_strong"])
def test_state_tuned_file(name, golden, params):
    meta, tensors = golden(name)
    model = build(name, meta, learned_state=True)
    source = params(tensors) | params(tensors, "in/time_state/")
    report = weights.load(model, source)
    assert "start states" in report.notes[0]
    hidden, _ = model(Sequence(tensors["in/init_ids"].view(1, -1)))
    torch.testing.assert_close(model.head(hidden)[0], tensors["out/time_state_logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["llama_hf", "llama_gqa_hf", "qwen2_hf"])
def test_transformer(name, golden, params):
    meta, tensors = golden(name)
    config, tolerance = meta["config"], meta["tolerance"]
    source = params(tensors)
    model = Transformer(
        vocab=config["vocab"],
        width=config["width"],
        depth=config["layers"],
        heads=config["heads"],
        kv_heads=config["kv_heads"],
        ffn=config["ffn"],
        eps=config["eps"],
        rope_theta=config["theta"],
        bias="model.layers.0.self_attn.q_proj.bias" in source,
        tie_embeddings=meta["tied_head"],
    )
    weights.load(model, source)

    def close(ours: torch.Tensor, theirs: str):
        torch.testing.assert_close(ours, tensors[theirs], **tolerance)

    hidden, state = model(Sequence(tensors["in/ids"]))
    close(hidden, "out/last_hidden")
    close(model.head(hidden), "out/logits")
    padded = model.head(model(Sequence(tensors["in/ids_padded"]))[0])
    real = tensors["in/mask_padded"].bool()
    close(padded * real[..., None], "out/logits_padded")
    labels = tensors["in/labels_padded"]
    close(F.cross_entropy(padded[:, :-1].flatten(0, 1), labels[:, 1:].flatten()), "out/loss_padded")
    replies = []
    for step in range(config["new"]):
        logits = model.head(hidden[:, -1])
        torch.testing.assert_close(logits, tensors["out/greedy_step_logits"][:, step], **tolerance)
        replies.append(logits.argmax(-1))
        hidden, state = model(Sequence(replies[-1][:, None]), state)
    assert torch.stack(replies, 1).tolist() == tensors["out/greedy_ids"].tolist()
