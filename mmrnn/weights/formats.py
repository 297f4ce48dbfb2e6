"""Every format that `load` knows."""

from mmrnn.weights import connectors, llama, llava, rwkv, rwkv7, towers, visualrwkv
from mmrnn.weights.format import Format

FORMATS: tuple[Format, ...] = (
    *rwkv.FORMATS,
    *rwkv7.FORMATS,
    *visualrwkv.FORMATS,
    *llama.FORMATS,
    *llava.FORMATS,
    *towers.FORMATS,
    *connectors.FORMATS,
)
