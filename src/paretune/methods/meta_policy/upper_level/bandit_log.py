"""The log of a bandit's pulls: kept between rounds, written for others, and what other policies earn by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from paretune.bandits import policies, ridge
from paretune.bandits.off_policy import Estimator, Log, estimate
from paretune.core.preferences import FloatArray
from paretune.methods.folds import fold_numbers

if TYPE_CHECKING:
    from torch import Tensor

FOLDS = 5  # of prompts: what is said of pulls of one fold was learned from the others
ESTIMATORS: tuple[Estimator, ...] = get_args(Estimator)


@dataclass(frozen=True, eq=False)
class Pulls:
    """N pulls in their order.

    Attributes:
        prompts: Number of each training prompt, `[N]`.
        preferences: That was drawn, `[N, K]`.
        chances: Of all arms when one was drawn, `[N, A]`.
        arms: That was drawn, `[N]`.
        expert_weights: Of that arm, which the completion was sampled under, `[N, E]`.
        outputs: What it was paid, `[N, O]`: rewards of the K objectives or the one utility, and the KL in nats; NaN
            where a reward is missing.
    """

    prompts: NDArray[np.int64]
    preferences: FloatArray
    chances: FloatArray
    arms: NDArray[np.int64]
    expert_weights: FloatArray
    outputs: FloatArray

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Pulls:
        """Return pulls of arrays by name."""
        return cls(**{each.name: arrays[each.name] for each in fields(cls)})

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name, as a checkpoint keeps them."""
        import torch

        return {each.name: torch.from_numpy(np.ascontiguousarray(getattr(self, each.name))) for each in fields(self)}

    def and_then(self, more: Pulls) -> Pulls:
        """Return these pulls and more behind them."""
        names = [each.name for each in fields(self)]
        return Pulls(**{name: np.concatenate([getattr(self, name), getattr(more, name)]) for name in names})

    @property
    def whole(self) -> NDArray[np.bool_]:
        """Which pulls have all of their rewards, `[N]`."""
        return np.asarray(np.isfinite(self.outputs[:, :-1]).all(axis=1))

    def mean_payoff(self, payoff_weights: FloatArray) -> float | None:
        """Return the mean payoff of whole pulls under weights `[N, O]`; None where there is none."""
        payoffs = (self.outputs * payoff_weights).sum(axis=1)[self.whole]
        return float(payoffs.mean()) if len(payoffs) else None


def off_policy_values(
    pulls: Pulls, contexts: FloatArray, payoff_weights: FloatArray, caution: float, model: ridge.Ridge
) -> dict[str, object]:
    """Return what the gate and the rule alone earn a pull on the prompts of the log, and what the gate gains.

    `gate` is the gate that is handed over. It was chosen by the same pulls, so that its value is too high on average.
    `cross_fitted` is not: pulls of each fold of prompts are answered by a gate that learned from the other folds. The
    doubly robust estimates predict by a model of the other folds for all of them.

    Args:
        pulls: The log.
        contexts: Of all pulls, `[N, d]`.
        payoff_weights: What outputs count in each, `[N, O]`.
        caution: How sure a gate must be to leave the rule.
        model: What all pulls taught.

    Returns:
        `off_policy`, rule by estimator, and `gain`, gate by estimator, over the first arm: plain data.
    """
    whole = pulls.whole
    contexts, weights, outputs = contexts[whole], payoff_weights[whole], pulls.outputs[whole]
    arms, count = pulls.arms[whole], pulls.chances.shape[1]
    rows = np.arange(len(arms))
    folds = fold_numbers(pulls.prompts[whole], FOLDS)
    if len(np.unique(folds)) == 1:
        folds = fold_numbers(rows, FOLDS)

    def answered(known: ridge.Ridge, where: NDArray[np.bool_]) -> tuple[FloatArray, FloatArray]:
        """Return payoffs as predicted, and all chance for the arm that answers, `[n, A]` both."""
        said = ridge.payoffs(ridge.fitted(known), contexts[where], weights[where])
        return said.means, np.eye(count)[policies.answers(said.means, said.deviations, caution)]

    held_out, answers = np.zeros((len(arms), count)), np.zeros((len(arms), count))
    for fold in np.unique(folds):
        others = folds != fold
        empty = ridge.fresh(count, contexts.shape[1], outputs.shape[1], model.ridge)
        known = ridge.updated(empty, arms[others], contexts[others], outputs[others])
        held_out[~others], answers[~others] = answered(known, ~others)
    log = Log(arms, pulls.chances[whole][rows, arms], (outputs * weights).sum(axis=1), held_out)
    rule = np.zeros((len(arms), count))
    rule[:, 0] = 1.0
    first = {
        "gate": answered(model, np.ones(len(arms), dtype=bool))[1], "cross_fitted": answers, "rule": rule
    }  # fmt: skip
    values = {
        name: {each: asdict(estimate(log, target, each)) for each in ESTIMATORS} for name, target in first.items()
    }
    gains = {
        name: {each: asdict(estimate(log, first[name], each, against=rule)) for each in ESTIMATORS}
        for name in ("gate", "cross_fitted")
    }
    return {"off_policy": values, "gain": gains}


def write_pulls(
    path: Path, pulls: Pulls, prompt_ids: Sequence[str], contexts: FloatArray, pulls_each_round: int,
    names: Sequence[str],
) -> None:  # fmt: skip
    """Write a log as Parquet: one row a pull.

    Args:
        path: The file.
        pulls: The log.
        prompt_ids: Of the training prompts, `[N]`.
        contexts: What the bandit read, `[N, d]`.
        pulls_each_round: Tells which round each was of.
        names: Of the outputs but the KL.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from paretune.records.files import write_bytes

    rows = np.arange(len(pulls.arms))
    columns: dict[str, object] = {
        "pull": rows.tolist(), "round": (rows // pulls_each_round).tolist(), "prompt_id": list(prompt_ids),
        "preference": pulls.preferences.tolist(), "context": contexts.tolist(), "arm": pulls.arms.tolist(),
        "propensity": pulls.chances[rows, pulls.arms].tolist(), "propensities": pulls.chances.tolist(),
        "expert_weights": pulls.expert_weights.tolist(),
    }  # fmt: skip
    for name, values in zip([*names, "kl"], pulls.outputs.T, strict=True):
        columns[name] = [None if np.isnan(value) else float(value) for value in values]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())
