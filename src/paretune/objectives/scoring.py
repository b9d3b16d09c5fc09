"""Scoring: completions in, a matrix of rewards out; what a reward does wrong becomes a missing score, never 0."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Self, SupportsFloat, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from paretune.core.checks import check_texts
from paretune.core.errors import RewardError, ShapeError, StopRequested
from paretune.core.scores import KEPT_CONTRACT, Scores
from paretune.core.surroundings import one_process, surroundings_kept
from paretune.core.task import Objective, Row
from paretune.core.user_calls import described, real_interrupts, shown, user_line
from paretune.objectives import OBJECTIVES
from paretune.objectives.functions import RewardFunction, call_function, columns_of, gather, load_function
from paretune.objectives.user_modules import imports_from, watched_reads

ROUNDING = 1e-6  # share of a range by which a sum or a float32 may miss its ends; the reward is clipped then
MOST_DIMENSIONS = 64  # of an array; numpy's limit
LONGEST_TRACEBACK = 8000  # letters of one that is kept
_LOG = logging.getLogger(__name__)  # goes to stderr unless a program says otherwise; a worker's is in its log


@dataclass(frozen=True)
class Problem:
    """One kind of thing that went wrong with one objective.

    Attributes:
        objective: Its name.
        status: As in `Scores.statuses`; `missing` is listed too, though a function may say None.
        count: Scores it cost so far.
        example: What happened the first time.
        traceback: Where, if an exception was raised; else empty.
    """

    objective: str
    status: str
    count: int
    example: str
    traceback: str = ""


class _KeepException:
    """Keeps an exception that its block raises, whatever its class, and goes on after the block.

    A user's reward may raise anything, at any of thousands of calls, and one failing call must cost its scores and not
    a run of hours. Elsewhere, what a user's code raises ends its job, see `core.user_calls.called`. A KeyboardInterrupt
    of a user's is kept, too; a real Ctrl-C is a `StopRequested` inside `real_interrupts`, and passes.
    """

    error: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        self.error = None if isinstance(error, StopRequested) else error
        return self.error is not None


class Scorer:
    """Scores completions on K objectives; a `core.scores.Score`.

    Args:
        objectives: The objectives, in the order of the columns of its scores.

    Raises:
        TaskError: If a reward function cannot be imported.
        UnknownNameError: If its module has no such function.
        ModelError: If a reward model cannot be loaded.
    """

    def __init__(self, objectives: Sequence[Objective]) -> None:
        self.objectives = tuple(objectives)
        self._functions = [_load(objective) for objective in self.objectives]
        self._problems: dict[tuple[str, str], Problem] = {}

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What went wrong so far, one entry per objective and status."""
        return tuple(self._problems.values())

    def __call__(self, rows: Sequence[Row], completions: Sequence[str]) -> Scores:
        """Score completions.

        Args:
            rows: The prompt's row for each completion, B of them.
            completions: Texts, B of them.

        Returns:
            Rewards and statuses `[B, K]`.

        Raises:
            ShapeError: If completions are no list of texts, or there is not one row per completion.
            RewardError: If every objective failed on every completion, or one raised KeyboardInterrupt or SystemExit.
            TaskError: If one reads a file in the task's folder that no key covers.
        """
        completions = check_texts("completions", completions, least=0)
        if len(rows) != len(completions):
            raise ShapeError(f"rows must be one per completion ({len(completions)}), got {len(rows)}. Repeat the rows.")
        size = len(completions)
        rewards = np.full((size, len(self.objectives)), np.nan)
        statuses = np.full((size, len(self.objectives)), "missing", dtype="<U12")
        if size == 0:
            return Scores(rewards, statuses)
        with one_process(), real_interrupts():
            faults = self._fill(rewards, statuses, rows, completions)
        if self.objectives and not np.isin(statuses, KEPT_CONTRACT).any():
            raise RewardError(
                f"rewards must give at least one score for a batch of {size} completions, got none: "
                f"{'; '.join(filter(None, faults))}. Correct the reward functions, then run the same command again."
                f"{self._first_traceback()}"
            )
        return Scores(rewards, statuses, tuple(faults))

    def _fill(
        self,
        rewards: NDArray[np.float64],
        statuses: NDArray[np.str_],
        rows: Sequence[Row],
        completions: Sequence[str],
    ) -> list[str]:
        """Fill in rewards and statuses, and return what each reward did wrong."""
        faults: list[str] = [""] * len(self.objectives)
        for k, outcome in enumerate(self._call_all(rows, completions)):
            if isinstance(outcome, (KeyboardInterrupt, SystemExit)):
                raise RewardError(
                    f"{_name(self.objectives[k])} must not end the program, got {described(outcome)}"
                    f"{user_line(outcome)}. Return None for a completion that it cannot score."
                ) from outcome
            values, marks, problems = read_outcome(outcome, len(completions), self.objectives[k])
            rewards[:, k], statuses[:, k] = values, marks
            self._count(self.objectives[k], problems)
            broken = (each for each in problems if each.status not in KEPT_CONTRACT)
            faults[k] = "; ".join(_described(self.objectives[k], each) for each in broken)
        return faults

    def _call_all(self, rows: Sequence[Row], completions: Sequence[str]) -> list[object]:
        """Return, for each objective, what its function returned or the exception it raised."""
        outcomes: dict[int, object] = {}
        for folder in dict.fromkeys(objective.import_path for objective in self.objectives):
            members = [k for k, objective in enumerate(self.objectives) if objective.import_path == folder]
            with imports_from(Path(folder) if folder else None):
                for k in members:
                    with self._watched(k):
                        outcomes[k] = self._call(k, rows, completions)
                waiting = {k: outcome for k in members if inspect.isawaitable(outcome := outcomes[k])}
                names = " and ".join(_name(self.objectives[k]) for k in waiting)
                with contextlib.ExitStack() as watching, surroundings_kept(names, RewardError):
                    for k in waiting:
                        watching.enter_context(self._watched(k))
                    outcomes |= zip(waiting, gather(list(waiting.values())), strict=True)
        return [outcomes[k] for k in range(len(self.objectives))]

    def _watched(self, k: int) -> AbstractContextManager[object]:
        """Refuse what a reward reads in the task's folder and its key does not cover."""
        objective = self.objectives[k]
        folder = Path(objective.import_path).resolve() if objective.import_path else None
        return watched_reads(objective.reward, folder, [Path(folder or "", each) for each in objective.depends])

    def _call(self, k: int, rows: Sequence[Row], completions: Sequence[str]) -> object:
        function, objective = self._functions[k], self.objectives[k]
        pairs = [(id(row), completion) for row, completion in zip(rows, completions, strict=True)]
        first = {pair: index for index, pair in reversed(list(enumerate(pairs)))}  # one row object: all columns agree
        once = sorted(first.values()) if _scores_rows_alone(objective) else list(range(len(pairs)))
        kept = [rows[index] for index in once]
        prompts, texts = [str(row["prompt"]) for row in kept], [completions[index] for index in once]
        with _KeepException() as caught, surroundings_kept(_name(objective), RewardError):
            result = call_function(function, prompts, texts, columns_of(kept))
        if caught.error is not None:
            return caught.error
        if len(once) == len(pairs) or not isinstance(result, list) or len(result) != len(once):
            return result
        place = {pairs[index]: position for position, index in enumerate(once)}
        return [result[place[pair]] for pair in pairs]

    def _count(self, objective: Objective, problems: Sequence[Problem]) -> None:
        """Add up problems, and log the first of each kind: a user should not have to search for why scores miss."""
        for problem in problems:
            key = problem.objective, problem.status
            known = self._problems.get(key)
            self._problems[key] = replace(known, count=known.count + problem.count) if known else problem
            if known is None and problem.status not in KEPT_CONTRACT:
                advice = "Its scores are left out as missing, never counted as 0; mend it and run again."
                _LOG.warning("no score: %s. %s\n%s", _described(objective, problem), advice, problem.traceback)

    def _first_traceback(self) -> str:
        texts = [problem.traceback for problem in self.problems if problem.traceback]
        return f"\n\nThe first traceback:\n{texts[0]}" if texts else ""


def read_outcome(
    outcome: object, size: int, objective: Objective
) -> tuple[NDArray[np.float64], NDArray[np.str_], list[Problem]]:
    """Turn what a reward function returned or raised into rewards, statuses and problems.

    Args:
        outcome: One value per completion, or the exception.
        size: Number of completions B.
        objective: The objective, for its name and range.

    Returns:
        Rewards `[B]`, NaN where there is none; statuses `[B]`; one problem per status other than `ok`.
    """
    rewards, statuses = np.full(size, np.nan), np.full(size, "ok", dtype="<U12")
    with _KeepException() as kept:  # what a user's code returned may do anything, too
        values = None if isinstance(outcome, BaseException) else _as_list(outcome, size)
    raised = kept.error or (outcome if isinstance(outcome, BaseException) else None)
    if raised is not None:
        statuses[:] = "raised"
        return rewards, statuses, [Problem(objective.name, "raised", size, *_raised(raised))]
    if values is None or len(values) != size:
        statuses[:] = "wrong_length"
        got = f"{len(values)} values" if values is not None else f"a {type(outcome).__name__} in place of a list"
        example = f"returned {got} for {size} completions"
        return rewards, statuses, [Problem(objective.name, "wrong_length", size, example)]
    examples: dict[str, str] = {}
    for index, value in enumerate(values):
        rewards[index], status, example = _read_value(value, objective.range)
        statuses[index] = status
        examples.setdefault(status, f"{example} for completion {index} of {size}")
    found = {status: int((statuses == status).sum()) for status in examples if status != "ok"}
    return rewards, statuses, [Problem(objective.name, status, found[status], examples[status]) for status in found]


def _raised(error: BaseException) -> tuple[str, str]:
    """Return what was raised and where in a line, and its traceback."""
    with _KeepException():
        text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
        middle = max(0, len(text) - LONGEST_TRACEBACK)
        kept = f"{text[: LONGEST_TRACEBACK // 2]}\n...\n{text[LONGEST_TRACEBACK // 2 + middle :]}" if middle else text
        return f"{described(error)}{user_line(error)}", kept
    return described(error), ""


def _read_value(value: object, bounds: tuple[float, float]) -> tuple[float, str, str]:
    with _KeepException() as kept:
        return _read_number(_plain(value), bounds)
    raised = "" if kept.error is None else f", which raised {described(kept.error)}"
    return math.nan, "not_finite", f"returned {shown(value)}{raised},"


def _plain(value: object) -> object:
    """Return the one number of an array, tensor or number of a library as Python's own; anything else as it is."""
    if (to_list := getattr(value, "tolist", None)) is None:
        return value
    found = to_list()
    for _ in range(MOST_DIMENSIONS):
        if not isinstance(found, list):
            return found
        if len(found) != 1:
            raise ValueError(f"{len(found)} numbers for one completion")
        (found,) = found
    raise ValueError("a list in a list without end")


def _read_number(value: object, bounds: tuple[float, float]) -> tuple[float, str, str]:
    if value is None:
        return math.nan, "missing", "returned None"
    if isinstance(value, (str, bytes)) or not isinstance(value, (SupportsFloat, SupportsIndex)):
        return math.nan, "not_finite", f"returned {shown(value)}, which is not a number,"
    number = float(value)
    if not math.isfinite(number):
        return math.nan, "not_finite", f"returned {number}"
    low, high = bounds
    slack = ROUNDING * (high - low)
    if not low - slack <= number <= high + slack:
        return math.nan, "out_of_range", f"returned {number:g}, outside [{low:g}, {high:g}],"
    return min(max(number, low), high), "ok", ""


def _as_list(outcome: object, size: int) -> list[object] | None:
    """Return a list, tuple, array or tensor as a list; None for anything else, such as a single number.

    What a class of a user's goes on to yield, beyond one value too many, is left out: it may have no end.
    """
    if isinstance(outcome, (list, tuple)):
        return list(outcome) if type(outcome) in (list, tuple) else list(islice(outcome, size + 1))
    if getattr(outcome, "ndim", None) == 1 and (to_list := getattr(outcome, "tolist", None)) is not None:
        return list(islice(to_list(), size + 1))
    return None


def _scores_rows_alone(objective: Objective) -> bool:
    """Tell whether a row's score is known not to depend on its batch; a user's function may compare rows."""
    return objective.kind == "model" or (objective.import_path is None and objective.reward in OBJECTIVES.values())


def _load(objective: Objective) -> RewardFunction:
    if objective.kind == "function":
        return load_function(objective)
    from paretune.objectives.reward_models import load_reward_model

    return load_reward_model(objective)


def _described(objective: Objective, problem: Problem) -> str:
    verb = "raised " if problem.status == "raised" else ""
    return f"{_name(objective)} {verb}{problem.example}"


def _name(objective: Objective) -> str:
    return f"{objective.name} ({objective.reward})"
