"""How models learn: stages, objectives, adapters, schedules, the loop, and what a run leaves on disk."""

from mmrnn.training.adapters import LoRA
from mmrnn.training.align import Alignment
from mmrnn.training.objectives import LanguageModel, Sum
from mmrnn.training.stage import Stage
from mmrnn.training.stage1 import ContrastMatchGenerate

__all__ = ["Alignment", "ContrastMatchGenerate", "LanguageModel", "LoRA", "Stage", "Sum"]
