"""How models learn: stages, objectives, adapters, schedules, the loop, and what a run leaves on disk."""

from mmrnn.training.objectives.blip2 import BLIP2Pretraining
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.training.objectives.patch_alignment import PatchAlignment
from mmrnn.training.objectives.weighted_sum import WeightedSum
from mmrnn.training.stage import Stage

__all__ = [
    "BLIP2Pretraining",
    "LanguageModel",
    "PatchAlignment",
    "Stage",
    "WeightedSum",
]
