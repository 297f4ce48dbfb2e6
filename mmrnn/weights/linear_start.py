"""Initial values with which a mixer that was attention begins as linear attention."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmrnn.backbones.hybrid import GatedDeltaNet
from mmrnn.backbones.rwkv5 import TimeMix5
from mmrnn.backbones.rwkv6 import TimeMix6
from mmrnn.backbones.rwkv7 import TimeMix7

SLOW = 0.001
"""Logarithm by which the state of a gated delta rule decays at each position."""

NO_RESIDUAL = -4.0
"""Logit of the share of the first layer's values in those of a layer of RWKV-7: 1.8 %."""


def start_values(mixer: nn.Module) -> dict[str, Tensor]:
    """Return the values of a mixer's parameters that let it begin as linear attention with its own decays.

    A token shift or a short convolution takes the current token alone; in RWKV-7 the gate is 1, and hardly anything of
    the values of the first layer is mixed in. A gated delta rule writes half of a value and forgets hardly anything
    (InfiniteVL). Other decays, bonus, norm and the weights between features are not among them.

    Args:
        mixer: perhaps on the meta device; of one that needs none, as it attends, there are no values.
    """
    return next((values(mixer) for kind, values in STARTS.items() if isinstance(mixer, kind)), {})


def _rwkv5(mixer: TimeMix5) -> dict[str, Tensor]:
    return {f"lerp_{name}": torch.ones(_like(mixer, f"lerp_{name}")) for name in mixer.mixtures}


def _rwkv6(mixer: TimeMix6) -> dict[str, Tensor]:
    shifts = {f"lerp_{name}": torch.zeros(_like(mixer, f"lerp_{name}")) for name in "xwkvrg"}
    return shifts | {"lerp_down": torch.zeros(_like(mixer, "lerp_down"))}


def _rwkv7(mixer: TimeMix7) -> dict[str, Tensor]:
    values = {f"lerp_{name}": torch.zeros(_like(mixer, f"lerp_{name}")) for name in "rwkvag"}
    values["gate_down"] = torch.zeros(_like(mixer, "gate_down"))
    values["gate_up"] = _unit_gate(_like(mixer, "gate_up"))
    if not mixer.first_layer:
        values["residual"] = torch.full(_like(mixer, "residual"), NO_RESIDUAL)
        values["residual_down"] = torch.zeros(_like(mixer, "residual_down"))
    return values


def _delta(mixer: GatedDeltaNet) -> dict[str, Tensor]:
    current = torch.zeros(_like(mixer, "conv.weight"))
    current[..., -1] = 1
    step = math.log(math.expm1(SLOW))  # of which softplus is SLOW
    return {
        "conv.weight": current,
        "rate.weight": torch.zeros(_like(mixer, "rate.weight")),
        "decay.weight": torch.zeros(_like(mixer, "decay.weight")),
        "decay_bias": torch.full(_like(mixer, "decay_bias"), step),
        "decay_log": torch.zeros(_like(mixer, "decay_log")),
    }


def _unit_gate(shape: torch.Size) -> Tensor:
    """Upper matrix of the gate, by which it is 1 for an input of 0: sigmoid(0) times the sum over each column.

    Its own random numbers make the ranks differ, the same in every process.
    """
    noise = 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return noise - noise.mean(0) + 2 / shape[0]


def _like(mixer: nn.Module, name: str) -> torch.Size:
    return mixer.get_parameter(name).shape


STARTS: dict[type[nn.Module], Callable[..., dict[str, Tensor]]] = {
    TimeMix5: _rwkv5,
    TimeMix6: _rwkv6,
    TimeMix7: _rwkv7,
    GatedDeltaNet: _delta,
}
"""Class of a mixer -> its values."""
