from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paretune.core.errors import RecordError
from paretune.records.outcomes import (
    SCALES,
    SCHEMA,
    OutcomeRecord,
    TruthRecord,
    read_outcome,
    read_truth,
    write_outcome,
)

RANDOM = np.random.default_rng(0)
OUTCOME = OutcomeRecord(
    preferences=np.asarray([[1.0, 0.0], [1 / 3, 2 / 3]]),
    scales=np.asarray(SCALES),
    rewards=RANDOM.random((2, len(SCALES), 4, 2)),
    kl=RANDOM.random((2, len(SCALES), 4)),
    exact=True,
    seconds=0.5,
)
TRUTH = TruthRecord(
    beta=0.1,
    reference_rewards=np.asarray([[0.4, 0.6], [0.6, 0.6]]),
    preferences=np.asarray([[1.0, 0.0]]),
    rewards=np.asarray([[[0.8, 0.5], [0.9, 0.5]]]),
    kl=np.asarray([[1.0, 2.0]]),
    front_preferences=np.eye(2),
    front_scores=np.eye(2),
)


def test_what_policies_do_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    write_outcome(tmp_path / "outcome.json", OUTCOME)
    read = read_outcome(tmp_path / "outcome.json")
    for name, value in vars(OUTCOME).items():
        assert np.array_equal(getattr(read, name), value), name
    assert read.exact is True


def test_what_can_be_reached_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    write_outcome(tmp_path / "truth.json", TRUTH)
    read = read_truth(tmp_path / "truth.json")
    for name, value in vars(TRUTH).items():
        assert np.array_equal(getattr(read, name), value), name


def test_a_missing_kl_stays_missing_and_keeps_its_reason(tmp_path: Path) -> None:
    kl = OUTCOME.kl.copy()
    kl[1] = np.nan
    written = replace(OUTCOME, kl=kl, exact=False, reason="it can only be sampled")
    write_outcome(tmp_path / "outcome.json", written)
    assert json.loads((tmp_path / "outcome.json").read_text())["kl"][1][0] == [None] * 4  # JSON has no NaN
    read = read_outcome(tmp_path / "outcome.json")
    assert np.array_equal(read.kl, kl, equal_nan=True)
    assert read.kl.dtype == np.float64
    assert (read.exact, read.reason) == (False, "it can only be sampled")


def test_a_scale_is_found_by_its_value() -> None:
    rewards, kl = OUTCOME.at_scale(0.25)
    assert np.array_equal(rewards, OUTCOME.rewards[:, 1])
    assert np.array_equal(kl, OUTCOME.kl[:, 1])
    assert SCALES[0] == 0  # the base model
    assert SCALES[-1] == 1  # the policy itself


def test_a_scale_that_was_not_scored_is_refused() -> None:
    with pytest.raises(RecordError, match=r"scale must be one of 0, 0\.25, 0\.5, 0\.75, 1, got 0\.3\."):
        OUTCOME.at_scale(0.3)


def test_scores_are_rewards_less_the_price_of_kl() -> None:
    """Mean reward (0.85, 0.5), mean KL 1.5 at beta 0.1."""
    assert TRUTH.scores.tolist() == [pytest.approx([0.7, 0.35])]
    assert TRUTH.reference_scores.tolist() == pytest.approx([0.5, 0.6])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": SCHEMA + 1}, f"must have schema version {SCHEMA}, got {SCHEMA + 1}"),
        ({"kl": "none"}, "must have all its fields, got trouble with"),
        ({"kl": [[1.0], [1.0, 2.0]]}, "must have all its fields, got trouble with"),
        ({"more": 1}, "must have all its fields, got trouble with .*'more'"),
    ],
)
def test_a_record_of_another_shape_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    write_outcome(path, OUTCOME)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(RecordError, match=message):
        read_outcome(path)


def test_a_record_that_lacks_a_field_or_is_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "outcome.json"
    write_outcome(path, OUTCOME)
    with pytest.raises(RecordError, match="must have all its fields"):
        read_truth(path)
    plain = json.loads(path.read_text())
    del plain["schema_version"]
    path.write_text(json.dumps(plain))
    with pytest.raises(RecordError, match="must have all its fields, got trouble with 'schema_version'"):
        read_outcome(path)
    path.write_text("[]")
    with pytest.raises(RecordError, match="must have all its fields"):
        read_outcome(path)
    path.write_text('{"schema_version": 1, "kl"')
    with pytest.raises(RecordError):
        read_outcome(path)
    path.unlink()
    with pytest.raises(RecordError):
        read_outcome(path)
