"""What whoever runs a job is told to measure, without a scheduler: `import table_jobs`."""

from __future__ import annotations

import json
from typing import Any

from paretune.benchmark.measurements import load_measurement
from paretune.benchmark.measuring import measure
from paretune.benchmark.planned import Plan, PlannedTable
from paretune.benchmark.work import Work
from paretune.executors.jobs import quiet_link


def payloads(made: Plan, *measurements: str) -> list[dict[str, Any]]:
    """Return the payloads of the tables of some measurements, in their order."""
    return [_payload(made, each) for name in measurements for each in made.tables if each.table.measurement == name]


def _payload(made: Plan, planned: PlannedTable) -> dict[str, Any]:
    cells = {cell.name: cell for cell in made.cells}
    cell = cells[planned.table.cells[0]] if planned.table.cells else None
    job = Work(made, print)._table_job(planned, cell, load_measurement(planned.table.measurement)).job
    return json.loads(json.dumps(job.payload))  # type: ignore[no-any-return]  # a payload is a mapping


def measured(made: Plan, *measurements: str) -> None:
    """Run the measurements here."""
    for payload in payloads(made, *measurements):
        measure(payload, quiet_link())
