"""`launch(script, ranks, *arguments)`: what every rank of a program printed as its last line, read as JSON."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TIMEOUT = 300


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def environment(rank: int, ranks: int, port: int) -> dict[str, str]:
    """Variables that torchrun sets for a rank."""
    one = {"RANK": rank, "WORLD_SIZE": ranks, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    root = HERE.parents[2]
    path = os.pathsep.join([str(root), str(root / "kernels"), *filter(None, [os.environ.get("PYTHONPATH")])])
    alone = {} if ranks == 1 else {name: str(value) for name, value in one.items()}
    return {**os.environ, **alone, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def wait_for_all(processes: list[subprocess.Popen]) -> list[str]:
    """Outputs of all processes; the first that fails ends the others."""
    try:
        outputs = []
        for process in processes:
            output, errors = process.communicate(timeout=TIMEOUT)
            assert process.returncode == 0, errors[-4000:]
            outputs.append(output)
        return outputs
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.fixture
def launch():
    def start(script: str, ranks: int, *arguments: object) -> list:
        port = free_port()
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        processes = [
            subprocess.Popen(
                command,
                env=environment(rank, ranks, port),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(ranks)
        ]
        return [json.loads(output.strip().splitlines()[-1]) for output in wait_for_all(processes)]

    return start
