"""What a cell's policies do at every scale, and what the best policy would do where that is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paretune.core.errors import RecordError, ShapeError
from paretune.records.evaluation import EvaluationRecord
from paretune.records.files import AGAIN, read_json, write_json

FloatArray = NDArray[np.float64]
SCHEMA = 1
LEFT_OUT = ("prompt_preferences",)  # of a file, where there are none
SCALES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the experts' weights, the last the policy itself
FRONT_DIVISIONS = {2: 100, 3: 20, 4: 8, 5: 5}  # 101, 231, 165 and 126 points
OTHER_DIVISIONS = 3


def front_divisions(objectives: int) -> int:
    """Return how many parts the exact front divides the preferences of K objectives into."""
    return FRONT_DIVISIONS.get(objectives, OTHER_DIVISIONS)


@dataclass(frozen=True)
class OutcomeRecord:
    """What the policies of one cell do on the test prompts, at every scale of their experts' weights.

    Attributes:
        preferences: Preferences answered, `[M, K]`.
        scales: What the expert weights were multiplied by, `[S]`: 0 is the base model, 1 the policy itself.
        rewards: Expected rewards `[M, S, P, K]`.
        kl: KL to the base model in nats, `[M, S, P]`; NaN where there is none.
        exact: Whether these are sums over all completions; else means over samples.
        seconds: Seconds it took to score one policy, on average.
        reason: Why there is no KL, or no exact score; empty when there is.
    """

    preferences: FloatArray
    scales: FloatArray
    rewards: FloatArray
    kl: FloatArray
    exact: bool
    seconds: float
    reason: str = ""

    def at_scale(self, scale: float) -> tuple[FloatArray, FloatArray]:
        """Return rewards `[M, P, K]` and KL `[M, P]` at one scale.

        Raises:
            RecordError: If policies were not scored at it.
        """
        if scale not in self.scales:
            known = ", ".join(f"{each:g}" for each in self.scales)
            raise RecordError(f"scale must be one of {known}, got {scale:g}. Ask for one of them.")
        index = int(np.flatnonzero(self.scales == scale)[0])
        return self.rewards[:, index], self.kl[:, index]


@dataclass(frozen=True)
class TruthRecord:
    """What can be reached on the test prompts of a task instance.

    Attributes:
        beta: KL coefficient.
        reference_rewards: Expected rewards of the base model `[P, K]`.
        preferences: Preferences of the study `[M, K]`.
        rewards: Expected rewards of the optimum for each, `[M, P, K]`.
        kl: Its KL in nats, `[M, P]`.
        front_preferences: A denser set `[F, K]`.
        front_scores: `J_k` of the optimum for each of them, mean over prompts, `[F, K]`.
        prompt_preferences: What the user of each preference wants of each prompt, which the optimum is for,
            `[M, P, K]`; None where that is the preference itself.
    """

    beta: float
    reference_rewards: FloatArray
    preferences: FloatArray
    rewards: FloatArray
    kl: FloatArray
    front_preferences: FloatArray
    front_scores: FloatArray
    prompt_preferences: FloatArray | None = None

    @property
    def reference_scores(self) -> FloatArray:
        """`J_k` of the base model, whose KL is 0, `[K]`."""
        return np.asarray(self.reference_rewards.mean(axis=0))

    @property
    def scores(self) -> FloatArray:
        """`J_k` of the optimum for each preference, `[M, K]`."""
        return np.asarray((self.rewards - self.beta * self.kl[..., None]).mean(axis=1))


def with_exact(evaluation: EvaluationRecord, rewards: FloatArray, kl: FloatArray) -> EvaluationRecord:
    """Return an evaluation that knows the expected rewards `[P, K]` and the KL `[P]` of its policy.

    Raises:
        RecordError: If they are not of the same prompts and objectives.
    """
    try:
        return replace(evaluation, exact_rewards=rewards, exact_kl=kl)
    except ShapeError as error:
        raise RecordError(f"exact scores must be of the prompts that were sampled: {error} {AGAIN}") from error


def write_outcome(path: Path, record: object) -> None:
    """Write a dataclass of plain data and arrays as JSON; NaN becomes null.

    Raises:
        RecordError: If the disk is full.
    """
    values = {name: value for name, value in vars(record).items() if value is not None or name not in LEFT_OUT}
    write_json(path, {"schema_version": SCHEMA, **{name: _plain(value) for name, value in values.items()}})


def read_outcome(path: Path) -> OutcomeRecord:
    """Read what the policies of a cell do.

    Raises:
        RecordError: If it is missing or damaged.
    """
    record: OutcomeRecord = read_record(path, OutcomeRecord, ("exact", "seconds", "reason"))
    return record


def read_truth(path: Path) -> TruthRecord:
    """Read what can be reached on a task instance.

    Raises:
        RecordError: If it is missing or damaged.
    """
    record: TruthRecord = read_record(path, TruthRecord, ("beta",))
    return record


def read_record(path: Path, cls: Any, plain: tuple[str, ...]) -> Any:
    """Read what `write_outcome` wrote.

    Args:
        path: The file.
        cls: The dataclass.
        plain: Its fields that are no arrays.

    Raises:
        RecordError: If it is missing or damaged.
    """
    data: Mapping[str, Any] = read_json(path)
    try:
        if data["schema_version"] != SCHEMA:
            raise RecordError(f"{path} must have schema version {SCHEMA}, got {data['schema_version']}. {AGAIN}")
        return cls(
            **{
                name: value if name in plain or value is None else np.array(value, dtype=np.float64)  # null is NaN
                for name, value in data.items()
                if name != "schema_version"
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"{path} must have all its fields, got trouble with {error}. {AGAIN}") from error


def _plain(value: object) -> object:
    """Return plain data; NaN becomes None, which JSON can hold."""
    if not isinstance(value, np.ndarray):
        return value
    numbers = value.astype(object)
    numbers[np.isnan(value)] = None
    return numbers.tolist()
