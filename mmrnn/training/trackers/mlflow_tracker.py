"""MLflow."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmrnn.config.tree import leaves
from mmrnn.io.optional import require
from mmrnn.types import Tracker

TAG = "mmrnn.run"
"""Tag of a run that holds its id; MLflow chooses its own."""

MAX_VALUE = 500
"""Longest text of a parameter that every version of MLflow takes."""

MAX_PARAMETERS = 100
"""Most parameters of one request."""


class MLflow(Tracker):
    """Curves in MLflow; a resumed run continues the same one.

    Raises:
        ImportError: mlflow is not installed.
    """

    def __init__(self, *, experiment: str = "mmrnn", tracking_uri: str | None = None) -> None:
        self._mlflow = require("mlflow", "mlflow", wanted_by="tracker=mlflow", extra="mlflow")
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def start(self, folder: Path, config: Mapping[str, Any], *, id: str, step: int) -> None:
        """Create the run, or find it by its tag."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self.tracking_uri)
        known = self._client.get_experiment_by_name(self.experiment)
        experiment = known.experiment_id if known else self._client.create_experiment(self.experiment)
        found = self._client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{id}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        self._run = self._client.create_run(experiment, run_name=folder.name, tags={TAG: id}).info.run_id
        parameters = [
            self._mlflow.entities.Param(name, str(value)[:MAX_VALUE]) for name, value in leaves(config) if name
        ]
        for first in range(0, len(parameters), MAX_PARAMETERS):
            self._client.log_batch(self._run, params=parameters[first : first + MAX_PARAMETERS])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to every curve, in one request."""
        now = int(time.time() * 1000)
        points = [self._mlflow.entities.Metric(name, float(value), now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=points)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)
