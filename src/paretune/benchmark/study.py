"""The study file: which methods are compared on which tasks, with what budget, seeds and preferences."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from paretune.benchmark.built_in import STUDIES_FOLDER, built_in_studies
from paretune.benchmark.measurements import MEASUREMENTS, users_measurement
from paretune.benchmark.study_file import StudyKeys, TuneKeys, validate
from paretune.benchmark.wanted import Wanted, check_wanted, wanted_of
from paretune.core.checks import check_choice, did_you_mean, yaml_line
from paretune.core.errors import ConfigError, ParetuneError, RecordError, VersionError
from paretune.core.feedback import FEEDBACKS
from paretune.core.preferences import FloatArray, add_points, random_preferences
from paretune.core.protocols import FAMILIES
from paretune.core.seeds import FIRST_TUNING_SEED, generator
from paretune.core.settings import Written
from paretune.core.task import Task
from paretune.core.user_folders import look_in
from paretune.methods.entries import MethodEntry, has_setting, method_entry, on_task, with_settings
from paretune.methods.standing import with_standing_rows
from paretune.metrics import load_metric
from paretune.records.layout import lock_path
from paretune.records.reading import read_lock
from paretune.tasks.strict_yaml import Place, read_yaml, to_yaml
from paretune.tracking import load_tracker

COPY = "study.yaml"  # a run's copy of the study file, in the study's folder


@dataclass(frozen=True)
class Part:
    """Some of a study's cells, which one call can run alone.

    Attributes:
        tasks: Names of its tasks.
        seeds: Its seeds.
    """

    tasks: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Tune:
    """A sweep over settings, the same for every method that has them, on instances that are never reported.

    Attributes:
        settings: Name of a setting -> its values; dots name nested settings, `gate.level`.
        instances: Number of tuning instances.
        completions: What each of its cells may use.
        wanted: Preferences that methods are given and scored on.
    """

    settings: Mapping[str, tuple[object, ...]]
    instances: int
    completions: int
    wanted: Wanted

    def points(self, entry: MethodEntry) -> tuple[dict[str, object], ...]:
        """Return the grid over those settings that a method has; values of the setting named last change first.

        Empty for a method that has none.
        """
        mine = {name: values for name, values in self.settings.items() if has_setting(entry.settings, name)}
        return tuple(dict(zip(mine, point, strict=True)) for point in itertools.product(*mine.values())) if mine else ()

    def tunes(self, entry: MethodEntry) -> bool:
        """Whether there is anything to choose for a row of the study: none for what is no method."""
        return entry.method.family in FAMILIES and bool(self.points(entry))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds that name the tuning instances, and train on them."""
        return tuple(range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + self.instances))

    def training_preferences(self, task: Task) -> FloatArray:
        """Return the preferences of the sweep, `[M, K]`."""
        return self.wanted.of(task)

    def plain(self) -> dict[str, object]:
        """Return plain data, every default written out."""
        return {
            **{name: list(values) for name, values in self.settings.items()},
            "instances": self.instances,
            "completions": self.completions,
            "preferences": self.wanted.plain(),
        }


@dataclass(frozen=True)
class Study:
    """A study file, checked and resolved.

    Attributes:
        name: Its name.
        where: The file it was read from, for messages.
        text: The file as given.
        tasks: Its tasks.
        methods: Its methods.
        budgets: Completions per cell.
        seeds: Seeds, each naming a task instance and a training seed.
        wanted: Preferences that methods are given.
        unseen: Number of random preferences that no method is given.
        samples: Completions per test prompt in evaluation.
        prompts: Number of test prompts used; None for all.
        kl_matched: Whether policies are also evaluated at smaller scales of their experts' weights; where completions
            can be listed, they always are.
        workers: Worker processes, or `auto`.
        imports: Folders added to the import path, in worker processes too.
        parts: Name -> the cells that `run --part` runs alone.
        folder: Where relative paths start; None for a built-in study.
        tune: The sweep that chooses settings of the methods; None where they are as given.
        metrics: A user's own metrics, `module:Class`, beside the built-in ones.
        measurements: Those of `ON_REQUEST` that it names, and a user's own, those that its metrics need among them.
        trackers: Names of what training is told to, besides its logs; nothing depends on them.
        rows: Label of a method -> where it lies in the file, for messages.
    """

    name: str
    where: str
    text: str
    tasks: tuple[Task, ...]
    methods: tuple[MethodEntry, ...]
    budgets: tuple[int, ...]
    seeds: tuple[int, ...]
    wanted: Wanted
    unseen: int
    samples: int
    prompts: int | None
    kl_matched: bool
    workers: int | Literal["auto"]
    imports: tuple[str, ...]
    parts: Mapping[str, Part]
    folder: str | None
    tune: Tune | None = None
    metrics: tuple[str, ...] = ()
    measurements: tuple[str, ...] = ()
    trackers: tuple[str, ...] = ()
    rows: Mapping[str, str] = field(default_factory=dict)

    def training_preferences(self, task: Task) -> FloatArray:
        """Return the preferences that methods are given, `[M, K]`."""
        return self.wanted.of(task)

    def preferences(self, task: Task) -> tuple[FloatArray, NDArray[np.bool_]]:
        """Return all preferences evaluated, `[M, K]`, and which of them no method is given, `[M]`.

        The unseen points depend on the task's name alone: more of them keep the first ones.
        """
        given = self.training_preferences(task)
        drawn = random_preferences(len(task.objectives), self.unseen, generator("unseen preferences", task.name))
        points = add_points(given, drawn) if self.unseen else given
        return points, np.arange(len(points)) >= len(given)

    def test_rows(self, task: Task) -> Sequence[Mapping[str, object]]:
        """Return the test prompts it evaluates on."""
        return task.splits["test"][: self.prompts]

    def decoding(self) -> dict[str, object]:
        """Return how evaluation samples: at temperature 1, so that the KL is that of the policy itself."""
        return {"temperature": 1.0, "top_p": 1.0, "samples": self.samples, "prompts": self.prompts}

    def resolved(self) -> dict[str, object]:
        """Return the study as plain data, every default written out."""
        return {
            "name": self.name,
            "tasks": [task.source for task in self.tasks],
            "methods": {entry.label: {"method": entry.source, **entry.kept} for entry in self.methods},
            "learner": self._of_tasks(),
            "budget": {"completions": list(self.budgets)},
            "seeds": list(self.seeds),
            "preferences": {**self.wanted.plain(), "unseen": self.unseen},
            "evaluation": {"samples": self.samples, "prompts": self.prompts, "kl_matched": self.kl_matched},
            "tune": None if self.tune is None else self.tune.plain(),
            "metrics": list(self.metrics),
            "measurements": list(self.measurements),
            "trackers": list(self.trackers),
            "workers": self.workers,
        }

    def _of_tasks(self) -> dict[str, dict[str, dict[str, object]]]:
        """Return, by task and method, the settings that a task has in place of those under `methods`."""
        found: dict[str, dict[str, dict[str, object]]] = {}
        for task in self.tasks:
            for entry in self.methods:
                own = on_task(entry, task).settings
                changed = {name: value for name, value in own.items() if value != entry.settings[name]}
                if changed:
                    found.setdefault(task.name, {})[entry.label] = changed
        return found


def load_study(source: str | Path | Mapping[str, object] | Study) -> Study:
    """Read and check a study.

    Args:
        source: A YAML file, the name of a built-in study, or the same content as a mapping.

    Raises:
        ConfigError: If a key, name or value breaks its rule.
        TaskError: If a task cannot be used.
        VersionError: If the file is a run's copy, and another version of the library wrote it.
    """
    if isinstance(source, Study):
        return source
    if isinstance(source, Mapping):
        data, place, default_name = dict(source), Place("study", Path.cwd()), "study"
        text = to_yaml(data)
    else:
        path = _study_path(source)
        data, place = read_yaml(path)
        text, default_name = path.read_text(encoding="utf-8"), path.stem
        place, default_name = _of_the_original(path, place, default_name)
    named: Any = data.get("methods")
    if isinstance(named, Mapping) and named:
        data = {**data, "methods": with_standing_rows(named, place)}
    file = validate(data, place)
    imports = () if place.folder == STUDIES_FOLDER else (str(place.folder),)
    look_in(*imports)
    tasks = _tasks(file.tasks, place)
    check_wanted(file, tasks, place)
    methods = tuple(
        method_entry(label, value, Written(partial(place.at, "methods", label)))
        for label, value in file.methods.items()
    )
    return Study(
        file.name or default_name, place.name, text, tasks, methods,
        budgets=_distinct(file.budget.completions, place.at("budget", "completions")),
        seeds=_of_one_kind(_distinct(file.seeds, place.at("seeds")), file.tune is not None, place.at("seeds")),
        wanted=wanted_of(file.preferences), unseen=file.preferences.unseen,
        samples=file.evaluation.samples, prompts=file.evaluation.prompts, kl_matched=file.evaluation.kl_matched,
        workers=file.workers, imports=imports, parts=_parts(file, tasks, place), folder=imports[0] if imports else None,
        tune=None if file.tune is None else _tune(file, file.tune, methods, place),
        metrics=tuple(file.metrics), measurements=_measurements(file, place), trackers=_trackers(file, place),
        rows={label: place.at("methods", label) for label in file.methods},
    )  # fmt: skip


def _study_path(source: str | Path) -> Path:
    known = built_in_studies()
    path = Path(source)
    if path.is_file():
        return path
    if str(source) in known:
        return known[str(source)]
    if path.is_dir():
        raise ConfigError(f"study must be a YAML file or a built-in name, got the folder '{source}'. Name the file.")
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"study must be a file that exists, got '{source}'. Check the path.")
    return known[check_choice("study", str(source), known)]


def _of_the_original(path: Path, place: Place, name: str) -> tuple[Place, str]:
    """Return where paths start and the name of a study file; for the copy a run keeps, those of the file it was given.

    Where the lock beside the copy is damaged, its folder tells the name, and paths start there.

    Raises:
        VersionError: If another version of the library wrote the lock.
    """
    if path.name != COPY or not (lock_path(path.parent).exists() or (path.parent / "stages").is_dir()):
        return place, name
    try:
        before = read_lock(path.parent)
    except VersionError:
        raise
    except RecordError:
        return place, path.resolve().parent.name
    folder = before.resolved.get("folder")
    if folder is None or not Path(str(folder)).is_dir():  # a built-in study, or a study folder taken elsewhere
        return place, before.name
    return Place(place.name, Path(str(folder)), place.spots), before.name


def _measurements(file: StudyKeys, place: Place) -> tuple[str, ...]:
    """Check metrics and measurements that are named, and return those of the latter that must be run."""
    found = []
    for key, named in (("measurements", file.measurements), ("metrics", file.metrics)):
        for index, name in enumerate(named):
            try:
                needs = load_metric(name).needs if key == "metrics" else (name,)
                found += [users_measurement(each) for each in needs]
            except ConfigError as error:
                raise type(error)(f"{place.at(key, index)}: {error}") from error
    return tuple(dict.fromkeys(each for each in found if each not in MEASUREMENTS))


def _trackers(file: StudyKeys, place: Place) -> tuple[str, ...]:
    for index, name in enumerate(file.trackers):
        try:
            load_tracker(name)
        except ConfigError as error:
            raise type(error)(f"{place.at('trackers', index)}: {error}") from error
    return tuple(dict.fromkeys(file.trackers))


def _parts(file: StudyKeys, tasks: Sequence[Task], place: Place) -> dict[str, Part]:
    """Check the parts of a study; what a part does not select, it has all of."""
    parts = {}
    for name, selection in file.parts.items():
        chosen = selection.tasks if selection.tasks is not None else [task.name for task in tasks]
        for task in chosen:
            check_choice(place.at("parts", name, "tasks"), task, [each.name for each in tasks])
        seeds = file.seeds if selection.seeds is None else selection.seeds
        for seed in seeds:
            if seed not in file.seeds:
                raise ConfigError(
                    f"{place.at('parts', name, 'seeds')} must be among the study's seeds, got {seed}. Add it there, or "
                    "remove it here."
                )
        parts[name] = Part(tuple(chosen), tuple(seeds))
    return parts


def _tune(file: StudyKeys, tune: TuneKeys, methods: Sequence[MethodEntry], place: Place) -> Tune:
    """Check the sweep of a study against every method that it tunes."""
    settings = tune.model_extra or {}
    if not settings:
        raise ConfigError(f"{place.at('tune')} must name settings of the methods with their values, got none. Add one.")
    for name, values in settings.items():
        if not isinstance(values, list) or not values:
            known = ", ".join(TuneKeys.model_fields)
            guess = did_you_mean(name, TuneKeys.model_fields, partial(yaml_line, value=values))
            raise ConfigError(
                f"{place.at('tune', name)} must be a setting's list of values, got {values!r}."
                f"{guess or f' Write [value, value], or one of the keys {known}.'}"
            )
    made = Tune(
        settings={name: tuple(values) for name, values in settings.items()},
        instances=tune.instances,
        completions=tune.completions or file.budget.completions[0],
        wanted=wanted_of(tune.preferences or file.preferences),
    )
    if "feedback" in made.settings and set(map(str, made.settings["feedback"])) & set(FEEDBACKS):
        raise ConfigError(
            f"{place.at('tune', 'feedback')} must be fixed under methods, got it in the sweep: what is known of users "
            "is no choice of a method, and scores of one class say nothing of another. Make a row of each class."
        )
    tuned = [entry for entry in methods if entry.method.family in FAMILIES]
    if not tuned:
        raise ConfigError(f"{place.at('tune')} must have a method to tune, got none. Remove it.")
    for name in made.settings:
        if not any(has_setting(entry.settings, name) for entry in tuned):
            names = dict.fromkeys(each for entry in tuned for each in entry.settings)
            guess = did_you_mean(name, names, partial(yaml_line, value=settings[name]))
            raise ConfigError(
                f"{place.at('tune', name)} must be a setting of a method that is tuned, got '{name}', which none of "
                f"{', '.join(entry.label for entry in tuned)} has.{guess or ' Remove it.'}"
            )
    for entry in filter(made.tunes, tuned):
        _check_tuned(made, entry, file.methods[entry.label], place)
    return made


def _check_tuned(tune: Tune, entry: MethodEntry, given: Any, place: Place) -> None:
    for name in tune.settings:
        if has_setting(given, name):
            raise ConfigError(
                f"{place.at('tune', name)} must be left to tuning, got it also under methods.{entry.label}. Remove "
                "it in one of the two places."
            )
    seen: list[Mapping[str, object]] = []
    for point in tune.points(entry):
        settings = with_settings(entry, point, f"{place.at('tune')}: methods.{entry.label}").settings
        if settings in seen:
            raise ConfigError(f"{place.at('tune')} must not repeat a value, got {point} twice. Remove one.")
        seen.append(settings)


def _distinct(values: Sequence[int], name: str) -> tuple[int, ...]:
    for value, times in Counter(values).items():
        if times > 1:
            raise ConfigError(f"{name} must not repeat a value, got {value} twice. Remove one.")
    return tuple(values)


def _of_one_kind(seeds: tuple[int, ...], tuned: bool, name: str) -> tuple[int, ...]:
    """Keep instances that settings are chosen on apart from those that results are reported on."""
    tuning = [seed for seed in seeds if seed >= FIRST_TUNING_SEED]
    if tuning and (tuned or len(tuning) < len(seeds)):
        raise ConfigError(
            f"{name} must be below {FIRST_TUNING_SEED}, where instances are for reporting, got {tuning[0]}. A study to "
            f"try settings on takes all its seeds from {FIRST_TUNING_SEED} on, and no tune."
        )
    return seeds


def _tasks(sources: Sequence[Any], place: Place) -> tuple[Task, ...]:
    from paretune.tasks import TASKS, load_task
    from paretune.tasks.checks import check_prompts, plain_encoder

    tasks: list[Task] = []
    for index, source in enumerate(sources):
        where = place.at("tasks", index)
        if not isinstance(source, (str, Mapping)):
            raise ConfigError(f"{where} must be a name, a path, module:name or a mapping, got {source!r}. Correct it.")
        file = place.folder / source if isinstance(source, str) else None
        is_path = file is not None and source not in TASKS and (file.exists() or file.suffix in (".yaml", ".yml"))
        try:
            task = load_task(str(file) if is_path else source)
            encoder = plain_encoder(task.model)
            if not isinstance(encoder, str):  # else training checks them, once it has loaded the model; a plan says so
                check_prompts(task, encoder)
        except ParetuneError as error:
            raise type(error)(f"{where}: {error}") from error
        if any(task.name == other.name for other in tasks):
            raise ConfigError(f"{where} must have a name of its own, got '{task.name}' twice. Rename one.")
        tasks.append(task)
    return tuple(tasks)
