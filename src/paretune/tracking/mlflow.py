"""MLflow; `MLFLOW_TRACKING_URI` says where to."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from paretune.tracking import TrackedRun, needed

REFUSED = re.compile(r"[^/\w. :-]")  # in names of metrics and parameters
TAG = "paretune.run"  # holds the key of a run, by which it is found again


class MlflowTracker:
    """Writes runs of the experiment that is called as the project."""

    def __init__(self) -> None:
        self._mlflow: Any = needed("mlflow", "mlflow")

    def start(self, run: TrackedRun) -> None:
        """Create a run with its settings, or go on with the one that has its key."""
        self._client = self._mlflow.MlflowClient()  # the fluent functions know one run a thread
        known = self._client.get_experiment_by_name(run.project)
        experiment = self._client.create_experiment(run.project) if known is None else known.experiment_id
        found = self._client.search_runs([experiment], f"tags.`{TAG}` = '{run.key}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        self._id = self._client.create_run(experiment, run_name=run.name, tags={TAG: run.key}).info.run_id
        for name, value in run.config.items():
            self._client.log_param(self._id, REFUSED.sub("_", name), value)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the numbers of an update."""
        now, kind = round(time.time() * 1000), self._mlflow.entities.Metric
        told = [kind(REFUSED.sub("_", name), value, now, step) for name, value in metrics.items()]
        self._client.log_batch(self._id, told)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._id)
