"""Stages: the things that are trained or measured once and used by many cells."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from paretune.core.checks import did_you_mean
from paretune.core.digests import KEY_VERSION, digest
from paretune.core.errors import RecordError
from paretune.core.ledger import Ledger
from paretune.core.task import Task
from paretune.core.user_code import loaded_code, references_in

GATE = "gate.safetensors"  # what the artefact of a stage that trains a gate is called, and its file in a solution


@dataclass(frozen=True)
class Stage:
    """One thing trained, searched or measured: an expert, a gate, a selection.

    Attributes:
        kind: Short noun for people: `expert`, `measurement`, `gate`.
        settings: Plain data the run function reads; equal for all members of a population. The code of a user that it
            names as `module:name` is part of what the stage is, as is that of `run`. One whose run function asks for a
            task's `prompt_preferences` has `feedback` among them: then these are part of what the stage is.
        member: Plain data that may differ within a population, such as `objective_weights`. An expert's may hold
            `start`, the seed of its random initial A: experts to be averaged share it, those of a jointly trained bank
            do not. Without it, `seed` is.
        needs: Stages whose results it reads.
        completions: Its budget; charged in full to every cell that uses it.
        enumerated: Completions it reads without sampling, charged to nobody; for an estimate of its time alone.
        seed: Training seed.
        run: `module:function` called as `run(context)`, see `StageContext`.
        version: Raised when the run function's results change.
    """

    kind: str
    run: str
    settings: Mapping[str, object]
    member: Mapping[str, object] = field(default_factory=dict)
    needs: tuple[Stage, ...] = ()
    completions: int = 0
    seed: int = 0
    version: int = 1
    enumerated: int = 0
    _known: dict[int, tuple[Task, str]] = field(default_factory=dict, init=False, repr=False, compare=False)

    def trajectory_key(self, task: Task) -> str:
        """Digest all but the length: equal trajectories are prefixes of one another."""
        if id(task) not in self._known:  # a plan asks for each key dozens of times
            self._known[id(task)] = task, self._trajectory_key(task)
        return self._known[id(task)][1]

    def _trajectory_key(self, task: Task) -> str:
        code = loaded_code(references_in(self.member))
        return digest(
            {
                **self._shape(task),
                "member": dict(self.member),
                **({"member_code": code} if code else {}),
                "seed": self.seed,
                "key_version": KEY_VERSION,
            }
        )

    def key(self, task: Task) -> str:
        """Return the digest that names its folder."""
        return digest({"trajectory": self.trajectory_key(task), "completions": self.completions})

    def shape_key(self, task: Task) -> str:
        """Digest what stages must share to be trained as one population."""
        return digest(self._shape(task))

    def references(self) -> Iterator[str]:
        """Yield the `module:name` of all code that it names."""
        yield self.run
        yield from references_in(self.settings)
        yield from references_in(self.member)

    def _shape(self, task: Task) -> dict[str, object]:
        code = loaded_code([self.run, *references_in(self.settings)])
        return {
            **({"code": code} if code else {}),
            "task": task.training_key(),
            # feedback other than the preference itself depends on what users want of each prompt
            **({"context": task.context_key()} if task.contextual and "feedback" in self.settings else {}),
            "kind": self.kind,
            "run": self.run,
            "version": self.version,
            "settings": dict(self.settings),
            "needs": [need.key(task) for need in self.needs],
        }


class Artefacts(dict[str, Path]):
    """What a stage left, by name; asked for anything else it says what there is."""

    def __init__(self, paths: Mapping[str, Path], stage: str) -> None:
        """Take paths by name, and what the stage is called in messages."""
        super().__init__(paths)
        self._stage = stage

    def __missing__(self, name: str) -> Path:
        got = ", ".join(sorted(self)) or "none at all"
        raise RecordError(
            f"artefact '{name}' must be one that the stage ({self._stage}) left, got {got}."
            f"{did_you_mean(name, self) or ' Let its run function write it to context.artefact(stage, name).'}"
        )


@dataclass(frozen=True)
class StageResult:
    """What a finished stage left on disk.

    Attributes:
        stage: What was asked for.
        key: Its digest.
        folder: Its folder.
        artefacts: What it left for others, name -> file or folder: `adapter`, a PEFT folder, or several of them,
            `experts/000`, `experts/001`, ...; a gate, `gate.safetensors`; whatever else its run function wrote.
        values: Plain data it reports, such as measured scores.
        ledger: What it spent.
        seconds: Wall-clock seconds of its training, its share where it trained in a population.
    """

    stage: Stage
    key: str
    folder: Path
    artefacts: Mapping[str, Path]
    values: Mapping[str, object]
    ledger: Ledger
    seconds: float

    @property
    def adapters(self) -> tuple[Path, ...]:
        """Folders of its PEFT adapters, in the order of their numbers."""
        return tuple(self.artefacts[name] for name in adapter_names(self.artefacts))


class StageContext(Protocol):
    """What a run function is given. It must seal every stage it was given, shorter ones on the way."""

    task: Task
    stages: tuple[Stage, ...]  # of one shape; several lengths of one trajectory may be among them

    def result(self, stage: Stage) -> StageResult:
        """Return the result of a stage that one of `stages` needs."""
        ...

    def given(self, digest: str) -> Path:
        """Return an adapter's folder, or the file of a gate, of the solution set that training goes on from.

        A stage's settings name it by the digest of its content: so its key does not depend on where it lies.
        """
        ...

    def ledger(self, stage: Stage) -> Ledger:
        """Return the ledger of a trajectory; stages that are prefixes of one another share one."""
        ...

    def artefact(self, stage: Stage, name: str) -> Path:
        """Return where to write an artefact of a stage before sealing it: a file, or a folder still to be made.

        What is asked for must be there when the stage is sealed; `StageResult.artefacts` has it then.
        """
        ...

    def seal(self, stage: Stage, values: Mapping[str, object]) -> None:
        """Mark a stage finished, once: all that it leaves is written, and what it spent is what its ledger says now.

        Refused where more completions were sampled than charged, and where its folder holds what is in no artefact.
        """
        ...

    def start_folder(self, stage: Stage) -> Path | None:
        """Return the `checkpoint` folder of the longest finished, shorter stage of the same trajectory, or None."""
        ...

    def end_folder(self, stage: Stage) -> Path:
        """Return the `checkpoint` folder of a stage, for the state that a longer run of its trajectory starts from."""
        ...

    def checkpoint_folder(self) -> Path:
        """Return the folder that survives a kill, for checkpoints of all `stages` together."""
        ...

    def progress(self, completions: int, message: str = "") -> None:
        """Report completions made since the last call; also the place where a stop is noticed."""
        ...

    def log(self, event: Mapping[str, object]) -> None:
        """Append one line to the events of the stages."""
        ...


def adapter_names(artefacts: Iterable[str]) -> list[str]:
    """Return those names of artefacts that are experts, in the order of their numbers.

    Example:
        >>> adapter_names(["gate.safetensors", "experts/001", "experts/000"])
        ['experts/000', 'experts/001']
    """
    found = [name for name in artefacts if name == "adapter" or name.startswith("experts/")]
    return sorted(found, key=lambda name: (len(name), name))  # the thousandth has a digit more


def in_order(stages: Sequence[Stage], task: Task) -> list[Stage]:
    """Return stages and all they need, each once, needs first."""
    ordered: dict[str, Stage] = {}

    def visit(stage: Stage) -> None:
        key = stage.key(task)
        if key in ordered:
            return
        for need in stage.needs:
            visit(need)
        ordered[key] = stage

    for stage in stages:
        visit(stage)
    return list(ordered.values())
