"""Words for the model: how a dialogue is written, where its pictures stand, how text becomes ids and when it ends."""

from mmrnn.prompts.dialogue import Dialogue
from mmrnn.prompts.halves import Halves
from mmrnn.prompts.pages import Pages
from mmrnn.prompts.piece import Piece, Prompt, Row, cut, observe, tokenize
from mmrnn.prompts.place import place
from mmrnn.prompts.stop import Stop
from mmrnn.prompts.template import Template
from mmrnn.prompts.tokenizer_hub import HubTokenizer
from mmrnn.prompts.tokenizer_small import Small
from mmrnn.prompts.tokenizer_world import World

__all__ = [
    "Dialogue",
    "Halves",
    "HubTokenizer",
    "Pages",
    "Piece",
    "Prompt",
    "Row",
    "Small",
    "Stop",
    "Template",
    "World",
    "cut",
    "observe",
    "place",
    "tokenize",
]
