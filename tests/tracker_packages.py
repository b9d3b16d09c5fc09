"""Stand-ins for the packages of trackers, with as much of their manners as ours rely on: `import tracker_packages`.

What each does was read in the sources of wandb 0.31, mlflow 3.17 and trackio 0.43.
"""

from __future__ import annotations

import re
import types
from contextvars import ContextVar
from typing import Any

Points = list[tuple[int, dict[str, float]]]


class Kept:
    """What a package has on its server: configs and points by name of the run."""

    def __init__(self) -> None:
        self.configs: dict[str, dict[str, Any]] = {}
        self.points: dict[str, Points] = {}
        self.projects: set[str] = set()
        self.over: list[str] = []  # in the order of finishing


class _Run:
    def __init__(self, kept: Kept, name: str) -> None:
        self.kept, self.name, self.done = kept, name, False

    def log(self, metrics: dict[str, float], step: int) -> None:
        assert not self.done, "a finished run takes no more"
        self.kept.points.setdefault(self.name, []).append((step, metrics))

    def finish(self) -> None:
        self.done = True
        self.kept.over.append(self.name)


def wandb(kept: Kept) -> types.ModuleType:
    """A second `init` returns the first run unless told to create another; an id that is known needs `resume`."""
    module, active, ids = types.ModuleType("wandb"), list[_Run](), dict[str, str]()

    def settings(**given: Any) -> dict[str, Any]:
        return given

    def init(
        project: str, name: str, id: str, config: dict[str, Any], resume: str, reinit: str, settings: dict[str, Any]
    ) -> _Run:
        assert settings["console"] == "off"
        if active and not active[-1].done and reinit != "create_new":
            return active[-1]
        assert id not in ids or resume == "allow"
        ids[id] = name
        kept.projects.add(project)
        kept.configs[name] = config
        active.append(_Run(kept, name))
        return active[-1]

    vars(module).update(init=init, Settings=settings)
    return module


def trackio(kept: Kept) -> types.ModuleType:
    """An `init` finishes the run of its context; a run whose name is known is a new one unless resumed."""
    module = types.ModuleType("trackio")
    current: ContextVar[_Run | None] = ContextVar("current", default=None)

    def init(
        project: str, name: str, config: dict[str, Any], resume: str, embed: bool, auto_log_gpu: bool,
        auto_log_cpu: bool,
    ) -> _Run:  # fmt: skip
        before = current.get()
        if before is not None:
            before.finish()
        if resume == "never" and name in kept.configs:
            name = f"{name}-again"
        kept.projects.add(project)
        kept.configs[name] = config
        made = _Run(kept, name)
        current.set(made)
        return made

    vars(module).update(init=init)
    return module


def mlflow(kept: Kept) -> types.ModuleType:
    """Parameters cannot be written twice with another value, and names have few signs."""
    module = types.ModuleType("mlflow")
    tags: dict[str, dict[str, str]] = {}

    def check(name: str) -> None:
        assert re.fullmatch(r"[/\w.\- :]*", name), name

    class Client:
        def get_experiment_by_name(self, name: str) -> Any:
            return types.SimpleNamespace(experiment_id=f"id of {name}") if name in kept.projects else None

        def create_experiment(self, name: str) -> str:
            assert name not in kept.projects
            kept.projects.add(name)
            return f"id of {name}"

        def search_runs(self, experiments: list[str], wanted: str, max_results: int) -> list[Any]:
            tag, value = re.fullmatch(r"tags\.`(.*)` = '(.*)'", wanted).groups()  # type: ignore[union-attr]
            found = [name for name, own in tags.items() if own[tag] == value]
            return [types.SimpleNamespace(info=types.SimpleNamespace(run_id=name)) for name in found[:max_results]]

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            return self._made(run_name, tags)

        def _made(self, name: str, own: dict[str, str]) -> Any:
            run = name if name not in tags else f"{name} {len(tags)}"  # two runs may have one name
            tags[run], kept.configs[run] = own, {}
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run))

        def update_run(self, run: str, status: str) -> None:
            assert status == "RUNNING"

        def log_param(self, run: str, name: str, value: Any) -> None:
            check(name)
            assert kept.configs[run].setdefault(name, value) == value

        def log_batch(self, run: str, metrics: list[Any]) -> None:
            for each in metrics:
                check(each.key)
            (step,) = {each.step for each in metrics}
            kept.points.setdefault(run, []).append((step, {each.key: each.value for each in metrics}))

        def set_terminated(self, run: str) -> None:
            kept.over.append(run)

    def metric(key: str, value: float, timestamp: int, step: int) -> Any:
        return types.SimpleNamespace(key=key, value=value, step=step)

    vars(module).update(MlflowClient=Client, entities=types.SimpleNamespace(Metric=metric))
    return module


PACKAGES = {"wandb": wandb, "trackio": trackio, "mlflow": mlflow}
