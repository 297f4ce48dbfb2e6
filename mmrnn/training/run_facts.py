"""Facts of a finished run beside its answers: versions, machine, throughput, memory, state and data."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mmrnn.config.device import device_name
from mmrnn.config.device_memory import peak_memory
from mmrnn.data.fingerprint import data_fingerprint
from mmrnn.io.versions import commit, library_versions, own_version
from mmrnn.model.state_bytes import state_bytes
from mmrnn.training.build import TrainingParts
from mmrnn.types import MapDataset


def run_facts(
    parts: TrainingParts, splits: Mapping[str, MapDataset], log: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what `result.json` says of a run beside its answers.

    - `version`, `commit` (None: no checkout), `packages`: of the software.
    - `processor`, `processes`, `threads`: of the machine; threads of each process.
    - `tokens`: positions of the backbone that were trained on, without padding.
    - `samples_per_second`: of training; None: nothing was measured.
    - `peak_memory_gib`: of the process that needed most, of the GPU or resident; None: not known.
    - `state_bytes`, `state_bytes_per_token`: of the backbone state of a sample.
    - `data_fingerprint`: of training samples and held-out samples.
    """
    device, [fixed, growing] = parts.device, state_bytes(parts.model.backbone)
    return {
        "version": own_version(),
        "commit": commit(),
        "packages": library_versions(),
        "processor": device_name(device),
        "processes": parts.world.size,
        "threads": torch.get_num_threads(),
        "tokens": sum(record.get("tokens", 0) for record in log),
        "samples_per_second": mean_rate(log, "samples_per_second"),
        "peak_memory_gib": _peak_memory(log, device),
        "state_bytes": fixed,
        "state_bytes_per_token": growing,
        "data_fingerprint": data_fingerprint({"train": parts.data, **splits}),
    }


def mean_rate(log: Sequence[Mapping[str, Any]], name: str) -> float | None:
    """Return the mean of a rate over the measured seconds of all records; None: nothing was measured."""
    measured = [record["measured"] for record in log if name in record.get("measured", {})]
    seconds = sum(one["seconds"] for one in measured)
    return float(f"{sum(one[name] * one['seconds'] for one in measured) / seconds:.4g}") if seconds else None


def _peak_memory(log: Sequence[Mapping[str, Any]], device: torch.device) -> float | None:
    """Largest memory of the records, and of this process until now."""
    found = [record.get("measured", {}).get("peak_memory_gib", 0.0) for record in log]
    return float(f"{max([*found, peak_memory(device) / 2**30]):.4g}") or None
