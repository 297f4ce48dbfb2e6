"""Comparison of a configuration with the number of processes, before anything is built."""

from collections.abc import Mapping
from typing import Any

from mmrnn.config.error import ConfigError
from mmrnn.config.instantiate import instantiate
from mmrnn.types import StepSpec


def check_processes(cfg: Mapping[str, Any], size: int) -> None:
    """Compare strategy and batch sizes with the number of processes.

    Args:
        cfg: a checked configuration.
        size: number of processes.

    Raises:
        ConfigError: they do not fit.
    """
    strategy, batching, stages = (
        instantiate(cfg[group], trusted=cfg["trusted"]) for group in ("strategy", "batching", "stage")
    )
    faults = []
    if size > 1 and not strategy.replicates:
        faults.append(f"strategy=single is for one process, and a launcher has started {size}; set strategy=auto")
    if size == 1 and strategy.needs_processes:
        faults.append(
            f"strategy={type(strategy).__name__.lower()} needs several processes: start them with torchrun "
            "--nproc-per-node=N -m mmrnn train ..., or set strategy=auto"
        )
    for name, stage in stages.items():
        try:
            batching.check_sizes(StepSpec(stage.batch_size, stage.grad_accum_steps, size))
        except ValueError as error:
            faults.append(f"stage.{name}.{error}")
    if faults:
        raise ConfigError(*faults)
