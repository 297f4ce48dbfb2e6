"""Registry of all weight formats."""

from mmrnn.weights.format import Format
from mmrnn.weights.formats import (
    bert,
    cogvlm,
    connectors,
    eve,
    fla,
    flamingo,
    fuyu,
    glm,
    hf,
    infinitevl,
    intern,
    llama,
    llava,
    mamba,
    modrwkv,
    prismatic,
    qformer,
    qwen35,
    qwen_vl,
    rwkv,
    rwkv7,
    token_compressor,
    towers,
    visualrwkv,
    whisper,
)

FORMATS: tuple[Format, ...] = (
    *rwkv.FORMATS,
    *rwkv7.FORMATS,
    *fla.FORMATS,
    *visualrwkv.FORMATS,
    *llama.FORMATS,
    *mamba.FORMATS,
    *modrwkv.FORMATS,
    *llava.FORMATS,
    *prismatic.FORMATS,
    *towers.FORMATS,
    *intern.FORMATS,
    *connectors.FORMATS,
    *token_compressor.FORMATS,
    *qformer.FORMATS,
    *bert.FORMATS,
    *cogvlm.FORMATS,
    *eve.FORMATS,
    *flamingo.FORMATS,
    *fuyu.FORMATS,
    *glm.FORMATS,
    *hf.FORMATS,
    *infinitevl.FORMATS,
    *qwen35.FORMATS,
    *qwen_vl.FORMATS,
    *whisper.FORMATS,
)

UNSUPPORTED = {
    "RWKV-4, which mmrnn does not have": ("blocks.0.att.time_first", "blocks.0.att.time_mix_k"),
    "RWKV-4 of transformers, which mmrnn does not have": ("rwkv.blocks.0.attention.time_first",),
}
"""Kinds of models without a format -> names by which they are recognised, to say what a file is."""
