"""What a method returns: experts and the rule that answers any preference with them; saved and loaded as a folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from paretune.core.answers import AnswerRule
from paretune.core.errors import AdapterError, RecordError
from paretune.core.preferences import check_preferences, preference_from_mapping
from paretune.core.protocols import Assembly, Family
from paretune.core.task import Task
from paretune.models.adapters import load_bank
from paretune.models.bank import ExpertBank
from paretune.models.base import BaseModel, load_base
from paretune.models.policy import Policy

FILE, SCHEMA = "solution.json", 1


@dataclass(eq=False)
class SolutionSet:
    """Experts over one base model and a rule from preferences to expert weights.

    Attributes:
        method: Name of the method.
        family: Its family.
        objectives: Names of the K objectives.
        model: Folder or hub id of the base model.
        model_digest: Its digest when the experts were trained.
        template: How a prompt becomes the model's input.
        max_prompt_tokens: Longest formatted prompt.
        max_completion_tokens: Longest completion.
        rule: From a preference to expert weights.
        experts: Adapter folders, in the order of the rule.
        notes: Plain data the method kept.
    """

    method: str
    family: Family
    objectives: tuple[str, ...]
    model: str
    model_digest: str
    template: str
    max_prompt_tokens: int
    max_completion_tokens: int
    rule: AnswerRule
    experts: tuple[Path, ...]
    notes: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def from_assembly(cls, task: Task, assembly: Assembly, method: str, family: Family) -> SolutionSet:
        """Make a solution set of what a method assembled.

        Raises:
            AdapterError: If an expert of the assembly has no adapter.
        """
        adapters = [result.adapter for result in assembly.experts]
        if any(adapter is None for adapter in adapters) or len(adapters) != assembly.rule.experts:
            raise AdapterError(
                f"method '{method}' must assemble one trained expert for each of its rule's {assembly.rule.experts}, "
                f"got {sum(adapter is not None for adapter in adapters)}."
            )
        return cls(
            method, family, task.objective_names, task.model, task.model_digest, task.template,
            task.max_prompt_tokens, task.max_completion_tokens, assembly.rule,
            tuple(adapter for adapter in adapters if adapter is not None), dict(assembly.notes),
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
    def bank(self) -> ExpertBank:
        """All experts stacked, loaded on first use."""
        return load_bank(self.base, self.experts)

    def policies_for(self, preferences: ArrayLike) -> Policy:
        """Answer preferences `[M, K]` with one policy of M rows.

        Raises:
            PreferenceError: If a preference is not a point on the simplex of K objectives.
        """
        rows = check_preferences(preferences, len(self.objectives))
        weights, answers = self.rule.answer(rows)
        return Policy(
            self.base, self.bank, self.template, self.max_prompt_tokens, self.max_completion_tokens, rows, answers,
            weights,
        )  # fmt: skip

    def policy_for(self, preference: Mapping[str, float] | ArrayLike) -> Policy:
        """Answer one preference, given by names (those left out count 0) or as `[K]`."""
        if isinstance(preference, Mapping):
            return self.policies_for(preference_from_mapping(preference, self.objectives))
        return self.policies_for(preference)

    def plain(self, experts: Sequence[str]) -> dict[str, object]:
        """Return plain data for JSON, with the experts' folders as given."""
        return {
            "schema_version": SCHEMA,
            "method": self.method,
            "family": self.family,
            "objectives": list(self.objectives),
            "model": self.model,
            "model_digest": self.model_digest,
            "template": self.template,
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_completion_tokens": self.max_completion_tokens,
            "rule": {"kind": self.rule.kind, "table": self.rule.table.tolist()},
            "experts": list(experts),
            "notes": dict(self.notes),
        }

    def save(self, folder: str | Path) -> Path:
        """Copy the experts and write `solution.json` into a folder that needs nothing but the base model.

        Raises:
            RecordError: If the folder already holds another solution set.
        """
        target = Path(folder)
        if (target / FILE).exists():
            raise RecordError(f"output folder must not hold a solution set yet, got '{target}'. Name another folder.")
        names = []
        for number, adapter in enumerate(self.experts):
            name = f"experts/{number:03d}"
            shutil.copytree(adapter, target / name, dirs_exist_ok=True)
            names.append(name)
        (target / FILE).write_text(json.dumps(self.plain(names), indent=2) + "\n")
        return target


def load_solutions(folder: str | Path) -> SolutionSet:
    """Load a solution set saved by `SolutionSet.save` or left by a study in `runs/<cell>`.

    Raises:
        RecordError: If the folder has no readable `solution.json`, or one of a newer version.
    """
    source = Path(folder)
    try:
        data = json.loads((source / FILE).read_text())
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
    try:
        return SolutionSet(
            data["method"], data["family"], tuple(data["objectives"]), data["model"], data["model_digest"],
            data["template"], data["max_prompt_tokens"], data["max_completion_tokens"],
            AnswerRule(data["rule"]["kind"], np.asarray(data["rule"]["table"], dtype=np.float64)),
            tuple((source / name).resolve() for name in data["experts"]), data["notes"],
        )  # fmt: skip
    except KeyError as error:
        raise RecordError(f"'{source / FILE}' must hold {error}, got nothing. Copy or train it again.") from error
