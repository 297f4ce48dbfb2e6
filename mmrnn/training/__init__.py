"""Training: objectives, stages, optimizers, schedules, the loop, and the folder of a run."""

from mmrnn.training.objectives.blip2 import BLIP2Pretraining
from mmrnn.training.objectives.classification import Classification
from mmrnn.training.objectives.contrastive import Contrastive
from mmrnn.training.objectives.distillation import Distillation
from mmrnn.training.objectives.language_model import LanguageModel
from mmrnn.training.objectives.patch_alignment import PatchAlignment
from mmrnn.training.objectives.weighted_sum import WeightedSum
from mmrnn.training.optim.adamw import AdamW
from mmrnn.training.optim.adamw8bit import AdamW8bit
from mmrnn.training.optim.muon import MuonWithAdamW
from mmrnn.training.optim.schedule import WSD, Constant, Cosine, Linear
from mmrnn.training.stage import Stage
from mmrnn.training.trackers.choice import AutoTracker, NoTracker, SeveralTrackers
from mmrnn.training.trackers.mlflow_tracker import MLflow
from mmrnn.training.trackers.tensorboard_tracker import TensorBoard
from mmrnn.training.trackers.trackio_tracker import Trackio
from mmrnn.training.trackers.wandb_tracker import WandB

__all__ = [
    "WSD",
    "AdamW",
    "AdamW8bit",
    "AutoTracker",
    "BLIP2Pretraining",
    "Classification",
    "Constant",
    "Contrastive",
    "Cosine",
    "Distillation",
    "LanguageModel",
    "Linear",
    "MLflow",
    "MuonWithAdamW",
    "NoTracker",
    "PatchAlignment",
    "SeveralTrackers",
    "Stage",
    "TensorBoard",
    "Trackio",
    "WandB",
    "WeightedSum",
]
