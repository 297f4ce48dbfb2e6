"""Fields of a configuration of `transformers` that decide how a model is called; all of them are read here."""

from dataclasses import dataclass
from typing import Any

DEFAULTS: dict[str, Any] = {
    "head_dim": None,
    "num_key_value_heads": None,
    "sliding_window": None,
    "logit_scale": None,
    "logits_scaling": None,
    "final_logit_softcapping": None,
    "scale_decoder_outputs": False,
}
"""Fields that only some architectures have, and their values where one lacks them."""


@dataclass(frozen=True)
class ConfigFields:
    """Sizes of the cache, and the changes of masks and logits.

    Attributes:
        kv_heads: heads of the KV cache (`num_key_value_heads`, else `num_attention_heads`).
        head_size: width of a key (`head_dim`, else that of the model over its heads).
        window: keys that layers with a sliding window attend to; None: there are none (Mistral, Gemma-2).
        logit_factor: factor of the logits: `logit_scale` (Cohere) over `logits_scaling` (Granite).
        logit_cap: soft cap of the logits, `final_logit_softcapping` (Gemma-2); None: none.
        scales_output: the decoder's output is divided by the root of its width before the head (`t5`, tied).
    """

    kv_heads: int
    head_size: int
    window: int | None
    logit_factor: float
    logit_cap: float | None
    scales_output: bool


def read_fields(config: Any) -> ConfigFields:
    """Read a configuration, of a decoder or of an encoder-decoder."""
    found = {name: getattr(config, name, default) for name, default in DEFAULTS.items()}
    heads = config.num_attention_heads
    size = config.d_kv if config.is_encoder_decoder else found["head_dim"] or config.hidden_size // heads
    return ConfigFields(
        kv_heads=found["num_key_value_heads"] or heads,
        head_size=size,
        window=found["sliding_window"] or None,
        logit_factor=(found["logit_scale"] or 1.0) / (found["logits_scaling"] or 1.0),
        logit_cap=found["final_logit_softcapping"],
        scales_output=bool(found["scale_decoder_outputs"]),
    )
