"""Encoder of Whisper under the names of transformers."""

from collections.abc import Mapping
from typing import Any

from mmrnn.encoders import WhisperEncoder
from mmrnn.weights.format import Format, Shapes, Sizes
from mmrnn.weights.formats.ignored import LANGUAGE

LAYER, BLOCK = "layers.{}", "blocks.{}"
NAMES = {
    "conv1.*": "conv1.*",
    "conv2.*": "conv2.*",
    "embed_positions.weight": "positions",
    f"{LAYER}.self_attn_layer_norm.*": f"{BLOCK}.norm_attention.*",
    f"{LAYER}.self_attn.q_proj.*": f"{BLOCK}.attention.query.*",
    f"{LAYER}.self_attn.k_proj.*": f"{BLOCK}.attention.key.*",
    f"{LAYER}.self_attn.v_proj.*": f"{BLOCK}.attention.value.*",
    f"{LAYER}.self_attn.out_proj.*": f"{BLOCK}.attention.output.*",
    f"{LAYER}.final_layer_norm.*": f"{BLOCK}.norm_mlp.*",
    f"{LAYER}.fc1.*": f"{BLOCK}.up.*",
    f"{LAYER}.fc2.*": f"{BLOCK}.down.*",
    "layer_norm.*": "norm.*",
}


def infer(shapes: Shapes, metadata: Mapping[str, Any]) -> Sizes:
    """Sizes from the shapes; heads are 64 wide, as in every published model, unless `config.json` has their number."""
    names = {name.rpartition("encoder.")[2]: shape for name, shape in shapes.items() if "decoder." not in name}
    width, mels, _ = names["conv1.weight"]
    knobs = {
        "mels": mels,
        "width": width,
        "depth": 1 + max(int(name.split(".")[1]) for name in names if name.startswith("layers.")),
        "heads": metadata.get("encoder_attention_heads", width // 64),
        "ffn": names["layers.0.fc1.weight"][0],
        "positions": names["embed_positions.weight"][0],
    }
    return Sizes(knobs)


def encoder(name: str, prefix: str, ignored: Mapping[str, str]) -> Format:
    """Format of the encoder, alone or in a whole Whisper."""
    return Format(
        name,
        WhisperEncoder,
        signature=(
            f"{prefix}conv1.weight",
            f"{prefix}embed_positions.weight",
            f"{prefix}layers.0.self_attn.k_proj.weight",
        ),
        names={f"{prefix}{theirs}": ours for theirs, ours in NAMES.items()},
        ignored=ignored,
        infer=infer,
    )


FORMATS = (
    encoder("whisper_encoder", "", {}),
    encoder("whisper", "model.encoder.", {"model.decoder.*": LANGUAGE, "proj_out.weight": LANGUAGE}),
)
