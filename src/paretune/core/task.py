"""A task: everything needed to compare two methods, nothing about any method. Plain data, no model is loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from paretune.core.checks import check_choice
from paretune.core.digests import digest
from paretune.core.errors import TaskError
from paretune.core.file_lists import Tally, matching
from paretune.core.preferences import FloatArray
from paretune.core.printable import brief, printable
from paretune.core.prompt_format import PromptFormat
from paretune.core.user_code import loaded_digest, loaded_files
from paretune.core.user_files import data_digests

Split = Literal["train", "development", "test"]
SPLITS: tuple[Split, ...] = ("train", "development", "test")
JudgedOn = Literal["J", "utility"]
Row = Mapping[str, object]  # a prompt's columns; "prompt" and "prompt_id" are always there


@dataclass(frozen=True)
class Objective:
    """A named trait that can be scored. Higher is better.

    Attributes:
        name: How preferences, tables and columns name it.
        reward: `module:function` with TRL's reward signature, or the folder of a sequence-classification model.
        range: Lowest and highest possible reward; a score outside is an error of the reward, not a result.
        pass_threshold: Reward from which a completion passes, for the pass ratio; None where passing means nothing.
        version: Raised by its author when its scores change meaning.
        kind: `function` or `model`.
        source_digest: Digest of the code or model folder behind a user's reward. Where a task made by code leaves it
            empty, the code behind `reward` counts as it was when this process first asked; built-in rewards have none.
        import_path: Folder added to the import path before `reward` is imported; None for installed modules.
        depends: Files and folders that a reward of `import_path` may read; what it reads and no key covers is an
            error. Their digests are part of `source_digest`, or of the key where that is empty.
        files: The files behind `source_digest` with their digests, to name the one that changed.
        template: How a reward model reads a row, with `{prompt}` and `{completion}`.
        transform: What turns a reward model's logit into a reward: `sigmoid` or `identity`.
    """

    name: str
    reward: str
    range: tuple[float, float] = (0.0, 1.0)
    pass_threshold: float | None = None
    version: int = 1
    kind: Literal["function", "model"] = "function"
    source_digest: str = ""
    import_path: str | None = None
    depends: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    template: str | None = None
    transform: Literal["sigmoid", "identity"] = "sigmoid"

    def key(self) -> dict[str, object]:
        """Return what the meaning of a score depends on."""
        source = self.source_digest or self._code() or self.reward  # a digest covers a file wherever it lies
        name = self.reward.rsplit(":", 1)[-1] if self.kind == "function" else self.template
        return {
            "name": self.name,
            "kind": self.kind,
            "source": source,
            "function": name,
            "version": self.version,
            "range": list(self.range),
            "transform": self.transform,
        }

    def _code(self) -> str:
        if self.kind != "function":
            return ""
        folder = Path(self.import_path) if self.import_path else None
        code = loaded_digest(self.reward, folder)
        if not self.depends:
            return code
        tally = Tally()
        files = [file for each in self.depends for file in matching(each, folder or Path(), tally)]
        return digest([code, data_digests(files, folder or Path())])


@dataclass(frozen=True)
class Enumeration:
    """All completions of a task that is small enough to list them: sequences of exactly `length` tokens.

    Attributes:
        token_ids: What a completion is made of; the base model says nothing else.
        length: Tokens of every completion.
    """

    token_ids: tuple[int, ...]
    length: int

    @property
    def completions(self) -> int:
        """Number of completions Y of a prompt."""
        return int(len(self.token_ids) ** self.length)


@dataclass(frozen=True)
class Task:
    """Prompts, K objectives, a base model, beta and a frozen reference point.

    Attributes:
        name: Shown in reports.
        source: What `load_task` was given, so that a worker process can load the same task again.
        model: Folder of the base model, or hub id.
        model_digest: Digest of its configuration, tokenizer and parameters; for a hub id, of the id alone.
        template: How a prompt becomes the model's input; `{prompt}` is replaced.
        splits: Rows of each split; every row has `prompt` (str) and `prompt_id` (str, unique in its split).
        objectives: The K objectives that preferences weigh and methods train on.
        audit: Objectives scored in evaluation only.
        reference_point: Hypervolume corner, one value per objective.
        beta: KL coefficient, in reward units per nat.
        judged_on: What policies are selected and ranked by: `J`, which is `w . E r - beta KL`, or `utility`, `w . E r`
            alone, with the KL beside it. Training maximises J in either case.
        max_prompt_tokens: Longest prompt, template and added special tokens included.
        max_completion_tokens: Longest completion.
        enumeration: Its completions, where they can be listed and policies scored exactly; else None.
        family_settings: Of the family of tasks it is an instance of, such as `rho`; none where all seeds are one task.
        learner: Settings of the learner that suit its base model, such as `learning_rate`; a study's own come first.
        add_special_tokens: What the tokenizer adds to a prompt, see `core.prompt_format`.
        special_tokens_in_prompts: Whether a prompt's text can be a special token, see `core.prompt_format`.
    """

    name: str
    source: str | Mapping[str, object]
    model: str
    model_digest: str
    template: str
    splits: Mapping[Split, tuple[Row, ...]] = field(repr=False)
    objectives: tuple[Objective, ...]
    audit: tuple[Objective, ...] = ()
    reference_point: tuple[float, ...] = ()
    beta: float = 0.05
    judged_on: JudgedOn = "utility"
    max_prompt_tokens: int = 256
    max_completion_tokens: int = 64
    enumeration: Enumeration | None = None
    family_settings: Mapping[str, float] = field(default_factory=dict)
    learner: Mapping[str, object] = field(default_factory=dict)
    add_special_tokens: bool | None = None
    special_tokens_in_prompts: bool = False

    def __post_init__(self) -> None:
        names = [objective.name for objective in (*self.objectives, *self.audit)]
        for noun, name in (("task", self.name), *(("objective", each) for each in names)):
            if not name.strip() or printable(name, kept="") != name:
                raise TaskError(
                    f"name of {noun} must be text of letters that can be seen, got {brief(name)}. Rename it."
                )
        doubled = sorted({name for name in names if names.count(name) > 1})
        if doubled:
            raise TaskError(
                f"objectives of task '{self.name}' must have different names, got '{doubled[0]}' twice. Rename one."
            )
        if not self.objectives:
            raise TaskError(f"task '{self.name}' must have at least one objective, got none. Add one.")
        check_choice(f"judged_on of task '{self.name}'", self.judged_on, get_args(JudgedOn))
        if len(self.reference_point) != len(self.objectives):
            raise TaskError(
                f"reference_point of task '{self.name}' must have one entry per objective ({len(self.objectives)}), "
                f"got {len(self.reference_point)}. List one value below every score you expect, per objective."
            )

    @property
    def objective_names(self) -> tuple[str, ...]:
        """Names of the K objectives, in order."""
        return tuple(objective.name for objective in self.objectives)

    def instance(self, seed: int) -> Task:
        """Return the task that a seed names; a task of fixed files is the same for every seed."""
        del seed
        return self

    def prompt_preferences(self, rows: Sequence[Row], preferences: FloatArray) -> FloatArray:
        """Return what the users of preferences `[M, K]` want of each prompt, points of the simplex `[M, P, K]`.

        By default the preference itself, of every prompt. A task that says otherwise has a `context_key`.
        """
        return np.tile(preferences[:, None], (1, len(rows), 1))

    def context_key(self) -> object:
        """Return what `prompt_preferences` depends on beside rows and preferences, plain data that keys hold.

        None, the default, where what a user wants of a prompt is the preference itself.
        """
        return None

    @property
    def contextual(self) -> bool:
        """Whether what a user wants depends on the prompt."""
        return self.context_key() is not None

    def with_one_more(self) -> Task:
        """Return the task with one objective more to train for: the first audit objective that has a finite range.

        Raises:
            TaskError: If it has none.
        """
        found = next((each for each in self.audit if np.isfinite(each.range).all()), None)
        if found is None:
            raise TaskError(
                f"task '{self.name}' must have an audit objective with a finite range to become one objective more, "
                f"got {', '.join(each.name for each in self.audit) or 'no audit objective'}. Name one under audit."
            )
        return replace(
            self, objectives=(*self.objectives, found), audit=tuple(each for each in self.audit if each is not found),
            reference_point=(*self.reference_point, found.range[0]),
        )  # fmt: skip

    def split_feature(self, rows: Sequence[Row], column: str = "") -> NDArray[np.float64]:
        """Return a number of each prompt, by which prompts can be told apart, `[N]`.

        Args:
            rows: The prompts.
            column: Their column that holds it. Some kinds of task have a feature of their own where none is named.

        Raises:
            TaskError: If no column is named and the task has no feature of its own, or a prompt has no such number.
        """
        if not column:
            raise TaskError(
                f"split_by must name a column of numbers, as task '{self.name}' has no feature of its own that prompts "
                f"could be split by, got none. It has the columns {', '.join(rows[0]) if rows else 'of no prompt'}."
            )
        values = [row.get(column) for row in rows]
        for row, value in zip(rows, values, strict=True):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not np.isfinite(value):
                got = f"{brief(value)} in prompt {row['prompt_id']}" if column in row else "no such column"
                raise TaskError(
                    f"column '{column}' of the prompts of task '{self.name}' must hold a finite number in every row, "
                    f"got {got}. Correct it, or name another of {', '.join(row)}."
                )
        return np.asarray(values, dtype=np.float64)

    def development_rows(self) -> tuple[Row, ...]:
        """Return the prompts that something is selected or tuned on.

        A task made in Python may have none, for methods that do neither.

        Raises:
            TaskError: If there are none.
        """
        rows = self.splits["development"]
        if not rows:
            raise TaskError(
                f"development prompts of task '{self.name}' must be at least one where something is measured on them, "
                "got none. Set some training prompts aside for it, or choose a method that measures nothing."
            )
        return rows

    @property
    def prompt_format(self) -> PromptFormat:
        """How a prompt becomes the model's input."""
        return PromptFormat(self.template, self.add_special_tokens, self.special_tokens_in_prompts)

    @cached_property
    def _split_digests(self) -> dict[str, str]:
        """Digests of all prompts, made once: planning asks for them thousands of times."""
        return {split: digest(list(rows)) for split, rows in self.splits.items()}

    def training_key(self) -> dict[str, Any]:
        """Return what training depends on: all but the test prompts, the audit and the thresholds."""
        code = loaded_files(f"{type(self).__module__}:{type(self).__name__}")  # a user's own kind of task
        return {
            **({"code": dict(code)} if code else {}),
            "model": self.model_digest,
            **self.prompt_format.plain(),
            "objectives": [objective.key() for objective in self.objectives],
            "train": self._split_digests["train"],
            "development": self._split_digests["development"],
            "beta": self.beta,
            "max_prompt_tokens": self.max_prompt_tokens,
            "max_completion_tokens": self.max_completion_tokens,
        }

    def evaluation_key(self) -> dict[str, object]:
        """Return what evaluation adds: test prompts, audit objectives, and how wishes depend on the prompt."""
        return {
            "test": self._split_digests["test"],
            "audit": [objective.key() for objective in self.audit],
            **({"context": self.context_key()} if self.contextual else {}),
        }

    def parts(self) -> dict[str, str]:
        """Digest what training and evaluation depend on, each file and each other part on its own, to name a change."""
        keys = {**self.training_key(), **self.evaluation_key()}
        parts = {name: digest(value) for name, value in keys.items() if name not in ("objectives", "audit")}
        for each in (*self.objectives, *self.audit):
            parts |= each.files
            parts[each.name] = digest({**each.key(), **({"source": ""} if each.files else {})})
        return parts
