"""LoRA: low-rank adapters of linear layers."""

from torch import nn

from mmrnn.io.optional import require
from mmrnn.layers.quantized import QuantizedLinear
from mmrnn.model.vlm import VLM
from mmrnn.types import Adapter, Fraction, PositiveFloat, PositiveInt, reset_layers


class LoRA(Adapter):
    """Low-rank adapters of linear layers of the backbone (arXiv 2106.09685), inserted by `peft`.

    The names of their parameters contain `lora_`: `stage.*.train=[connector,"*lora_*"]` trains them and freezes the
    backbone.

    Args:
        rank: of the adapters.
        alpha: the adapters' output is scaled by alpha / rank.
        dropout: of the adapters' input.
        targets: ends of the names of the linear layers that get one.

    Raises:
        ValueError: rank is below 1.
    """

    def __init__(
        self,
        *,
        rank: PositiveInt = 64,
        alpha: PositiveFloat = 16.0,
        dropout: Fraction = 0.05,
        targets: tuple[str, ...] = ("query", "value"),
    ):
        if rank < 1:
            raise ValueError(f"rank ({rank}) must be at least 1")
        self.rank, self.alpha, self.dropout, self.targets = rank, alpha, dropout, list(targets)

    def __call__(self, model: VLM) -> None:
        """Insert the adapters. They are initialised to zero, so that the model computes the same as before.

        Raises:
            ValueError: no linear layer of the backbone ends in one of the targets.
        """
        names = [name for name, module in model.backbone.named_modules() if isinstance(module, nn.Linear)]
        for target in self.targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                ends = ", ".join(sorted({name.rpartition(".")[2] for name in names}))
                raise ValueError(f"targets ({target!r}) matches no linear layer of the backbone; it has {ends}")
        peft = require("peft", "peft", wanted_by="adapter=lora", extra="hf")
        config = peft.LoraConfig(
            r=self.rank, lora_alpha=self.alpha, lora_dropout=self.dropout, target_modules=self.targets
        )
        peft.inject_adapter_in_model(config, model.backbone)

    def reset(self, model: VLM) -> None:
        """Initialise the adapters of a model in place, from the same random numbers as when they were inserted."""
        peft = require("peft", "peft", wanted_by="adapter=lora", extra="hf")
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                for name in module.lora_A:
                    reset_layers(module.lora_A[name])
                    reset_layers(module.lora_B[name])
                    module.reset_lora_parameters(name, True)

    def merge(self, model: VLM) -> None:
        """Add the products of the adapters to the weights of their layers, and remove the adapters.

        Raises:
            ValueError: a layer holds codes in place of weights.
        """
        peft = require("peft", "peft", wanted_by="adapter=lora", extra="hf")
        for name, module in list(model.named_modules()):
            if isinstance(module, peft.tuners.lora.LoraLayer):
                if isinstance(module.get_base_layer(), QuantizedLinear):
                    raise ValueError(
                        f"{name} is quantised, and a LoRA is added to weights: merge it before the model is quantised, "
                        "or compute the weights by quantize=none"
                    )
                module.merge(safe_merge=True)
                model.set_submodule(name, module.get_base_layer())
