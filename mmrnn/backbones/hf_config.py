"""Configurations of `transformers`: which architectures are backbones, and which of their fields a card may set."""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from inspect import signature
from typing import Any

from mmrnn.config.coerce import did_you_mean

DECODERS = frozenset(
    [
        "afmoe",
        "apertus",
        "apertus1p5_text",
        "arcee",
        "aria_text",
        "beam",
        "biogpt",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "cwm",
        "diffllama",
        "ernie4_5",
        "ernie4_5_moe",
        "exaone",
        "exaone4",
        "exaone_moe",
        "flex_olmo",
        "flint",
        "gemma",
        "gemma2",
        "gemma3_text",
        "glm",
        "glm4",
        "glm4_moe",
        "gpt-sw3",
        "gpt2",
        "gpt_neox",
        "gpt_neox_japanese",
        "gpt_oss",
        "granite",
        "granite_swa",
        "granitemoe",
        "granitemoe_swa",
        "granitemoeshared",
        "helium",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hy_v3",
        "hyperclovax",
        "internlm3",
        "iquestcoder",
        "jais2",
        "jetmoe",
        "kolibri1",
        "laguna",
        "llama",
        "mellum",
        "minimax_m2",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "mpt",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "sarvam_moe",
        "seed_oss",
        "smollm3",
        "solar_open",
        "stablelm",
        "starcoder2",
        "vaultgemma",
        "xglm",
    ]
)
"""Decoders whose rows, alone, packed, padded and continued, equal those of transformers (tests: `test_hf_types`)."""

ENCODER_DECODERS = frozenset(("t5", "mt5", "umt5"))

ATTENTION = frozenset(("full_attention", "sliding_attention"))
"""Types of layer whose state is a KV cache that grows with the text."""

ROPE = frozenset(("rope_parameters", "rope_scaling"))
"""Fields that are mappings."""

COUNTS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")

WORD = re.compile(r"[\w.\-]*")
"""Value of a field that is a word, such as an activation; a path or a name on the hub is none."""


def name_fault(name: str, known: frozenset[str]) -> str | None:
    """Return the reason why an architecture is no backbone of ours; None: it is one."""
    from transformers import CONFIG_MAPPING

    if name in known and name in CONFIG_MAPPING:
        return None
    there_are = did_you_mean(name, known) or f"; use one of {', '.join(sorted(known))}"
    if name not in CONFIG_MAPPING:
        return f"transformers has no architecture {name!r}{there_are}"
    if name in DECODERS | ENCODER_DECODERS:
        other = "hf" if name in DECODERS else "hf_t5"
        return f"{name!r} is an architecture of the other kind; use backbone={other}"
    return f"{name!r} {_difference(name)}{there_are}"


def _difference(name: str) -> str:
    """Return what an architecture has that no row of ours can hold."""
    from transformers import CONFIG_MAPPING

    kind = CONFIG_MAPPING[name]
    if vars(kind).get("sub_configs_defaults") or vars(kind).get("sub_configs"):
        return "is made of several models, with encoders of its own"
    try:
        made = kind()
    except Exception:
        return "cannot be made of sizes alone"
    if made.is_encoder_decoder:
        return "has an encoder, and not the form of T5"
    fields = " ".join([*vars(made), *map(str, vars(made).get("layer_types") or ())])
    if re.search(r"ssm|mamba|linear_|conv|lru|state_size|recurrent|xlstm|attention_hidden_size", fields):
        return "keeps a recurrent state, which is no KV cache"
    return "differs from the original in packed, padded or continued rows, or keeps another cache"


def arch_faults(name: str, arch: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the key and the fault of every field of a configuration that a card may not set.

    Sizes, switches and words of the architecture's own are accepted. Fields that every configuration has are not: they
    name files, data types and code (`attn_implementation` may be a repository on the hub).
    """
    from transformers import CONFIG_MAPPING, PretrainedConfig

    kind = CONFIG_MAPPING[name]
    common = {*signature(PretrainedConfig).parameters, "attn_implementation", "kwargs"}
    known = {field for field in signature(kind).parameters if field not in common and not field.startswith("_")}
    known |= {*kind.attribute_map, "tie_word_embeddings"}
    if "rope_parameters" in known:
        known |= {"rope_theta", "rope_scaling", "partial_rotary_factor"}
    known -= {"vocab_size", "hidden_size", "use_cache", "is_decoder", "add_cross_attention"}
    for key, value in arch.items():
        if key not in known:
            near = did_you_mean(key, known) or f"; it has {', '.join(sorted(known))}"
            yield key, f"{name} has no such size{near}"
        elif isinstance(value, Mapping) and key not in ROPE:
            yield key, f"expected a number, a word or a list of them, got {dict(value)!r}"
        elif key in COUNTS and value is not None and not (type(value) is int and value > 0):
            yield key, f"expected int of at least 1, got {value!r}"
        elif not _is_plain(value):
            yield key, f"expected numbers and words (letters, digits, '.', '_', '-'), got {value!r}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float) or bool(WORD.fullmatch(value))


def decoder_faults(name: str, vocab: int, width: int, arch: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    """Yield knob and fault of a decoder's configuration; nothing where transformers is not installed."""
    if find_spec("transformers") is None:
        return
    if fault := name_fault(name, DECODERS):
        yield "name", fault
        return
    found = [(f"arch.{key}", fault) for key, fault in arch_faults(name, arch or {})]
    yield from found
    if found:
        return
    try:
        config = make_config(name, vocab_size=vocab, hidden_size=width, **(arch or {}))
    except ValueError as error:
        yield "arch", str(error)
        return
    facts = config.to_dict()
    if other := set(facts.get("layer_types") or ()) - ATTENTION:
        yield "arch.layer_types", f"{name} has layers of {', '.join(sorted(other))}, which are no KV cache"
    if facts.get("alibi") or facts.get("num_kv_shared_layers"):
        key = "alibi" if facts.get("alibi") else "num_kv_shared_layers"
        yield f"arch.{key}", f"{name} with it differs from the original in packed and padded rows; leave it out"
    if facts.get("word_embed_proj_dim", width) != width:
        yield "arch.word_embed_proj_dim", f"expected {width}, the width of the model; set it in arch"


def encoder_decoder_faults(
    name: str, vocab: int, width: int, arch: Mapping[str, Any] | None
) -> Iterator[tuple[str, str]]:
    """Yield knob and fault of an encoder-decoder's configuration; nothing where transformers is not installed."""
    if find_spec("transformers") is None:
        return
    if fault := name_fault(name, ENCODER_DECODERS):
        yield "name", fault
        return
    found = [(f"arch.{key}", fault) for key, fault in arch_faults(name, arch or {})]
    yield from found
    if not found:
        try:
            make_config(name, vocab_size=vocab, d_model=width, **(arch or {}))
        except ValueError as error:
            yield "arch", str(error)


def make_config(name: str, **sizes: Any) -> Any:
    """Return the configuration of an architecture.

    Raises:
        ValueError: transformers has no such architecture, or refuses its sizes.
    """
    from transformers import CONFIG_MAPPING

    if name not in CONFIG_MAPPING:
        raise ValueError(f"transformers has no architecture {name!r}; it has, for example, opt, persimmon and t5")
    try:
        return CONFIG_MAPPING[name](**sizes)
    except Exception as error:
        # Its validators raise errors of many types, some of huggingface_hub's own.
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"transformers refuses these sizes of {name}: {': '.join(lines[-2:])}") from error
