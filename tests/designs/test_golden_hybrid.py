"""Qwen3.5's language model and InfiniteVL's mixer as transformers and their own code compute them.

The gated norm amplifies rounding where a read is nearly zero: whole models agree to 3e-4, mixers to 2e-5.
"""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from mmrnn.backbones import GatedAttention, GatedDeltaNet
from mmrnn.backbones.mixer import MixerInputs
from mmrnn.types import Sequence
from mmrnn.weights import load
from mmrnn.weights.export import export

pytestmark = pytest.mark.golden


@pytest.fixture
def case(golden, params, qwen35):
    meta, tensors = golden("qwen35_text")
    model = qwen35(meta["config"]).eval()
    load(model, params(tensors))
    return meta["config"], tensors, model, partial(torch.testing.assert_close, atol=3e-4, rtol=0)


def check_state(close, state, tensors, prefix):
    for layer, found in enumerate(state.layers):
        if "delta" in found:
            close(found["delta"], tensors[f"{prefix}/{layer}/delta"])
            close(found["conv"], tensors[f"{prefix}/{layer}/conv"][..., 1:])
        else:
            close(found["key"], tensors[f"{prefix}/{layer}/k"])
            close(found["value"], tensors[f"{prefix}/{layer}/v"])


@torch.no_grad()
def test_reading_in_any_number_of_parts(case):
    config, tensors, model, close = case
    ids = tensors["in/ids"]
    hidden, state = model(Sequence(ids))
    close(model.head(hidden), tensors["out/logits"])
    check_state(close, state, tensors, "out/state")
    first, middle = model(Sequence(ids[:, : config["cut"]]))
    check_state(close, middle, tensors, "out/state_cut")
    rest, _ = model(Sequence(ids[:, config["cut"] :]), middle)
    close(model.head(torch.cat([first, rest], 1)), tensors["out/logits"])
    _, two = model(Sequence(ids[:, :2]))
    close(two.layers[0]["conv"], tensors["out/state_two/0/conv"][..., 1:])
    _, state = model(Sequence(ids[:1]))
    greedy, logits = [], model.head(model(Sequence(ids[:1]))[0][:, -1])
    for _ in range(tensors["out/greedy"].numel()):
        greedy.append(logits.argmax(-1))
        hidden, state = model(Sequence(greedy[-1][:, None]), state)
        logits = model.head(hidden[:, -1])
    assert torch.cat(greedy).tolist() == tensors["out/greedy"].flatten().tolist()


@torch.no_grad()
def test_padding_packing_and_three_axes(case):
    config, tensors, model, close = case
    mask = tensors["in/left_mask"].bool()
    hidden, _ = model(Sequence(tensors["in/left_ids"], segments=mask.long()))
    close(model.head(hidden)[mask], tensors["out/left_logits"][mask])
    lengths = torch.tensor(config["packed"])
    segments = torch.repeat_interleave(torch.arange(len(lengths)), lengths)[None]
    hidden, state = model(Sequence(tensors["in/packed_ids"], segments=segments))
    close(model.head(hidden), tensors["out/packed_logits"])
    close(state.layers[0]["delta"][0], tensors[f"out/packed_state/0/{len(lengths) - 1}/delta"])
    hidden, _ = model(Sequence(tensors["in/ids"], positions=tensors["in/positions3"].permute(1, 2, 0)))
    close(model.head(hidden), tensors["out/logits_positions3"])


def test_loss_gradients_and_names(case, params):
    _, tensors, model, _ = case
    labels = tensors["in/labels"]
    logits = model.head(model(Sequence(tensors["in/ids"]))[0])
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    torch.testing.assert_close(loss, tensors["out/loss"], atol=2e-5, rtol=0)
    loss.backward()
    assert export(model, "qwen35_text").keys() == params(tensors).keys()
    for parameter in model.parameters():
        parameter.data = parameter.grad
    for name, value in export(model, "qwen35_text").items():
        truth = tensors[f"grad/{name}"]
        assert (value - truth).abs().max() <= 1e-3 * truth.abs().max(), name


@torch.no_grad()
def test_mixers_alone(case):
    _, tensors, model, _ = case
    x = tensors["in/delta_x"]
    kinds = {type(block.mixer): block.mixer for block in reversed(model.blocks)}
    inputs = MixerInputs(positions=torch.arange(x.shape[1]).expand(x.shape[:2]))
    for kind, name in ((GatedDeltaNet, "delta"), (GatedAttention, "attention")):
        found, _, _ = kinds[kind](x, kinds[kind].state(len(x)), inputs)
        torch.testing.assert_close(found, tensors[f"out/{name}_y"], atol=2e-5, rtol=0)
