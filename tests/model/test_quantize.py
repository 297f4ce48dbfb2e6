"""Quantised layers: which they are, what they compute, and that a model reads with them as before."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmrnn.backbones.native_decode import SLOWER
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.layers.quantized import QuantizedLinear
from mmrnn.model.build import build
from mmrnn.model.quantize import Dequantized, Int8
from mmrnn.types import Sequence
from mmrnn_kernels.decode_step import unavailable_reason

pytestmark = pytest.mark.filterwarnings("default:the native decoding step of RWKV:RuntimeWarning")

IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])
BACKBONES = ("rwkv5_tiny", "rwkv6_tiny", "rwkv7_tiny", "transformer_tiny", "glm_tiny", "opt_tiny", "flant5_tiny")


def model(*overrides, name="visualrwkv6_tiny"):
    torch.manual_seed(0)
    made = build(compose(f"model={name}", "encoder=patch_tiny", *overrides)).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def quantised(one):
    return {name: module for name, module in one.named_modules() if isinstance(module, QuantizedLinear)}


@pytest.mark.parametrize("bias", [True, False])
def test_int8_codes_are_the_nearest_to_the_weights(bias):
    one = model()
    one.backbone.blocks[0].channel_mix.key = nn.Linear(32, 96, bias=bias)
    before = copy.deepcopy(one.backbone.blocks[0].channel_mix.key)
    Int8()(one)
    layer = one.backbone.blocks[0].channel_mix.key
    assert layer.codes.dtype == torch.int8
    assert (layer.bias is not None) == bias
    torch.testing.assert_close(layer.scales, before.weight.abs().amax(1) / 127.5, rtol=1e-6, atol=0)
    assert ((layer.weight - before.weight).abs() <= 0.51 * layer.scales[:, None]).all()
    for x in (torch.randn(3, 32), torch.randn(2, 40, 32)):
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), rtol=1e-5, atol=1e-5)


def test_head_embedding_and_low_rank_matrices_keep_their_weights():
    one = model()
    before = one.state_dict()
    Int8()(one)
    after = one.state_dict()
    assert set(quantised(one)) == {
        f"backbone.blocks.{index}.{layer}"
        for index in range(2)
        for layer in (
            *(f"time_mix.{name}" for name in ("receptance", "key", "value", "gate", "output")),
            *(f"channel_mix.{name}" for name in ("key", "receptance", "value")),
        )
    }
    kept = [name for name in before if name in after]
    assert {"backbone.output.weight", "backbone.embedding.weight", "backbone.blocks.0.time_mix.decay_up"} < {*kept}
    assert all(torch.equal(before[name], after[name]) for name in kept)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_reads_with_codes_as_with_their_weights(name):
    """A text at once, and one token after the other; weights computed from the codes give the same."""
    one = model(f"backbone={name}", "scan=forward", *(["position=glm_2d_tiny"] if name == "glm_tiny" else []))
    Int8()(one)
    backbone = one.backbone
    whole, _ = backbone(Sequence(IDS))
    if backbone.causal:
        state, hidden = None, []
        for token in IDS.T:
            out, state = backbone(Sequence(token[None]), state)
            hidden.append(out)
        torch.testing.assert_close(torch.cat(hidden, 1), whole, rtol=1e-3, atol=1e-3)
    assert quantised(one)
    Dequantized()(one)
    assert not quantised(one)
    torch.testing.assert_close(backbone(Sequence(IDS))[0], whole, rtol=1e-3, atol=1e-3)


def test_encoders_on_request_and_layers_left_out():
    one = model("encoder=vit_tiny")
    Int8(encoders=True, skip=("backbone.*",))(one)
    assert quantised(one)
    assert all(name.startswith("modalities.image.encoder.") for name in quantised(one))
    size = one.modalities["image"].image.size
    assert torch.isfinite(one.modalities["image"].encoder(torch.randn(1, 3, *size))).all()
    with pytest.raises(ValueError, match=r"skip \('\*\.nothing'\) matches no linear layer; there are backbone"):
        Int8(skip=("*.nothing",))(model())
    with pytest.raises(ValueError, match="RWKV6 has no linear layers in blocks"):
        Int8(skip=("*",))(model())


def test_a_model_is_quantised_when_it_is_built_and_once():
    one = model("quantize=int8")
    assert len(quantised(one)) == 16
    with pytest.raises(ValueError, match="quantised already"):
        Int8()(one)
    with torch.device("meta"):
        assert all(value.is_meta for value in build(compose("model=visualrwkv6_tiny", "quantize=int8")).buffers())


def test_gradients_reach_what_stands_before_a_quantised_backbone():
    one = model("quantize=int8")
    embeds = torch.randn(1, 4, 32, requires_grad=True)
    one.backbone(Sequence(IDS[:, :4], embeds=embeds))[0].sum().backward()
    assert embeds.grad.abs().sum() > 0


def test_a_lora_beside_codes_is_used_but_not_merged():
    pytest.importorskip("peft")
    one = model("adapter=lora_rwkv", "adapter.rank=2", "adapter.dropout=0.0")
    expected = one.backbone(Sequence(IDS))[0]
    Int8()(one)
    assert all(name.endswith("base_layer") or "lora" not in name for name in quantised(one))
    torch.testing.assert_close(one.backbone(Sequence(IDS))[0], expected, rtol=0.05, atol=0.05)
    with pytest.raises(ValueError, match="is quantised, and a LoRA is added to weights: merge it before"):
        instantiate(one.config["adapter"]).merge(one)


def test_sharded_models_have_no_codes():
    from mmrnn.model.start import build_on_meta

    with pytest.raises(ConfigError, match="built in shards has weights, not codes"):
        build_on_meta(compose("model=visualrwkv6_tiny", "quantize=int8"))


@torch.no_grad()
@pytest.mark.skipif(unavailable_reason() is not None, reason="no compiler")
def test_the_native_step_says_once_that_it_is_left(recwarn):
    one = model("quantize=int8")
    state = None
    for token in IDS.T:
        _, state = one.backbone(Sequence(token[None]), state)
    assert [str(each.message) for each in recwarn if "native decoding step" in str(each.message)] == [SLOWER]
