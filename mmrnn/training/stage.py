"""A stage of training: which parameters are trained, for how many steps, at which learning rate."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from mmrnn.model.parameter_names import fits, matches, part_of
from mmrnn.types import NonNegativeFloat, OptimizerFactory, PositiveFloat, PositiveInt, Schedule, TrainingStage


@dataclass(frozen=True, kw_only=True)
class Stage(TrainingStage):
    """One stage. Everything that `train` does not name is frozen and in evaluation mode.

    Attributes:
        train: parts (`connector`, `backbone`, `encoder`) or globs of parameter names.
        freeze: globs of parameters that stay frozen nevertheless (VisualRWKV v6: `backbone.embedding.*`).
        steps: optimizer steps.
        batch_size: samples per step.
        grad_accum_steps: micro-batches per step, to save memory.
        lr: the highest learning rate.
        lr_mult: parts or globs -> factor of their learning rate; the first that fits counts.
        layer_lr_decay: parts or globs -> factor of the learning rate from each layer to the one below (Qwen-VL: 0.95).
            What precedes the first layer counts as one more layer; what follows the last has the full rate.
        max_grad_norm: gradients are clipped to this norm; 0: never.
        optimizer: None: that of the run.
        schedule: None: that of the run.
    """

    train: tuple[str, ...] = ("connector", "backbone")
    freeze: tuple[str, ...] = ()
    steps: PositiveInt = 1000
    batch_size: PositiveInt = 32
    grad_accum_steps: PositiveInt = 1
    lr: PositiveFloat = 1e-3
    lr_mult: Mapping[str, NonNegativeFloat] = field(default_factory=dict)
    layer_lr_decay: Mapping[str, PositiveFloat] = field(default_factory=dict)
    max_grad_norm: NonNegativeFloat = 1.0
    optimizer: OptimizerFactory | None = None
    schedule: Schedule | None = None

    def __post_init__(self):
        for name in ("steps", "batch_size", "grad_accum_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of grad_accum_steps ({self.grad_accum_steps})"
            )

    def trains(self, name: str) -> bool:
        """True for the name of a parameter that this stage trains."""
        return matches(name, self.train) and not matches(name, self.freeze)

    def apply_freezing(self, model: nn.Module) -> list[str]:
        """Set `requires_grad`, and training or evaluation mode, of every part of a model.

        Returns:
            Names of the trained parameters.

        Raises:
            ValueError: a pattern fits no parameter, or nothing is trained.
        """
        names = [name for name, _ in model.named_parameters()]
        for pattern in (*self.train, *self.freeze, *self.lr_mult, *self.layer_lr_decay):
            if not any(fits(name, pattern) for name in names):
                parts = ", ".join(sorted({part_of(name) for name in names}))
                raise ValueError(
                    f"stage: {pattern!r} fits no parameter; parts are {parts}, and globs of names work too"
                )
        trained = [name for name in names if self.trains(name)]
        if not trained:
            raise ValueError(f"stage: train={list(self.train)} and freeze={list(self.freeze)} leave nothing to train")
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trains(name))
        model.train()
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        return trained
