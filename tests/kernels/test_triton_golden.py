"""The backbones with the Triton kernels, in the interpreter, compute what the original projects' own code computes."""

import pytest
import torch

from mmrnn import weights
from mmrnn.backbones import RWKV5, RWKV6

pytestmark = [pytest.mark.golden, pytest.mark.slow]

CASES = {"rwkv5": RWKV5, "rwkv6": RWKV6, "rwkv6_strong": RWKV6}


@pytest.mark.parametrize("name", CASES)
def test_logits_states_and_gradients(name, golden, params, interpreter):
    meta, tensors = golden(name)
    config, version = meta["config"], name.removesuffix("_strong")
    knobs = {"vocab": "vocab_size", "width": "n_embd", "depth": "n_layer", "head_size": "head_size", "heads": "n_head"}
    knobs |= {"ffn": "dim_ffn"}
    if version == "rwkv6":
        knobs |= {"mix_rank": "mix_lora_rank", "decay_rank": "decay_lora_rank"}
    knobs = {ours: config[theirs] for ours, theirs in knobs.items()}
    inputs = (params(tensors), tensors["in/ids"], tensors["in/targets"])
    logits, states, grads = interpreter("backbone", version, knobs, *inputs)
    torch.testing.assert_close(logits, tensors["out/logits"], atol=1e-4, rtol=0)
    for layer, state in enumerate(states):
        torch.testing.assert_close(state, tensors[f"out/state/{layer}/wkv"], atol=1e-4, rtol=0)
    expected = weights.convert(CASES[name](**knobs), params(tensors, "grad/"), format=version)
    assert expected
    for key, value in expected.items():
        assert (grads[key] - value).abs().max() <= 1e-4 * value.abs().max(), key
