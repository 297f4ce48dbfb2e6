"""Parameter counts of the full-size backbones: as published, or computed from the published sizes."""

import pytest
import torch

from mmrnn.config.compose import compose, conf_dir
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain

CARDS = sorted(path.stem for path in (conf_dir() / "backbone").glob("*.yaml"))


def rwkv5(layers, d, vocab=65536):
    return 13 * d * d * layers + 14 * d * layers + 4 * d + 2 * vocab * d


def rwkv6(layers, d, vocab=65536):
    ranks = 464 if d < 4096 else 912
    return 13 * d * d * layers + ranks * d * layers + 4 * d + 2 * vocab * d


def palm(layers, d, heads, vocab=256_000):
    """One key and value head, a SwiGLU of four times the width, a tied head; two norms per block, as in Llama."""
    return layers * (2 * d * heads * 256 + 2 * d * 256 + 12 * d * d + 2 * d) + vocab * d + d


def qwen35(layers, d, ffn, heads, groups, delta):
    """Three layers of the delta rule with 16 key heads of 128, then one of gated attention with heads of 256."""
    keys, values = 16 * 128, delta * 128
    rule = d * (2 * keys + 3 * values + 2 * delta) + 4 * (2 * keys + values) + 2 * delta + 128
    attention = d * 256 * (3 * heads + 2 * groups) + 2 * 256
    return layers * (3 * d * ffn + 2 * d) + layers // 4 * (3 * rule + attention) + 248_320 * d + d


PUBLISHED = {
    "flant5_xl": 2_849_757_184,
    "flant5_xxl": 11_135_332_352,
    "glm_6b": 6_707_929_088,
    "infinitevl_4b": 3_739_697_248,
    "llama2_13b": 13_015_864_320,
    "llama2_7b": 6_738_415_616,
    "llama3_8b": 8_030_261_248,
    "llama_2b7": 2_701_560_320,
    "linear_hybrid_7b": 6_738_415_616 + 24 * 17_088_704,  # Llama-2 7B, and gates, decays and convolutions
    "mamba_0b1": 129_135_360,
    "mamba_0b4": 371_516_416,
    "mamba_0b8": 793_204_224,
    "mamba_1b4": 1_372_178_432,
    "mamba_2b8": 2_768_345_600,
    "opt_2b7": 2_651_596_800,
    "opt_6b7": 6_658_473_984,
    "palm_540b": palm(118, 18432, 48),
    "palm_62b": palm(64, 8192, 32),
    "palm_8b": palm(32, 4096, 16),
    "persimmon_8b": 9_397_175_296,
    "qwen2_0b5": 494_032_768,
    "qwen2_1b5": 1_543_714_304,
    "qwen2_7b": 7_615_616_512,
    "qwen_7b": 7_721_324_544,
    "qwen35_0b8": qwen35(24, 1024, 3584, 8, 2, 16),
    "qwen35_2b": qwen35(24, 2048, 6144, 8, 2, 16),
    "qwen35_4b": qwen35(32, 2560, 9216, 16, 4, 32),
    "qwen35_9b": qwen35(32, 4096, 12288, 16, 4, 32) + 248_320 * 4096,
    "rwkv5_0b1": rwkv5(12, 768),
    "rwkv5_0b4": rwkv5(24, 1024),
    "rwkv5_1b5": rwkv5(24, 2048),
    "rwkv5_3b": rwkv5(32, 2560),
    "rwkv5_7b": rwkv5(32, 4096),
    "rwkv6_0b1": rwkv6(12, 768),
    "rwkv6_0b4": rwkv6(24, 1024),
    "rwkv6_14b": rwkv6(61, 4096),
    "rwkv6_1b6": rwkv6(24, 2048),
    "rwkv6_3b": rwkv6(32, 2560),
    "rwkv6_7b": rwkv6(32, 4096),
    "rwkv7_0b1": 191_034_624,
    "rwkv7_0b4": 450_767_872,
    "rwkv7_1b5": 1_527_404_544,
    "rwkv7_2b9": 2_947_735_040,
    "smollm2_135m": 134_515_008,
    "vicuna_13b": 13_015_864_320,
    "vicuna_7b": 6_738_415_616,
    "yi_34b": 34_388_917_248,
}
ROUNDED = {"rwkv7_7b2": "7.2", "rwkv7_13b3": "13.2"}
"""Billions, with ranks by the rule of the smaller models: those of the 7.2B and the 13.3B are not published."""
OTHERS = {"hf", "hf_t5", "none_bert"}


def count(name):
    with torch.device("meta"):
        backbone = instantiate(plain(compose(config=f"backbone/{name}"))["backbone"])
    return sum(parameter.numel() for parameter in backbone.parameters())


def test_every_full_size_card_is_compared():
    small = {name for name in CARDS if name.endswith(("_tiny", "_small", "_study"))}
    assert set(PUBLISHED) | set(ROUNDED) | OTHERS | small == set(CARDS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name):
    assert count(name) == PUBLISHED[name]


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_size(name):
    assert f"{count(name) / 1e9:.1f}" == ROUNDED[name]


def test_flant5_has_an_untied_head():
    """FlanT5's head is not its embedding, although transformers ties the two of every new T5."""
    pytest.importorskip("transformers")
    backbone = instantiate(plain(compose(config="backbone/flant5_tiny"))["backbone"])
    model = backbone.model
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    words = model.get_input_embeddings().weight.detach().clone()
    backbone.head(torch.randn(2, backbone.width)).sum().backward()
    assert model.get_output_embeddings().weight.grad.abs().sum() > 0
    assert torch.equal(words, model.get_input_embeddings().weight)
