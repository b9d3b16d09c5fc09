"""Train language models on several objectives at once, judge it honestly, and steer the result per request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paretune.core.version import VERSION

__version__ = VERSION

_PUBLIC = {  # name -> module that defines it; imported on first use, so that `import paretune` stays fast
    "load_task": "paretune.tasks",
    "train": "paretune.training.train",
    "adapt": "paretune.training.continuing",
    "add_objective": "paretune.training.continuing",
    "run": "paretune.benchmark.runner",
    "plan": "paretune.benchmark.plan",
    "probe": "paretune.benchmark.probe",
    "load_solutions": "paretune.models.solutions",
    "load_choice": "paretune.records.choices",
    "Task": "paretune.core.task",
    "Objective": "paretune.core.task",
    "ParetuneError": "paretune.core.errors",
}
__all__ = [
    "Objective",
    "ParetuneError",
    "Task",
    "__version__",
    "adapt",
    "add_objective",
    "load_choice",
    "load_solutions",
    "load_task",
    "plan",
    "probe",
    "run",
    "train",
]

if TYPE_CHECKING:
    from paretune.benchmark.plan import plan
    from paretune.benchmark.probe import probe
    from paretune.benchmark.runner import run
    from paretune.core.errors import ParetuneError
    from paretune.core.task import Objective, Task
    from paretune.models.solutions import load_solutions
    from paretune.records.choices import load_choice
    from paretune.tasks import load_task
    from paretune.training.continuing import adapt, add_objective
    from paretune.training.train import train


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'paretune' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
