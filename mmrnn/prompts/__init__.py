"""Words for the model: how a dialogue is written, where its images stand, how text becomes ids and when it ends."""

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.interleaved import Interleaved
from mmrnn.prompts.prefix_lm import PrefixLM
from mmrnn.prompts.rwkv_chat import RWKVChat
from mmrnn.prompts.spans import Prompt, Span, TokenizedSample, insert_modality_slots, tokenize, truncate
from mmrnn.prompts.stop_criteria import Stop
from mmrnn.prompts.template import Template

__all__ = [
    "Interleaved",
    "PrefixLM",
    "Prompt",
    "RWKVChat",
    "Span",
    "Stop",
    "Template",
    "TokenizedSample",
    "insert_modality_slots",
    "place_images",
    "tokenize",
    "truncate",
]
