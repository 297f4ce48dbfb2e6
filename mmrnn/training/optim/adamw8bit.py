"""AdamW with moments of 8 bits."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

from mmrnn.io.optional import require
from mmrnn.training.optim.optimizer_group import OptimizerGroup
from mmrnn.types import ChecksKnobs, Fraction, NonNegativeFloat, PositiveFloat


class AdamW8bit(OptimizerGroup, ChecksKnobs):
    """AdamW of bitsandbytes, with moments of 8 bits in blocks of 256 (Dettmers et al. 2021, arXiv:2110.02861).

    Moments take 2 bytes a parameter in place of 8; tensors below 4096 entries keep 32 bits.

    Raises:
        ImportError: bitsandbytes is not installed.
        ValueError: the parameters are sharded.
    """

    def __init__(
        self,
        groups: list[dict[str, Any]],
        lr: float,
        *,
        betas: tuple[Fraction, Fraction] = (0.9, 0.99),
        eps: PositiveFloat = 1e-8,
        weight_decay: NonNegativeFloat = 0.0,
        weight_decay_final: NonNegativeFloat | None = None,
    ) -> None:
        package = require("bitsandbytes", "bitsandbytes", wanted_by="optimizer=adamw8bit", extra="bitsandbytes")
        from torch.distributed.tensor import DTensor

        if any(isinstance(parameter, DTensor) for group in groups for parameter in group["params"]):
            raise ValueError(
                "optimizer=adamw8bit updates whole parameters, and strategy=fsdp shards them; "
                "choose strategy=ddp or optimizer=adamw"
            )
        super().__init__(package.optim.AdamW8bit(groups, lr, betas=betas, eps=eps, weight_decay=weight_decay))
        self.weight_decay, self.weight_decay_final = weight_decay, weight_decay_final

    @classmethod
    def knob_faults(cls, knobs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield the package where it is missing."""
        if find_spec("bitsandbytes") is None:
            yield "_target_", "needs the package bitsandbytes: pip install 'mmrnn[bitsandbytes]'"
