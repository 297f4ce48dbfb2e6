"""Training: objectives, stages, optimizers, schedules, the loop, and the folder of a run."""

from mmrnn.training.objectives.blip2 import BLIP2Pretraining
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.training.objectives.patch_alignment import PatchAlignment
from mmrnn.training.objectives.weighted_sum import WeightedSum
from mmrnn.training.optim.adamw import AdamW
from mmrnn.training.optim.adamw8bit import AdamW8bit
from mmrnn.training.optim.muon import MuonWithAdamW
from mmrnn.training.optim.schedule import WSD, Constant, Cosine, Linear
from mmrnn.training.stage import Stage

__all__ = [
    "WSD",
    "AdamW",
    "AdamW8bit",
    "BLIP2Pretraining",
    "Constant",
    "Cosine",
    "LanguageModel",
    "Linear",
    "MuonWithAdamW",
    "PatchAlignment",
    "Stage",
    "WeightedSum",
]
