"""A stage of training: which parameters learn, for how long, and how fast."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from mmrnn.model.parameter_names import fits, layer_distance, matches, part_of
from mmrnn.model.vlm import VLM
from mmrnn.training.optim.build import Optimizer, hidden_matrices, optimizer
from mmrnn.training.optim.schedule import cosine, geometric


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. Everything that `train` does not name is frozen, and stays in evaluation mode.

    Attributes:
        train: parts (`connector`, `backbone`, `encoder`) or globs of parameter names.
        freeze: globs that stay frozen all the same (VisualRWKV v6 keeps `backbone.embedding.*`).
        lr_mult: parts or globs -> by what their learning rate is multiplied; the first that fits counts.
        layer_lr_decay: parts or globs -> factor of the rate from each of their layers to the one below (Qwen-VL 0.95).
            What lies before the first layer counts as one more, what lies behind the last learns at the full rate.
        steps: optimiser steps.
        batch_size: samples an optimiser step.
        grad_accum_steps: micro-batches that one step is split into, to save memory.
        lr, min_lr: a cosine leads from one to the other.
        warmup: steps of linear growth before.
        muon: the matrices between layers learn by Muon instead of AdamW.
        weight_decay, weight_decay_final: weight decay of the matrices, changed geometrically; None keeps it.
        max_grad_norm: largest norm of the gradient; 0 does not clip.
    """

    train: tuple[str, ...] = ("connector", "backbone")
    freeze: tuple[str, ...] = ()
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    layer_lr_decay: Mapping[str, float] = field(default_factory=dict)
    steps: int = 1000
    batch_size: int = 32
    grad_accum_steps: int = 1
    lr: float = 1e-3
    min_lr: float = 1e-5
    warmup: int = 0
    muon: bool = False
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.0
    weight_decay_final: float | None = None
    max_grad_norm: float = 1.0

    def __post_init__(self):
        for name in ("steps", "batch_size", "grad_accum_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} ({getattr(self, name)}) must be at least 1")
        if self.batch_size % self.grad_accum_steps:
            raise ValueError(
                f"batch_size ({self.batch_size}) must be a multiple of grad_accum_steps ({self.grad_accum_steps})"
            )

    def lr_at(self, step: int) -> float:
        return cosine(step, steps=self.steps, lr=self.lr, min_lr=self.min_lr, warmup=self.warmup)

    def weight_decay_at(self, step: int) -> float:
        final = self.weight_decay if self.weight_decay_final is None else self.weight_decay_final
        return geometric(step, steps=self.steps, start=self.weight_decay, final=final, warmup=self.warmup)

    def trains(self, name: str) -> bool:
        """Whether the parameter of that name learns in this stage."""
        return matches(name, self.train) and not matches(name, self.freeze)

    def apply_freezing(self, model: nn.Module) -> list[str]:
        """Let what the stage trains learn, freeze the rest.

        Returns:
            The names of the parameters that learn.

        Raises:
            ValueError: a pattern fits no parameter, or nothing would learn.
        """
        names = [name for name, _ in model.named_parameters()]
        for pattern in (*self.train, *self.freeze, *self.lr_mult, *self.layer_lr_decay):
            if not any(fits(name, pattern) for name in names):
                parts = ", ".join(sorted({part_of(name) for name in names}))
                raise ValueError(
                    f"stage: {pattern!r} fits no parameter; parts are {parts}, and globs of names work too"
                )
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.trains(name))
        model.train()
        for module in model.modules():
            parameters = list(module.parameters())
            if parameters and not any(parameter.requires_grad for parameter in parameters):
                module.eval()
        learning = [name for name in names if self.trains(name)]
        if not learning:
            raise ValueError(f"stage: train={list(self.train)} and freeze={list(self.freeze)} leave nothing to learn")
        return learning

    def optimizer(self, model: VLM) -> Optimizer:
        """Of what learns: matrices decay, vectors do not, and every group follows the schedule."""
        hidden = hidden_matrices(model) if self.muon else set()
        scales = self.scales([name for name, _ in model.named_parameters()])
        groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                key = parameter in hidden, scales[name], parameter.squeeze().dim() >= 2
                groups.setdefault(key, []).append(parameter)
        adamw, muon = [], []
        for (inner, scale, decays), found in sorted(groups.items(), key=lambda one: (-one[0][1], not one[0][2])):
            group = {
                "params": found,
                "scale": scale,
                "decays": decays,
                "weight_decay": self.weight_decay if decays else 0.0,
            }
            (muon if inner else adamw).append(group)
        return optimizer(adamw, muon, lr=self.lr, betas=self.betas, eps=self.eps)

    def scales(self, names: Sequence[str]) -> dict[str, float]:
        """By what the rate of every parameter is multiplied.

        Raises:
            ValueError: a part of `layer_lr_decay` has no numbered layers.
        """
        found = {name: next((by for known, by in self.lr_mult.items() if fits(name, known)), 1.0) for name in names}
        for pattern, decay in self.layer_lr_decay.items():
            for name, above in layer_distance([name for name in names if fits(name, pattern)], pattern).items():
                found[name] *= decay**above
        return found

    def set_rates(self, optimizer: Optimizer, step: int) -> float:
        """Give every group the rate and the decay of this step; answers with the rate."""
        rate, decay = self.lr_at(step), self.weight_decay_at(step)
        for group in optimizer.param_groups:
            group["lr"] = rate * group["scale"]
            if group["decays"]:
                group["weight_decay"] = decay
        return rate
