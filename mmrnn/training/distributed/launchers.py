"""Variables by which launchers (torchrun, Slurm) give a process its rank."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from mmrnn.config.error import ConfigError

SLURM_PORTS = 20_000, 20_000
"""First of the ports from which a Slurm job takes one by its number, and their number."""


class Launch(NamedTuple):
    """Place of a process among those that a launcher has started.

    Attributes:
        rank: of the process.
        size: number of processes.
        local_rank: number of the process on its machine.
        address: machine of rank 0; empty: in the variables that torch reads itself.
        port: on that machine.
    """

    rank: int
    size: int
    local_rank: int
    address: str = ""
    port: int = 0


def read_launch(environment: Mapping[str, str]) -> Launch | None:
    """Return the place of this process; None where it was started alone.

    Raises:
        ConfigError: a launcher has started several processes without giving each its rank, or a variable is no number.
    """
    if "RANK" in environment and _number(environment, "WORLD_SIZE") > 1:
        return Launch(
            _number(environment, "RANK"), _number(environment, "WORLD_SIZE"), _number(environment, "LOCAL_RANK")
        )
    if _number(environment, "SLURM_STEP_NUM_TASKS") > 1 and "SLURM_PROCID" in environment:
        return Launch(
            _number(environment, "SLURM_PROCID"),
            _number(environment, "SLURM_STEP_NUM_TASKS"),
            _number(environment, "SLURM_LOCALID"),
            first_host(environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "localhost")),
            SLURM_PORTS[0] + _number(environment, "SLURM_JOB_ID") % SLURM_PORTS[1],
        )
    for name, launcher in {"OMPI_COMM_WORLD_SIZE": "mpirun", "PMI_SIZE": "mpiexec", "WORLD_SIZE": "a launcher"}.items():
        if _number(environment, name) > 1:
            raise ConfigError(
                f"{launcher} has started {environment[name]} processes ({name}), but RANK is not set; start them with "
                "torchrun or srun"
            )
    return None


def first_host(nodes: str) -> str:
    """Return the first machine of a list as Slurm writes it (`gpu[03-05,09],login1`: `gpu03`).

    Raises:
        ConfigError: there is none.
    """
    match = re.match(r"([^,\[]+)(?:\[([^\],-]+)[^\]]*\]([^,\[]*))?", nodes)
    if match is None:
        raise ConfigError(f"SLURM_STEP_NODELIST ({nodes!r}) names no machine")
    return "".join(part or "" for part in match.groups())


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "0")
    if not (value.isascii() and value.isdecimal()):
        raise ConfigError(f"{name} ({value!r}) must be a number; a launcher sets it")
    return int(value)
