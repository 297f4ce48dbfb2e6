"""Small weights that are trained in place of large ones."""

from torch import nn

from mmrnn.io.optional import require
from mmrnn.model.vlm import VLM


class LoRA:
    """Low-rank additions to projections of the backbone (arXiv 2106.09685), put in by `peft`.

    Their names hold `lora_`: `stage.*.train=[connector,"*lora_*"]` trains them and leaves the backbone as it is.

    Args:
        rank: of what is added.
        alpha: the addition is scaled by alpha / rank.
        targets: ends of the names of the modules that get one.
    """

    def __init__(
        self,
        *,
        rank: int = 64,
        alpha: float = 16.0,
        dropout: float = 0.05,
        targets: tuple[str, ...] = ("query", "value"),
    ):
        if rank < 1:
            raise ValueError(f"rank ({rank}) must be at least 1")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, list(targets)

    def __call__(self, model: VLM) -> None:
        """Put the additions in. They begin at zero, so that the model says what it said.

        Raises:
            ValueError: no linear module of the backbone ends in one of the targets.
        """
        names = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)]
        for target in self.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                ends = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
                raise ValueError(f"targets ({target!r}) fits no projection of the backbone; there are {ends}")
        peft = require("peft", "peft", wanted_by="adapter=lora", extra="hf")
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.targets
        )
        peft.inject_adapter_in_model(config, model.backbone)
