"""Throughput of training steps: tokens and images per second, padding, waiting for data, FLOPs, memory."""

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from mmrnn.bench.data_sheets import GPUS
from mmrnn.config.device_memory import peak_memory
from mmrnn.model.build import build
from mmrnn.training.distributed.world import World
from mmrnn.training.plan import StepCost, step_cost
from mmrnn.training.stage import Stage
from mmrnn.types import IGNORE, Batch

DEVICE_NAMES = {
    "NVIDIA A100-SXM4-40GB": "a100_40g",
    "NVIDIA A100-PCIE-40GB": "a100_40g",
    "NVIDIA A100-SXM4-80GB": "a100_80g",
    "NVIDIA A100 80GB PCIe": "a100_80g",
    "NVIDIA H100 80GB HBM3": "h100_80g",
    "NVIDIA H200": "h200_141g",
    "NVIDIA B200": "b200_180g",
    "NVIDIA L40S": "l40s_48g",
    "NVIDIA GeForce RTX 4090": "rtx4090_24g",
    "NVIDIA GeForce RTX 5090": "rtx5090_32g",
    "AMD Instinct MI300X": "mi300x_192g",
}
"""Names that torch gives to GPUs -> kinds of `plan.GPUS`. Others may be slower ones of a similar name."""


class Meter:
    """Counts what the steps of one process do; a record sums it over all processes.

    Args:
        world: the processes; None: this one alone.
        device: of this process.
        pad: id that fills rows up.
        cost: FLOPs of the model; None: not known.
        peak: FLOPs per second that the device of a process can reach; None: not known.
    """

    def __init__(
        self,
        world: World | None = None,
        device: torch.device | str = "cpu",
        *,
        pad: int = 0,
        cost: StepCost | None = None,
        peak: float | None = None,
    ) -> None:
        self._world, self._device = world or World(), torch.device(device)
        self._pad, self._cost, self._peak = pad, cost, peak
        self._reset()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Context of a step; only time inside counts."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - began

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Context inside a step in which it waits for data."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._waited += time.perf_counter() - began

    def count(self, batches: Sequence[Batch | None], *, samples: int = 0) -> int:
        """Count the micro-batches of a step; None has no samples.

        Args:
            batches: of this process.
            samples: in them.

        Returns:
            Number of positions that are no padding.
        """
        tokens = 0
        for batch in batches:
            if batch is not None:
                self._positions += batch.sequence.ids.numel()
                tokens += real_tokens(batch, self._pad)
                self._inputs.update(span.modality for span in batch.sequence.image_spans)
        self._tokens += tokens
        self._samples += samples
        return tokens

    def record(self) -> dict[str, float]:
        """Return the figures since the last record, of all processes together; all of them must call it.

        - `seconds`: that the steps took.
        - `tokens_per_second`: positions of the backbone, without padding.
        - `samples_per_second`: samples that were trained on.
        - `images_per_second`: inputs of all modalities.
        - `padding`: share of padding in the positions.
        - `data_wait`: share of the time in which the process that waits most waits for data.
        - `tflops`: 10^12 FLOPs per second and process, by the formulas of `mmrnn plan`; absent where they do not apply.
        - `mfu`: share of these in the peak of the device; absent where the peak is not known.
        - `peak_memory_gib`: since the run was started: of the GPU, or resident memory; the largest of a process.
        """
        world = self._world
        flops = self._cost.flops(self._tokens, self._inputs) if self._cost else 0.0
        images = float(self._inputs.total())
        counts = [self._tokens, self._samples, self._positions, images, flops]
        tokens, samples, positions, images, flops = world.sum(counts)
        share = self._waited / max(self._seconds, 1e-9)
        seconds, share, memory = world.max([self._seconds, share, float(peak_memory(self._device))])
        seconds = max(seconds, 1e-9)
        found = {
            "seconds": seconds,
            "tokens_per_second": tokens / seconds,
            "samples_per_second": samples / seconds,
            "images_per_second": images / seconds,
            "padding": 1 - tokens / max(positions, 1),
            "data_wait": share,
        }
        if self._cost:
            rate = flops / seconds / world.size
            found |= {"tflops": rate / 1e12} | ({"mfu": rate / self._peak} if self._peak else {})
        if memory:
            found["peak_memory_gib"] = memory / 2**30
        self._reset()
        return {name: float(f"{value:.4g}") for name, value in found.items()}

    def _reset(self) -> None:
        self._seconds = self._waited = 0.0
        self._tokens = self._samples = self._positions = 0
        self._inputs: Counter[str] = Counter()


def stage_costs(
    cfg: Mapping[str, Any], stages: Mapping[str, Stage], *, cached: Collection[str] = ()
) -> dict[str, StepCost]:
    """Return the FLOPs of the stages of a run, as far as they are known, by its model on the meta device.

    Args:
        cfg: the configuration as plain data.
        stages: by name.
        cached: modalities whose encoders do not run, as their features are cached.
    """
    with torch.random.fork_rng([]), torch.device("meta"):
        model = build({**cfg, "weights": {}}, trusted=cfg["trusted"])
    costs = {name: step_cost(model, stage, cached) for name, stage in stages.items()}
    return {name: cost for name, cost in costs.items() if cost is not None}


def real_tokens(batch: Batch, pad: int) -> int:
    """Return the number of positions in the rows of a batch up to the last one that is no padding."""
    sequence = batch.sequence
    real = sequence.ids != pad
    if sequence.labels is not None:
        real |= sequence.labels != IGNORE
    return int(_length(real).sum())


def _length(real: Tensor) -> Tensor:
    """Positions of each row up to its last True."""
    numbers = torch.arange(1, real.shape[1] + 1, device=real.device)
    return (real * numbers).amax(dim=1)


def peak_flops(device: torch.device) -> float | None:
    """Return the peak of a device in dense bf16 FLOPs per second, as its vendor states it; None: not known."""
    if device.type != "cuda":
        return None
    kind = DEVICE_NAMES.get(torch.cuda.get_device_name(device))
    return GPUS[kind].flops if kind else None
