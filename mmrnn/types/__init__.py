"""Contracts between the parts, and the data that travels between them.

Letters: `b` samples, `m` images of the batch, `t` positions, `n` encoder tokens, `v` visual tokens,
`e` encoder width, `d` backbone width, `h` heads, `k` key size.
"""

from mmrnn.types.adapter import Adapter
from mmrnn.types.batching import Batching, StepPlan, StepSpec
from mmrnn.types.bounds import (
    Bounds,
    ChecksKnobs,
    Constraint,
    FiniteFloat,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
)
from mmrnn.types.contract import fulfils, implements
from mmrnn.types.embedder import Embedder, Matcher
from mmrnn.types.hooks import BlockHooks, Expert, Routing
from mmrnn.types.inputs import MapDataset, Prompt, StreamDataset, Tokenizer
from mmrnn.types.layout import ImageSpan, ImageSpec, Layout
from mmrnn.types.objective import Objective
from mmrnn.types.output import Output
from mmrnn.types.parts import (
    Backbone,
    Composite,
    Connector,
    Encoder,
    Hook,
    Mask,
    ModalitySpec,
    Position,
    Scan,
)
from mmrnn.types.quantizer import MatrixDtype, Quantizer
from mmrnn.types.ranks import Alone, Ranks
from mmrnn.types.reset import Resettable, reset_children, reset_layers, reset_module
from mmrnn.types.sample import TAG, ImageSource, InputSource, Sample, SizedImage, SizedInput, Turn
from mmrnn.types.sequence import IGNORE, SLOT, Batch, Sequence
from mmrnn.types.span import Span
from mmrnn.types.state import State, StateOrigin
from mmrnn.types.state_rows import ANY_SEGMENT, PADDING_SEGMENT
from mmrnn.types.text_connector import TextConnector
from mmrnn.types.tiling import Tiling
from mmrnn.types.training import Optimizer, OptimizerFactory, Schedule, Strategy, Tracker, TrainingStage
from mmrnn.types.traits import BackboneTraits

__all__ = [
    "ANY_SEGMENT",
    "IGNORE",
    "PADDING_SEGMENT",
    "SLOT",
    "TAG",
    "Adapter",
    "Alone",
    "Backbone",
    "BackboneTraits",
    "Batch",
    "Batching",
    "BlockHooks",
    "Bounds",
    "ChecksKnobs",
    "Composite",
    "Connector",
    "Constraint",
    "Embedder",
    "Encoder",
    "Expert",
    "FiniteFloat",
    "Fraction",
    "Hook",
    "ImageSource",
    "ImageSpan",
    "ImageSpec",
    "InputSource",
    "Layout",
    "MapDataset",
    "Mask",
    "Matcher",
    "MatrixDtype",
    "ModalitySpec",
    "NonNegativeFloat",
    "NonNegativeInt",
    "Objective",
    "Optimizer",
    "OptimizerFactory",
    "Output",
    "Position",
    "PositiveFloat",
    "PositiveInt",
    "Probability",
    "Prompt",
    "Quantizer",
    "Ranks",
    "Resettable",
    "Routing",
    "Sample",
    "Scan",
    "Schedule",
    "Seed",
    "Sequence",
    "SizedImage",
    "SizedInput",
    "Span",
    "State",
    "StateOrigin",
    "StepPlan",
    "StepSpec",
    "Strategy",
    "StreamDataset",
    "TextConnector",
    "Tiling",
    "Tokenizer",
    "Tracker",
    "TrainingStage",
    "Turn",
    "fulfils",
    "implements",
    "reset_children",
    "reset_layers",
    "reset_module",
]
