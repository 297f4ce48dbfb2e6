"""Parameter groups: by kind of matrix, by learning rate, by weight decay."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmrnn.model.parameter_names import fits, layer_distance
from mmrnn.model.vlm import VLM


def param_groups(
    model: VLM, *, lr_mult: Mapping[str, float], layer_lr_decay: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Group the parameters that require gradients, as the contract `mmrnn.types.Optimizer` describes it.

    Args:
        model: the model, with the parameters of the objective inside.
        lr_mult: see `Stage`.
        layer_lr_decay: see `Stage`.

    Raises:
        ValueError: a part of `layer_lr_decay` has no numbered layers.
    """
    hidden = hidden_matrices(model)
    factors = lr_multipliers([name for name, _ in model.named_parameters()], lr_mult, layer_lr_decay)
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = parameter in hidden, factors[name], sum(size > 1 for size in parameter.shape) >= 2
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": found, "hidden": inner, "lr_mult": factor, "decays": decays}
        | ({} if decays else {"weight_decay": 0.0})
        for (inner, factor, decays), found in sorted(groups.items(), key=lambda one: (-one[0][1], not one[0][2]))
    ]


def hidden_matrices(model: VLM) -> set[nn.Parameter]:
    """Weights of linear layers between features; not of the head, whose rows belong to tokens."""
    linears = (module for module in model.modules() if isinstance(module, nn.Linear))
    return {module.weight for module in linears if module.out_features != model.backbone.vocab}


def lr_multipliers(
    names: Sequence[str], lr_mult: Mapping[str, float], layer_lr_decay: Mapping[str, float]
) -> dict[str, float]:
    """Factor of the learning rate of every parameter, by its name.

    Raises:
        ValueError: a part of `layer_lr_decay` has no numbered layers.
    """
    factors = {name: next((by for known, by in lr_mult.items() if fits(name, known)), 1.0) for name in names}
    for pattern, decay in layer_lr_decay.items():
        for name, above in layer_distance([name for name in names if fits(name, pattern)], pattern).items():
            factors[name] *= decay**above
    return factors
