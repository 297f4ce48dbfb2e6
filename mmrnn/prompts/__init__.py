"""Prompts: dialogues to spans, spans to token ids, and stop criteria for replies."""

from mmrnn.prompts.image_position import place_images
from mmrnn.prompts.interleaved import Interleaved
from mmrnn.prompts.prefix_lm import PrefixLM
from mmrnn.prompts.rwkv_chat import RWKVChat
from mmrnn.prompts.spans import TokenizedSample, insert_modality_slots, tokenize, truncate
from mmrnn.prompts.stop_criteria import StopCriteria
from mmrnn.prompts.template import Template

__all__ = [
    "Interleaved",
    "PrefixLM",
    "RWKVChat",
    "StopCriteria",
    "Template",
    "TokenizedSample",
    "insert_modality_slots",
    "place_images",
    "tokenize",
    "truncate",
]
