"""What a method returns: experts and what answers any preference with them; saved and loaded as a folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from numpy.typing import ArrayLike

from paretune.core.answers import Answer, answer_from_plain, answer_to_plain, answered
from paretune.core.errors import AdapterError, ConfigError, RecordError
from paretune.core.model_config import check_block
from paretune.core.preference_text import PreferenceText
from paretune.core.preferences import check_preferences, preference_from_mapping
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import LATER, Assembly, Family, Mixer
from paretune.core.stages import GATE
from paretune.core.task import Task
from paretune.core.text_files import parsed_json
from paretune.models.adapters import load_bank
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel
from paretune.models.gate import TrainedGate
from paretune.models.gate_sets import GateOfSets, load_gate_of
from paretune.models.loading import load_base
from paretune.models.policy import Policy
from paretune.models.resampled import policy_class
from paretune.records.files import DONE, check_sealed, mark_done, write_json

FILE, SCHEMA = "solution.json", 4


@dataclass(eq=False)
class SolutionSet:
    """Experts over one base model, and what answers preferences with them.

    Attributes:
        method: Name of the method.
        family: Its family.
        objectives: Names of the K objectives.
        model: Folder or hub id of the base model.
        model_digest: Its digest when the experts were trained.
        prompt_format: How a prompt becomes the model's input.
        max_prompt_tokens: Longest formatted prompt.
        max_completion_tokens: Longest completion.
        answer: From a preference to expert weights.
        experts: Adapter folders, in the order of the answer's experts.
        mixer: Where the experts are mixed, and the gate, if there is one.
        notes: Plain data the method kept.
        preference_text: How a preference is written in front of each prompt; None where it is not.
    """

    method: str
    family: Family
    objectives: tuple[str, ...]
    model: str
    model_digest: str
    prompt_format: PromptFormat
    max_prompt_tokens: int
    max_completion_tokens: int
    answer: Answer
    experts: tuple[Path, ...]
    mixer: Mixer = field(default_factory=Mixer)
    notes: Mapping[str, object] = field(default_factory=dict)
    preference_text: PreferenceText | None = None

    @classmethod
    def from_assembly(cls, task: Task, assembly: Assembly, method: str, family: Family) -> SolutionSet:
        """Make a solution set of what a method assembled.

        Raises:
            AdapterError: If there is not one adapter for each expert of the answer, no file of the gate, or the answer
                is to other preferences than the task's.
            ConfigError: If the answer is no plain data.
        """
        answer, gate = assembly.answer, assembly.mixer.gate
        answer_to_plain(answer)  # refused now, before hours of evaluation, if it cannot be written
        if len(assembly.experts) != answer.experts:
            raise AdapterError(
                f"method '{method}' must assemble one adapter for each of its answer's {answer.experts} experts, got "
                f"{len(assembly.experts)}. Correct its assemble()."
            )
        if not assembly.experts and assembly.mixer != Mixer():
            raise AdapterError(
                f"mixer of method '{method}' must be left out without experts, got one at level "
                f"'{assembly.mixer.level}'. Name the experts to mix, or leave it out."
            )
        if answer.objectives != len(task.objectives):
            raise AdapterError(
                f"answer of method '{method}' must be to preferences of {len(task.objectives)} objectives, got one to "
                f"{answer.objectives}. Correct its assemble()."
            )
        if gate is not None and not gate.is_file():
            raise AdapterError(
                f"gate of method '{method}' must be a file, got '{gate}'. Take it from the artefacts of a stage."
            )
        return cls(
            method, family, task.objective_names, task.model, task.model_digest, task.prompt_format,
            task.max_prompt_tokens, task.max_completion_tokens, answer, assembly.experts, assembly.mixer,
            dict(assembly.notes), assembly.preference_text,
        )  # fmt: skip

    @cached_property
    def base(self) -> BaseModel:
        """The base model, loaded on first use."""
        base = load_base(self.model)
        if base.digest != self.model_digest:
            raise AdapterError(
                f"base model '{self.model}' must be the one the experts were trained on ({self.model_digest}), got "
                f"{base.digest}. Restore that model's files, or train again."
            )
        return base

    @cached_property
    def bank(self) -> ExpertBank | None:
        """All experts stacked, loaded on first use; None where the base model alone answers."""
        return load_bank(self.base, self.experts) if self.experts else None

    @cached_property
    def gate(self) -> TrainedGate | GateOfSets | None:
        """The gate, loaded on first use; None where there is none."""
        if self.mixer.gate is None or self.bank is None:
            return None
        return load_gate_of(self.bank, self.mixer.gate, self.mixer.sets)

    def policies_for(self, preferences: ArrayLike) -> Policy:
        """Answer preferences `[M, K]` with one policy of M rows.

        Where probabilities are mixed, it can be made for weights that are negative or sum to more than one, but not
        asked: its mixing raises MixingError.

        Raises:
            PreferenceError: If a preference has no K weights, none negative and one above 0.
            ShapeError: If the answer does not weigh each expert for each preference.
            ModelError: If hidden states are mixed, and the model is of a kind where they cannot be.
        """
        if self.mixer.level == "hidden":
            check_block(self.base.model.config.to_dict(), self.model, self.mixer.block)
        rows = check_preferences(preferences, len(self.objectives))
        weights, answers = answered(self.answer, rows)
        return policy_class(self.mixer)(
            self.base, self.bank, self.prompt_format, self.max_prompt_tokens, self.max_completion_tokens, rows,
            answers, weights, self.mixer, self.gate, self.preference_text,
        )  # fmt: skip

    def policy_for(self, preference: Mapping[str, float] | ArrayLike) -> Policy:
        """Answer one preference, given by names (those left out count 0) or as `[K]`."""
        if isinstance(preference, Mapping):
            return self.policies_for(preference_from_mapping(preference, self.objectives))
        return self.policies_for(preference)

    def plain(self, name: Callable[[Path], str]) -> dict[str, object]:
        """Return plain data for JSON.

        Args:
            name: Says under which name, relative to the folder of `solution.json`, an expert or the gate lies.
        """
        gate = None if self.mixer.gate is None else name(self.mixer.gate)
        return {
            "schema_version": SCHEMA,
            "method": self.method,
            "family": self.family,
            "objectives": list(self.objectives),
            "model": self.model,
            "model_digest": self.model_digest,
            "prompt_format": self.prompt_format.plain(),
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_completion_tokens": self.max_completion_tokens,
            "answer": answer_to_plain(self.answer),
            "mixer": {**self.mixer.plain(), "gate": gate},
            "experts": [name(expert) for expert in self.experts],
            "notes": dict(self.notes),
            **({} if self.preference_text is None else {"preference_text": self.preference_text.plain()}),
        }

    def save(self, folder: str | Path) -> Path:
        """Copy experts and gate and write `solution.json` into a folder that needs nothing but the base model.

        Its `DONE.json`, written last, has the digests of all files: whoever loads it notices what has changed.

        Raises:
            RecordError: If the folder already holds another solution set, or the disk is full.
        """
        target = Path(folder)
        if (target / DONE).exists():
            raise RecordError(f"output folder must not hold a solution set yet, got '{target}'. Name another folder.")
        names: dict[Path, str] = {}
        for adapter in dict.fromkeys(self.experts):
            names[adapter] = f"experts/{len(names):03d}"
            shutil.copytree(adapter, target / names[adapter], dirs_exist_ok=True)
        if self.mixer.gate is not None:
            names[self.mixer.gate] = GATE
            shutil.copyfile(self.mixer.gate, target / GATE)
        write_json(target / FILE, self.plain(names.__getitem__))
        mark_done(target, among=(FILE, GATE, "experts"))
        return target


def load_solutions(folder: str | Path) -> SolutionSet:
    """Load a solution set saved by `SolutionSet.save` or left by a study in `runs/<cell>`.

    Raises:
        RecordError: If the folder has no readable `solution.json`, one of another version, or an answer of a class that
            cannot be found or is none of an answer; if it was never finished, or a file has changed since.
    """
    source = Path(folder)
    try:
        data = parsed_json((source / FILE).read_text())
        version = data.get("schema_version")
    except (OSError, ValueError, AttributeError) as error:  # no file, no JSON or UTF-8, no keys and values
        cells = sorted(path.parent for path in source.glob(f"runs/*/{FILE}"))
        if cells:
            raise RecordError(
                f"a solution set must be one cell of a study, got the study '{source}' itself. Name one of its "
                f"{len(cells)} that finished, such as {cells[0]}."
            ) from error
        raise RecordError(
            f"a solution set must be a folder with a readable {FILE}, got '{source}' ({error}). Name the folder given "
            "to `-o`, or a cell's folder under `runs/`."
        ) from error
    if version != SCHEMA:
        raise RecordError(
            f"{FILE} must have schema version {SCHEMA}, got {version}. Use the version of the library that wrote it."
        )
    check_sealed(source / FILE)
    try:
        mixed = data["mixer"]
        gate = None if mixed["gate"] is None else (source / mixed["gate"]).resolve()
        later = {name: mixed[name] for name in LATER if name in mixed}
        mixer = Mixer(mixed["level"], mixed["block"], gate, mixed["continued"], **later)
        experts = tuple((source / name).resolve() for name in data["experts"])
        for file in dict.fromkeys((*experts, *([] if gate is None else [gate]))):
            check_sealed(file)
        return SolutionSet(
            data["method"], data["family"], tuple(data["objectives"]), data["model"], data["model_digest"],
            PromptFormat(**data["prompt_format"]), data["max_prompt_tokens"], data["max_completion_tokens"],
            answer_from_plain(data["answer"]), experts, mixer, data["notes"],
            PreferenceText(**data["preference_text"]) if "preference_text" in data else None,
        )  # fmt: skip
    except KeyError as error:
        raise RecordError(f"'{source / FILE}' must hold {error}, got nothing. Copy or train it again.") from error
    except (ConfigError, TypeError) as error:  # a mixer that does not exist; names that are none
        raise RecordError(f"'{source / FILE}' must be whole, got: {error}. Copy or train it again.") from error
