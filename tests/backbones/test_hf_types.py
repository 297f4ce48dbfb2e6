"""Every decoder-only architecture of the installed transformers: equal to the original, or refused by `check`."""

from inspect import signature

import pytest
import torch

from mmrnn.backbones.hf import HFDecoder
from mmrnn.backbones.hf_config import DECODERS
from mmrnn.config.compose import compose
from mmrnn.config.error import ConfigError
from mmrnn.config.tree import plain
from mmrnn.config.validate import check
from mmrnn.types import Sequence, State

transformers = pytest.importorskip("transformers")
TYPES = sorted(transformers.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)

SIZES = {
    **{"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 4},
    **{"intermediate_size": 64, "ffn_dim": 64, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32},
    **{"max_position_embeddings": 64, "word_embed_proj_dim": 64, "decoder_layers": 2, "n_group": 1, "topk_group": 1},
    **{"n_routed_experts": 4, "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2},
    **{"first_k_dense_replace": 1, "pad_token_id": 0},
}
"""Sizes of a tiny model; an architecture takes those that it has."""


def decoder(name: str, **more) -> HFDecoder:
    kind = transformers.CONFIG_MAPPING[name]
    known = {*signature(kind).parameters, *kind.attribute_map}
    torch.manual_seed(0)
    model = HFDecoder(name=name, vocab=100, width=64, arch={k: v for k, v in SIZES.items() if k in known} | more).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def compare_rows(model: HFDecoder) -> None:
    """Rows alone equal the original's logits; packed, padded, continued and joined, they equal the rows alone."""
    ids = torch.randint(1, 100, (2, 12))
    with torch.no_grad():
        alone, state = model(Sequence(ids))
        state.check(model.state_origin, model.state(0))
        expected = model.model(input_ids=ids).logits
        torch.testing.assert_close(model.head(alone), expected, atol=1e-4, rtol=1e-4)
        row, segments = torch.cat([ids[:, :6], ids], 1), torch.tensor([[0] * 6 + [1] * 12]).expand(2, -1)
        packed, _ = model(Sequence(row, segments=segments))
        padded, _ = model(Sequence(torch.cat([torch.zeros_like(ids[:, :6]), ids], 1), segments=segments))
        first, state = model(Sequence(ids[:, :7]))
        second, state = model(Sequence(ids[:, 7:10]), state)
        third, _ = model(Sequence(ids[:, 10:11]), state)
        half, state = model(Sequence(row[:, :9], segments=segments[:, :9]))
        rest, _ = model(Sequence(row[:, 9:], segments=segments[:, 9:]), state)
        # The second row has read three tokens less.
        states = [model(Sequence(ids[:1, :7]))[1], model(Sequence(ids[1:, :4]))[1]]
        more = torch.cat([ids[:1, 7:10], ids[1:, 4:7]])
        joined, state = model(Sequence(more), State.cat(states))
        joined_then, _ = model(Sequence(torch.cat([ids[:1, 10:11], ids[1:, 7:8]])), state)
    for found, wanted in (
        (packed[:, 6:], alone),
        (padded[:, 6:], alone),
        (torch.cat([first, second, third], 1), alone[:, :11]),
        (torch.cat([half, rest], 1)[:, 6:], alone),
        (torch.cat([joined, joined_then], 1)[0], alone[0, 7:11]),
        (torch.cat([joined, joined_then], 1)[1], alone[1, 4:8]),
    ):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def refused(name: str) -> str:
    cfg = plain(compose("model=blip2_tiny"))
    cfg["backbone"] = {"_target_": "mmrnn.backbones.HFDecoder", "name": name, "vocab": 1024, "width": 64}
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    [fault] = caught.value.faults
    return fault


@pytest.mark.parametrize("name", ["llama", "gemma2", "mistral", "opt"])
def test_packed_padded_and_continued_rows(name):
    compare_rows(decoder(name))


def test_heads_of_another_size_and_a_state_of_that_size():
    model = decoder("llama", head_dim=8, num_key_value_heads=1)
    assert model.state(3).layers[0]["key"].shape == (3, 1, 0, 8)
    compare_rows(model)


def test_a_mask_in_place_of_a_window_is_refused():
    model, ids = decoder("mistral"), torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match=r"mistral attends within a window, .* use mask=causal"):
        model(Sequence(ids, attention_mask=torch.ones(1, 4, 4, dtype=torch.bool)))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mamba", "'mamba' keeps a recurrent state, which is no KV cache"),
        ("jamba", "'jamba' keeps a recurrent state"),
        ("gemma3", "'gemma3' is made of several models, with encoders of its own; did you mean"),
        ("bart", "'bart' has an encoder, and not the form of T5"),
        ("t5", "'t5' is an architecture of the other kind; use backbone=hf_t5"),
        ("bloom", "'bloom' differs from the original in packed, padded or continued rows, or keeps another cache"),
        ("lama", "transformers has no architecture 'lama'; did you mean 'llama'?"),
    ],
)
def test_other_architectures_are_refused_before_building(name, reason):
    assert refused(name).startswith(f"backbone.name: {reason}")


@pytest.mark.parametrize(
    ("arch", "fault"),
    [
        ({"attn_implementation": "owner/name"}, "backbone.arch.attn_implementation: llama has no such size"),
        ({"_attn_implementation_internal": "owner/name"}, "backbone.arch._attn_implementation_internal: llama has no"),
        ({"name_or_path": "owner/name"}, "backbone.arch.name_or_path: llama has no such size"),
        ({"auto_map": {"AutoModel": "owner/name--m.M"}}, "backbone.arch.auto_map: llama has no such size"),
        ({"quantization_config": {"quant_method": "x"}}, "backbone.arch.quantization_config: llama has no such size"),
        ({"rope_parameters": {"rope_type": "owner/name"}}, "backbone.arch.rope_parameters: expected numbers and words"),
        ({"head_dim": {"attn_implementation": "a/b"}}, "backbone.arch.head_dim: expected a number, a word or a list"),
        ({"hidden_act": "owner/name"}, "backbone.arch.hidden_act: expected numbers and words"),
        ({"num_hiden_layers": 2}, "backbone.arch.num_hiden_layers: llama has no such size; did you mean 'num_hidden_l"),
        ({"num_attention_heads": 0}, "backbone.arch.num_attention_heads: expected int of at least 1, got 0"),
        ({"num_attention_heads": 7}, "backbone.arch: transformers refuses these sizes of llama: "),
    ],
)
def test_arch_takes_named_sizes_only(arch, fault):
    cfg = plain(compose("model=blip2_tiny"))
    cfg["backbone"] = {
        "_target_": "mmrnn.backbones.HFDecoder",
        "name": "llama",
        "vocab": 1024,
        "width": 64,
        "arch": arch,
    }
    with pytest.raises(ConfigError) as caught:
        check(cfg)
    assert str(caught.value).startswith(fault)
    with pytest.raises(ValueError, match=fault.removeprefix("backbone.").partition(":")[0]):
        HFDecoder(name="llama", vocab=100, width=64, arch=arch)


def test_layers_without_a_cache_are_refused():
    arch = {"num_hidden_layers": 2, "layer_types": ["full_attention", "linear_attention"]}
    [(name, fault)] = HFDecoder.knob_faults({"name": "qwen3", "vocab": 9, "width": 64, "arch": arch})
    assert name == "arch.layer_types"
    assert fault.startswith("qwen3 has layers of linear_attention, which")


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_every_architecture_equals_the_original_or_is_refused(name):
    if name in DECODERS:
        compare_rows(decoder(name))
    else:
        assert refused(name).startswith(f"backbone.name: {name!r} ")
