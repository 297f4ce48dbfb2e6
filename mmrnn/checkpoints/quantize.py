"""Quantised copies of checkpoints."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mmrnn.checkpoints.convert import require_new
from mmrnn.checkpoints.load import load_model
from mmrnn.checkpoints.save import save
from mmrnn.config.compose import compose_with_choices
from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.config.tree import plain
from mmrnn.config.validate import check
from mmrnn.data.collate import Collator
from mmrnn.layers.quantized import QuantizedLinear
from mmrnn.model.assemble import prefix_errors
from mmrnn.model.vlm import VLM
from mmrnn.types import Batch, MapDataset

GROUP, DATA = "quantize", "data"

MAX_FP32 = 2**13
"""Numbers of a matrix up to which it keeps its type: that is a table of the channels of all heads, such as a decay."""


@dataclass(frozen=True)
class QuantizedSize:
    """Size of a checkpoint before and after.

    Attributes:
        layers: number of quantised layers.
        before: bytes of the tensors of the model.
        after: bytes of the tensors that were written.
    """

    layers: int
    before: int
    after: int


def chooses_quantizer(overrides: Sequence[str]) -> bool:
    """Return True where some of the overrides choose a quantizer or set its knobs."""
    return any(_group(word) == GROUP for word in overrides)


def quantize_checkpoint(
    source: str | Path,
    folder: Path,
    overrides: Sequence[str],
    *,
    dirs: Sequence[str | Path] = (),
    trusted: Collection[str] = (),
) -> QuantizedSize:
    """Write a copy of a checkpoint with codes in place of weights, or with weights in place of codes (`quantize=none`).

    Adapters (LoRA) are merged before. The copy holds all tensors, those in a base included.

    Args:
        source: folder of a run or a model, or `owner/name` on the hub.
        folder: new folder.
        overrides: of the group `quantize`, and of `data` where it is calibrated on other data than that of the run.
        dirs: further folders of cards.
        trusted: packages besides mmrnn whose classes the configuration may name.

    Raises:
        ConfigError: other overrides, the folder has files, there is no checkpoint, or the model cannot be quantised.
        WeightsError: the tensors do not fit the configuration.
        ImportError: torchao is not installed.
    """
    require_new(folder)
    if others := [word for word in overrides if _group(word) not in (GROUP, DATA)]:
        raise ConfigError(f"{others[0]}: the model is that of the checkpoint; only {GROUP} and {DATA} can be chosen")
    composed, choices = compose_with_choices(*overrides, dirs=dirs)
    chosen = plain(composed)
    card = chosen.get(GROUP)
    if card is None:
        raise ConfigError(f"{GROUP}: no card is chosen; set {GROUP}=NAME (`mmrnn list {GROUP}` shows them)")
    check(chosen, trusted=trusted)
    quantizer = instantiate(card, trusted=trusted)
    model = load_model(source, trusted=trusted).eval()
    before = _bytes(model)
    cfg = {**model.config, GROUP: card, "weights": {}}
    if any(_group(word) == DATA for word in overrides):
        cfg[DATA] = chosen[DATA]
    cfg["choices"] = {**(cfg.get("choices") or {}), GROUP: choices.get(GROUP)}
    if quantizer.quantizes and cfg.get("adapter"):
        adapter = instantiate(cfg["adapter"], trusted=trusted)
        prefix_errors("adapter", lambda: adapter.merge(model))
        cfg = adapter.merged_config(cfg)
    batches = calibration_batches(model, cfg, quantizer.calibration_samples, trusted)
    prefix_errors(GROUP, lambda: quantizer(model, batches))
    if quantizer.matrices == "bf16":
        _round_matrices(model)
    save(model, folder, config=cfg)
    layers = sum(isinstance(module, QuantizedLinear) for module in model.modules())
    return QuantizedSize(layers, before, _bytes(model))


def calibration_batches(model: VLM, cfg: Mapping[str, Any], samples: int, trusted: Collection[str]) -> Iterator[Batch]:
    """Yield evenly spaced samples of the data as batches of one, without those that the collator drops.

    Raises:
        ConfigError: the data cannot be read.
    """
    if not samples:
        return
    check(cfg, trusted=trusted, needs=("tokenizer", "prompt", DATA))
    tokenizer, prompt, data = (instantiate(cfg[group], trusted=trusted) for group in ("tokenizer", "prompt", DATA))
    collate = Collator(tokenizer, prompt, dict(model.modalities), max_length=cfg.get("max_length", 1024))
    if isinstance(data, MapDataset):
        count = prefix_errors(DATA, lambda: len(data))
        found = (data[index] for index in range(0, count, max(1, count // samples)))
    else:
        found = iter(data)
    for sample in islice(found, samples):
        if (batch := collate([sample])) is not None:
            yield batch


def _round_matrices(model: nn.Module) -> None:
    """Cast matrices to bf16; norms, biases, decays and other small parameters are more sensitive, and keep theirs."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and parameter.numel() > MAX_FP32 and parameter.dtype == torch.float32:
            parameter.data = parameter.data.bfloat16()


def _bytes(model: nn.Module) -> int:
    return sum({value.data_ptr(): value.nbytes for value in model.state_dict().values()}.values())


def _group(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].partition(".")[0]
