"""Every format that `load` knows."""

from mmrnn.weights import cogvlm, connectors, eve, flamingo, fuyu, glm, hf, llama, qwen_vl, rwkv, towers, visualrwkv
from mmrnn.weights.format import Format

FORMATS: tuple[Format, ...] = (
    *rwkv.FORMATS,
    *visualrwkv.FORMATS,
    *llama.FORMATS,
    *towers.FORMATS,
    *connectors.FORMATS,
    *cogvlm.FORMATS,
    *eve.FORMATS,
    *flamingo.FORMATS,
    *fuyu.FORMATS,
    *glm.FORMATS,
    *hf.FORMATS,
    *qwen_vl.FORMATS,
)
