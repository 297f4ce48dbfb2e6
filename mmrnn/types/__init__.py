"""Contracts between the parts, and the data that travels between them.

Letters: `b` samples, `m` images of the batch, `t` positions, `n` encoder tokens, `v` visual tokens,
`e` encoder width, `d` backbone width, `h` heads, `k` key size.
"""

from mmrnn.types.layout import ImageSpan, ImageSpec, Layout
from mmrnn.types.output import Output
from mmrnn.types.parts import (
    Backbone,
    BlockHooks,
    Composite,
    Connector,
    Encoder,
    Expert,
    Hook,
    MapDataset,
    Mask,
    Objective,
    Optimizer,
    OptimizerFactory,
    Position,
    Prompt,
    Scan,
    Schedule,
    StreamDataset,
    Tokenizer,
    implements,
)
from mmrnn.types.sample import TAG, ImageSource, Sample, Turn
from mmrnn.types.sequence import IGNORE, SLOT, Batch, Sequence
from mmrnn.types.span import Span
from mmrnn.types.state import State

__all__ = [
    "IGNORE",
    "SLOT",
    "TAG",
    "Backbone",
    "Batch",
    "BlockHooks",
    "Composite",
    "Connector",
    "Encoder",
    "Expert",
    "Hook",
    "ImageSource",
    "ImageSpan",
    "ImageSpec",
    "Layout",
    "MapDataset",
    "Mask",
    "Objective",
    "Optimizer",
    "OptimizerFactory",
    "Output",
    "Position",
    "Prompt",
    "Sample",
    "Scan",
    "Schedule",
    "Sequence",
    "Span",
    "State",
    "StreamDataset",
    "Tokenizer",
    "Turn",
    "implements",
]
