"""How models learn: stages, objectives, schedules, the loop, and what a run leaves on disk."""

from mmrnn.training.adapters import LoRA
from mmrnn.training.objectives import LanguageModel
from mmrnn.training.stage import Stage

__all__ = ["LanguageModel", "LoRA", "Stage"]
