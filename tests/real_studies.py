"""Real studies in the process of a test, without what takes most of their seconds: `import real_studies`."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paretune.benchmark.measurements import MEASUREMENTS
from paretune.executors.in_process import InProcess


@contextmanager
def in_this_process(timed: bool = False, drawn: Collection[str] = ()) -> Iterator[None]:
    """Run the jobs of studies in this process, which has imported torch, and on its CPU.

    Studies are not timed, and their reports have no static figures: either takes longer than all that most tests ask
    of a study. tests/report draws figures, tests/benchmark/measurements/test_timing.py times policies of every kind.

    Args:
        timed: Whether studies are timed after all.
        drawn: Names of figures that are drawn after all.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretune.benchmark.runner.LocalProcesses", lambda folder, threads: InProcess(1))
        patch.setattr("paretune.models.loading.default_device", lambda: "cpu")
        without_figures(patch, drawn)
        if not timed:
            patch.delitem(MEASUREMENTS, "timing")
        yield
    from paretune.models.loading import unwrap_all

    unwrap_all()  # the last policies that were evaluated wrap their base model, which the next test may load


def without_figures(patch: pytest.MonkeyPatch, drawn: Collection[str] = ()) -> None:
    """Leave the static figures out of reports that are written in this process, but for those of some names."""
    from paretune.report import static

    write = static.write_charts
    patch.setattr(static, "write_charts", lambda charts, to: write([each for each in charts if each[0] in drawn], to))


def of_all_workers(factory: pytest.TempPathFactory) -> Path:
    """Return a folder that all workers of this test run share."""
    folder = factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
