"""TensorBoard: event files in the folder of the study."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paretune.tracking import TrackedRun, needed

FLUSH_SECONDS = 5  # what a kill can lose; by default two minutes


class TensorBoardTracker:
    """Writes `tensorboard/<run>/` below the folder of the run, one more file each time it is gone on with."""

    def __init__(self) -> None:
        needed("tensorboard", "tensorboard")  # torch's own message names no extra
        self._writer_class: Any = needed("torch.utils.tensorboard", "tensorboard").SummaryWriter

    def start(self, run: TrackedRun) -> None:
        """Open a file, and show what the run is as a text."""
        self._writer = self._writer_class(str(run.folder / "tensorboard" / run.name), flush_secs=FLUSH_SECONDS)
        rows = "".join(f"| {name} | {json.dumps(value)} |\n" for name, value in run.config.items())
        self._writer.add_text("config", f"| setting | value |\n| --- | --- |\n{rows}")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write the numbers of an update."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()
