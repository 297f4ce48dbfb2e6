"""A command line whose runs are noted and not trained."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from mmrnn.cli.main import main
from mmrnn.evaluation.reports.run_folder import RESULT, write_failure
from mmrnn.io.lock import FolderInUseError

PLAIN = {"config": {}, "parameters": 1, "seconds": 1.0, "loss": 1.0, "objective": 0.25}
ACCURACY = {"scenes": {"count": {"accuracy": 0.5, "total": 2}, "name": {"accuracy": 1.0, "total": 1}}}


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """A training that notes its calls and writes a result; `runs.faults` are raised in the runs of these seeds."""
    noted = ModuleType("mmrnn.training.run")
    noted.calls, noted.faults = [], {}

    def train(cfg, out: Path, choices, world):
        noted.calls.append((cfg, out))
        if cfg.seed in noted.faults:
            fault = noted.faults[cfg.seed]
            if not isinstance(fault, FolderInUseError):
                write_failure(out, fault)
            raise fault
        result = {**PLAIN, "seed": cfg.seed, "choices": choices, "accuracy": ACCURACY, "packages": {"torch": "2"}}
        (out / RESULT).write_text(json.dumps(result))
        return 0.25

    def seeds():
        """Seeds of the runs since the last call."""
        found = [cfg.seed for cfg, _ in noted.calls]
        noted.calls.clear()
        return found

    noted.train, noted.seeds = train, seeds
    monkeypatch.setitem(sys.modules, "mmrnn.training.run", noted)
    monkeypatch.chdir(tmp_path)
    return noted


@pytest.fixture
def cli(capsys):
    def cli(*words):
        code = main(words)
        out, err = capsys.readouterr()
        return code, out, err

    return cli
