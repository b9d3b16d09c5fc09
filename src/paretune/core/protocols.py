"""Contracts of the plug-ins: methods, measurements and metrics, and the solution set a method returns."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, dataclass_transform, get_args

from paretune.core.answers import Answer
from paretune.core.checks import check_choice
from paretune.core.digests import digest
from paretune.core.errors import ConfigError, MethodError
from paretune.core.preference_text import PreferenceText
from paretune.core.preferences import FloatArray
from paretune.core.stages import Stage, StageResult
from paretune.core.task import Task

Family = Literal["single-policy", "multi-policy", "meta-policy", "ceiling", "reference"]
CEILING: Family = "ceiling"  # the family of what is no method, but what one could reach
REFERENCE: Family = "reference"  # the family of what is no method, but where all of them start: the base model
FAMILIES: tuple[Family, ...] = (
    "single-policy",
    "multi-policy",
    "meta-policy",
)  # of methods: these are compared, ranked and tuned
Level = Literal["adapters", "hidden", "log_probs", "probabilities"]
Continued = Literal["base", "soup"]
Norm = Literal["before", "after"]
Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon"]
LATER = ("norm", "divergence", "particles", "sets")  # parts of a mixer that are written where they are no default
Made = TypeVar("Made")


@dataclass(frozen=True)
class Mixer:
    """Where experts are mixed, and by what beside the answer's weights.

    Attributes:
        level: `adapters`: their deltas, in every layer; `hidden`: hidden states, which one stream continues;
            `log_probs`: log-probabilities of the next token; `probabilities`: its probabilities.
        block: For `hidden`: number of the block behind which states are mixed, from 0 on, or from the last, -1;
            None is the last.
        continued: For `hidden`: what the one stream behind that block runs under: `base`, no expert, or `soup`, the
            experts' deltas with the same weights.
        norm: For `hidden`, behind the last block: whether states are mixed before the model's final norm or after it.
        divergence: For `log_probs`: what keeps the mixture near the base model; see `models.divergences`.
        particles: For `log_probs` under `reverse_kl`: completions that are sampled for each one returned, of which one
            is drawn by its importance weight; see `models.resampled`. 1 takes each as it is.
        gate: For `adapters`: file of a gate. It reads preference and context, and changes the answer's weights or
            chooses others. It is a network or a bandit.
        sets: For a gate: how many sets of experts there are, one behind the other, each of as many as the gate weighs.
            An answer weighs experts of one set alone, and so does the gate.
    """

    level: Level = "adapters"
    block: int | None = None
    gate: Path | None = None
    continued: Continued = "base"
    norm: Norm = "before"
    divergence: Divergence = "reverse_kl"
    particles: int = 1
    sets: int = 1

    def __post_init__(self) -> None:
        check_choice("level of a mixer", self.level, get_args(Level))
        check_choice("continued of a mixer", self.continued, get_args(Continued))
        check_choice("norm of a mixer", self.norm, get_args(Norm))
        check_choice("divergence of a mixer", self.divergence, get_args(Divergence))
        if self.norm != "before" and not (self.level == "hidden" and self.block in (None, -1)):
            raise ConfigError(
                f"norm of a mixer must be 'before' but at level 'hidden' behind the last block, -1, got '{self.norm}' "
                f"at level '{self.level}', block {self.block}. Name the last block, or leave it out."
            )
        if self.divergence != "reverse_kl" and self.level != "log_probs":
            raise ConfigError(
                f"divergence of a mixer must be named at level 'log_probs' alone, got '{self.divergence}' at level "
                f"'{self.level}'. Leave it out, or mix log-probabilities."
            )
        check_particles(self.particles, 1)
        if self.particles > 1 and (self.level, self.divergence) != ("log_probs", "reverse_kl"):
            raise ConfigError(
                f"particles of a mixer must be 1 but at level 'log_probs' under 'reverse_kl', got {self.particles} at "
                f"level '{self.level}' under '{self.divergence}'. No other product of experts is corrected."
            )
        if self.continued != "base" and self.level != "hidden":
            raise ConfigError(
                f"continued of a mixer must be 'base' but at level 'hidden', got '{self.continued}' at level "
                f"'{self.level}'. Leave it out, or mix hidden states."
            )
        if self.block is not None and self.level != "hidden":
            raise ConfigError(
                f"block of a mixer must be named at level 'hidden' alone, got {self.block} at level '{self.level}'. "
                "Leave it out, or mix hidden states."
            )
        if self.gate is not None and self.level != "adapters":
            raise ConfigError(
                f"gate of a mixer must mix adapters, got one at level '{self.level}'. Leave it out, or mix adapters."
            )
        if self.sets < 1 or (self.sets > 1 and self.gate is None):
            raise ConfigError(
                f"sets of a mixer must be 1 without a gate, and at least 1, got {self.sets}. Leave it out, or name the "
                "gate."
            )

    def plain(self) -> dict[str, object]:
        """Return all but the gate as plain data; what came later only where it is not the default."""
        plain: dict[str, object] = {"level": self.level, "block": self.block, "continued": self.continued}
        later = {name: getattr(self, name) for name in LATER}
        return plain | {name: value for name, value in later.items() if value != getattr(Mixer, name)}


def check_particles(value: object, least: int) -> None:
    """Check a number of completions that are sampled for each one returned.

    Raises:
        ConfigError: If it is no whole number from `least` on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"particles must be a whole number from {least} on, got {value!r}. Try 8.")


@dataclass(frozen=True)
class Assembly:
    """What a method hands over: experts, what answers a preference with them, and how they are mixed.

    `models.solutions.SolutionSet` loads it; this plain form lets methods be planned without torch.

    Attributes:
        experts: Adapter folders, in the order of the answer's experts; a stage may have left any number of them.
        answer: From a preference to expert weights.
        mixer: Where the experts are mixed, and the gate, if there is one.
        notes: Plain data worth keeping, such as the scores a selection was based on.
        preference_text: How a preference is written in front of each prompt, for policies that read it there.
    """

    experts: tuple[Path, ...]
    answer: Answer
    mixer: Mixer = Mixer()
    notes: Mapping[str, object] = field(default_factory=dict)
    preference_text: PreferenceText | None = None


class Method(Protocol):
    """A way to get policies for preferences. Pure and static: nothing is trained by calling these.

    Attributes:
        name: Its name in studies and tables.
        family: How it answers a preference.
        version: Raised when its results change; part of the training key.
        Settings: Frozen dataclass of its settings; a method is made with an instance of it, `Method(Settings())`.
    """

    name: ClassVar[str]
    family: ClassVar[Family]
    version: ClassVar[int]
    Settings: ClassVar[type]
    settings: Any

    def __init__(self, settings: Any) -> None: ...

    def stages(self, task: Task, preferences: FloatArray, budget: int, seed: int) -> tuple[Stage, ...]:
        """Return the stages to finish for a task, wanted preferences `[M, K]`, budget in completions and seed."""
        ...

    def assemble(self, task: Task, preferences: FloatArray, results: Mapping[str, StageResult]) -> Assembly:
        """Answer with the results of all stages, needs included, by `stage.key(task)` and in order."""
        ...


@dataclass_transform()
def method(name: str, family: Family, version: int = 1) -> Callable[[type[Made]], type[Made]]:
    """Give a class the header and the constructor of a `Method`.

    Args:
        name: Its name in studies and tables.
        family: How it answers a preference.
        version: Raised when its results change.

    Returns:
        A decorator for a class that annotates its `settings` with their dataclass, and has `stages` and `assemble`.

    Raises:
        MethodError: If the class does not annotate its settings.

    Example:
        >>> @method("mine", "single-policy")
        ... class Mine:
        ...     settings: Mixer
        >>> Mine.name, Mine.Settings.__name__, Mine(Mixer()).settings.level
        ('mine', 'Mixer', 'adapters')
    """

    def make(cls: type[Made]) -> type[Made]:
        settings = inspect.get_annotations(cls, eval_str=True).get("settings")
        if settings is None:
            raise MethodError(
                f"{cls.__name__} must annotate its settings, got no such line. Write 'settings: ExpertSettings' below "
                "its name, or a dataclass of your own."
            )
        for part, value in (("name", name), ("family", family), ("version", version), ("Settings", settings)):
            setattr(cls, part, value)
        return dataclass(eq=False)(cls)

    return make


@dataclass(frozen=True)
class Table:
    """What a measurement is to leave of one subject: a folder of files, sealed when they are all there.

    Attributes:
        folder: Where it lies in the study's folder, `runs/<cell>/outcomes` for example.
        task: Name of its task.
        seed: Names the task instance.
        depends_on: All that its content depends on, part by part, plain data. A part `rewards`, pairs of an objective
            and its digest, is one that stored completions can be scored again for.
        cells: Names of the cells it can be measured on: the first of them that is evaluated is. None: no cell at all.
        stages: Keys of the stages it waits for, where it is what finishes its cell; None: it waits for its cell.
        completions: How many it takes at most.
        measurement: Name of the measurement, as a study or a metric names it; filled in by what asks it for its jobs.
    """

    folder: str
    task: str
    seed: int
    depends_on: Mapping[str, object]
    cells: tuple[str, ...] = ()
    stages: tuple[str, ...] | None = None
    completions: int = 0
    measurement: str = ""

    @property
    def key(self) -> str:
        """Digest of all that it depends on: a sealed table with another one is not this table."""
        return digest(self.depends_on)


class Measurement(Protocol):
    """Something that is run on finished policies, or on the base model; charged to nobody.

    Attributes:
        name: Its name, and that of its folder in a cell's.
        version: Raised when its results change; of a user's own, the digest of its file counts too.
        alone: Whether nothing else may run meanwhile.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    alone: ClassVar[bool]

    def jobs(self, study: Any, cells: Sequence[Any]) -> Sequence[Table]:
        """Return what there is to measure on `benchmark.planned.PlannedCell`s of a `benchmark.study.Study`."""
        ...

    def run(self, job: Any, link: Any) -> Mapping[str, object] | None:
        """Measure one of them: write its table into `job.folder`, see `benchmark.measuring.TableJob`.

        Returns:
            Plain data to keep in the table's marker, if any.
        """
        ...


@dataclass(frozen=True)
class MetricValue:
    """One number of the judge, or the reason why there is none.

    Attributes:
        value: Mean over seeds, or None when it could not be measured.
        low: Lower end of the 95 % interval; None with fewer than two seeds.
        high: Upper end.
        per_seed: Value of each seed behind it.
        reason: Why `value` (or the interval) is missing; empty when all is there.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    per_seed: Mapping[int, float] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class MetricRow:
    """A metric's value for one method on one task at one budget, with a label where a metric has several parts."""

    task: str
    method: str
    budget_completions: int
    metric: str
    value: MetricValue
    label: str = ""


class Metric(Protocol):
    """A measure of a study, built in or a user's own. Reads records, never runs a model.

    Attributes:
        needs: Measurements it reads, by their names in `benchmark.measurements.MEASUREMENTS` or as `module:Class`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    unit: ClassVar[str]
    higher_is_better: ClassVar[bool]
    needs: ClassVar[tuple[str, ...]]

    def measure(self, study: Any) -> Sequence[MetricRow]:
        """Return rows for every task, method and budget of `records.study.StudyRecords`."""
        ...
