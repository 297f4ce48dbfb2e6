"""Quantised layers: which they are, what they compute, and that a model reads with them as before."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mmrnn.backbones.native_decode import PREPARED, SLOWER
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.layers.quantized import QuantizedLinear
from mmrnn.model.build import build
from mmrnn.model.quantize import Dequantized, Int4, Int8
from mmrnn.types import Batch, Sequence
from mmrnn_kernels.decode_step import unavailable_reason

pytestmark = pytest.mark.filterwarnings("default:the native decoding step of RWKV:RuntimeWarning")

IDS = torch.tensor([[1, 2, 3, 4, 5, 6]])
BACKBONES = (
    "rwkv5_tiny",
    "rwkv6_tiny",
    "rwkv7_tiny",
    "mamba_tiny",
    "transformer_tiny",
    "glm_tiny",
    "opt_tiny",
    "flant5_tiny",
)


def model(*overrides):
    """Model of random weights, some of which are zero where it is initialised; quantised afterwards."""
    torch.manual_seed(0)
    cfg = plain(compose("model=visualrwkv6_tiny", "encoder=patch_tiny", *overrides))
    card = cfg.pop("quantize", None)
    made = build(cfg).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if card:
        instantiate(card)(made)
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
@pytest.mark.parametrize("ranges", ["minmax", "hqq"])
def test_int4_codes_stand_for_the_weights(ranges):
    one = model("backbone.ffn=64")
    before = copy.deepcopy(one.backbone.blocks[1].channel_mix.value)
    Int4(ranges=ranges)(one)
    layer = one.backbone.blocks[1].channel_mix.value
    assert layer.codes.dtype == torch.uint8
    assert (layer.codes.shape, layer.scales.shape) == ((32, 32), (32, 2))
    step = layer.scales.float().repeat_interleave(32, 1)
    assert ((layer.weight - before.weight).abs() < (0.55 if ranges == "minmax" else 2) * step).all()
    for x in (torch.randn(3, 64), torch.randn(2, 40, 64)):
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight), rtol=0.02, atol=0.02 * float(layer(x).std()))


@torch.no_grad()
def test_int4_codes_are_packed_again_when_they_change():
    one = model("quantize=int4")
    layer, x = one.backbone.blocks[0].channel_mix.key, torch.randn(2, 32)
    first = layer(x)
    twin = copy.deepcopy(layer)
    layer.codes.zero_()
    assert torch.equal(twin(x), first)
    expected = F.linear(x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02 * float(expected.std()))


@torch.no_grad()
def test_int4_codes_at_the_address_of_earlier_ones_are_packed_again():
    one = model("quantize=int4")
    layer, x = one.backbone.blocks[0].channel_mix.key, torch.randn(2, 32)
    memory = layer.codes.numpy().copy()
    layer.codes = torch.from_numpy(memory)
    first, address = layer(x), layer.codes.data_ptr()
    memory[:] = memory[::-1].copy()
    layer.codes = torch.from_numpy(memory)
    assert layer.codes.data_ptr() == address
    expected = F.linear(x, layer.weight)
    torch.testing.assert_close(layer(x), expected, rtol=0.02, atol=0.02 * float(expected.std()))
    assert not torch.equal(layer(x), first)
    assert copy.deepcopy(layer).kept is None


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (
            ["backbone.ffn=80"],
            r"blocks\.0\.channel_mix\.value has 80 inputs, which group_size \(32\) does not divide; use",
        ),
        (["backbone.ffn=40"], r"blocks\.0\.channel_mix\.key has 40 outputs, and the products .* multiples of 16"),
        (["quantize.group_size=64"], r"blocks\.0\.time_mix\.receptance has 32 inputs, which group_size \(64\)"),
    ],
)
def test_sizes_that_have_no_codes_are_refused_by_name(words, fault):
    with pytest.raises(ConfigError, match=f"quantize: backbone.{fault}"):
        build(compose("model=visualrwkv6_tiny", "quantize=int4", *words))


def test_layers_of_other_sizes_can_be_left_out():
    skip = 'quantize.skip=["*.channel_mix.value","*.channel_mix.key"]'
    assert len(quantised(model("quantize=int4", "backbone.ffn=40", skip))) == 12


@torch.no_grad()
def test_awq_keeps_what_large_inputs_are_multiplied_by():
    """One channel of the inputs is much larger than the others: plain rounding of its weights costs more."""

    def error(**knobs):
        one = model()
        layer = one.backbone.blocks[0].channel_mix.key
        one.backbone.blocks[0].norm_channel.weight[3] = 40.0
        inputs = []
        layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        batches = [Batch(Sequence(torch.randint(0, 1000, (1, 20)))) for _ in range(4)]
        for batch in batches:
            one(batch)
        Int4(**knobs)(one, batches)
        made = one.backbone.blocks[0].channel_mix.key
        assert (made.input_scales is not None) == bool(knobs)
        x = torch.cat(inputs[:4], 1)
        expected = F.linear(x, made.weight)
        torch.testing.assert_close(made(x), expected, rtol=0.02, atol=0.02 * float(expected.std()))
        return float((F.linear(x, layer.weight.float()) - expected).norm())

    assert error(awq_samples=4) < 0.7 * error()


def test_awq_without_samples_is_refused():
    with pytest.raises(ConfigError, match="quantize: AWQ observes the model on 8 samples, and there are none: use"):
        build(compose("model=visualrwkv6_tiny", "quantize=int4", "quantize.awq_samples=8"))


@torch.no_grad()
@pytest.mark.parametrize("bits", [Int8, Int4])
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_reads_with_codes_as_with_their_weights(name, bits):
    """A text at once, and one token after the other; weights computed from the codes give the same."""
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if bits is Int8 else {"rtol": 0.05, "atol": 0.05}
    one = model(f"backbone={name}", "scan=forward", *(["position=glm_2d_tiny"] if name == "glm_tiny" else []))
    bits()(one)
    backbone = one.backbone
    whole, _ = backbone(Sequence(IDS))
    if backbone.causal:
        state, hidden = None, []
        for token in IDS.T:
            out, state = backbone(Sequence(token[None]), state)
            hidden.append(out)
        torch.testing.assert_close(torch.cat(hidden, 1), whole, **tolerance)
    assert quantised(one)
    Dequantized()(one)
    assert not quantised(one)
    torch.testing.assert_close(backbone(Sequence(IDS))[0], whole, **tolerance)


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
    one = build(compose("model=visualrwkv6_tiny", "quantize=int8"))
    assert len(quantised(one)) == 16
    with pytest.raises(ValueError, match="quantised already"):
        Int8()(one)
    with torch.device("meta"):
        assert all(value.is_meta for value in build(compose("model=visualrwkv6_tiny", "quantize=int8")).buffers())


@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_gradients_reach_what_stands_before_a_quantised_backbone(bits):
    one = model(f"quantize={bits}")
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
@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        (["quantize=int8"], []),
        (["quantize=int8", "backbone=rwkv5_tiny"], []),
        (["quantize=int8", 'quantize.skip=["*.output"]'], [SLOWER]),
        (["quantize=int4"], [SLOWER]),
        (["quantize=int4", "backbone=rwkv7_tiny"], []),
    ],
)
def test_the_native_step_reads_8_bit_codes_and_says_once_where_it_is_left(words, warnings, recwarn):
    one = model(*words)
    whole, _ = one.backbone(Sequence(IDS))
    state, hidden = None, []
    for token in IDS.T:
        out, state = one.backbone(Sequence(token[None]), state)
        hidden.append(out)
    tolerance = 1e-5 if words[0] == "quantize=int8" else 0.05
    torch.testing.assert_close(torch.cat(hidden, 1), whole, rtol=tolerance, atol=tolerance)
    assert [str(each.message) for each in recwarn if "native decoding step" in str(each.message)] == warnings
    if "backbone=rwkv7_tiny" not in words:
        assert (PREPARED[one.backbone].step is None) == bool(warnings)


@torch.no_grad()
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("bits", ["int8", "int4"])
def test_a_gpu_computes_the_weights_for_every_product(bits):
    one = model(f"quantize={bits}")
    Dequantized()(twin := copy.deepcopy(one))
    expected, _ = twin.backbone(Sequence(IDS))
    found, _ = one.to("cuda").backbone(Sequence(IDS.to("cuda")))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)


@torch.no_grad()
@pytest.mark.skipif(unavailable_reason() is not None, reason="no compiler")
def test_the_native_step_notices_other_codes():
    one = model("quantize=int8")
    token, layer = Sequence(IDS[:, :1]), one.backbone.blocks[1].channel_mix.key
    first, _ = one.backbone(token)
    layer.codes, layer.scales = layer.codes.flip(0).contiguous(), layer.scales.flip(0).contiguous()
    found, _ = one.backbone(token)
    assert not torch.equal(found, first)
    twin = copy.deepcopy(one)
    Dequantized()(twin)
    torch.testing.assert_close(found, twin.backbone(token)[0], rtol=1e-4, atol=1e-4)
    assert one.backbone.bfloat16()(Sequence(IDS[:, :1]))[0].dtype == torch.bfloat16
