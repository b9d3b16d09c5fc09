from __future__ import annotations

import numpy as np
import pytest

from paretune.bandits.off_policy import Estimate, Estimator, Log, estimate
from paretune.core.errors import ConfigError, NonFiniteError, ShapeError, UnknownNameError
from paretune.core.preferences import FloatArray

ESTIMATORS: tuple[Estimator, ...] = ("ips", "snips", "doubly_robust")
OTHER = "the policy that it is compared with"


def test_three_pulls_by_hand() -> None:
    # weights are 1 / .5, 0, 1 / .25; payoffs 1, 5, 2
    log = Log(
        np.asarray([0, 1, 0]), np.asarray([0.5, 0.5, 0.25]), np.asarray([1.0, 5.0, 2.0]),
        np.asarray([[0.5, 0.0], [1.0, 0.0], [2.0, 0.0]]),
    )  # fmt: skip
    target = np.tile([1.0, 0.0], (3, 1))
    assert estimate(log, target, "ips").value == pytest.approx((2 + 0 + 8) / 3)
    assert estimate(log, target, "snips").value == pytest.approx(10 / 6)
    # predictions .5, 1, 2 and corrections 2 (1 - .5), 0, 4 (2 - 2)
    found = estimate(log, target, "doubly_robust")
    assert found.value == pytest.approx((1.5 + 1 + 2) / 3)
    # 1.5, 1, 2 have variance .25; 1.96 * .5 / sqrt(3)
    assert found.high == pytest.approx(1.5 + 1.959964 * 0.5 / np.sqrt(3))
    assert found.effective_pulls == pytest.approx(36 / 20)
    assert found.pulls == 3
    other = np.tile([0.0, 1.0], (3, 1))
    difference = estimate(log, target, "ips", against=other)
    assert difference.value == pytest.approx((2 - 10 + 8) / 3)
    assert difference.effective_pulls == found.effective_pulls  # of the other, one
    for each in ESTIMATORS:
        alone = estimate(log, target, each).value, estimate(log, other, each).value
        both = estimate(log, target, each, against=other).value
        assert both == pytest.approx(alone[0] - alone[1])  # type: ignore[operator]  # there are values


def simulated(seed: int, pulls: int = 400) -> tuple[Log, FloatArray, float]:
    """Return a log, a target policy, and its true value: payoffs are known functions of context and arm."""
    generator = np.random.default_rng(seed)
    contexts = generator.normal(size=pulls)
    truth = np.stack([0.5 + 0.3 * contexts, 0.5 - 0.3 * contexts, np.full(pulls, 0.4)], axis=1)
    logging = np.stack([0.4 - 0.2 * np.tanh(contexts), *[0.3 + 0.1 * np.tanh(contexts)] * 2], axis=1)
    arms = (generator.random(pulls)[:, None] > logging.cumsum(axis=1)).sum(axis=1)
    rows = np.arange(pulls)
    payoffs = truth[rows, arms] + 0.1 * generator.normal(size=pulls)
    target = np.zeros((pulls, 3))
    target[rows, (contexts < 0).astype(int)] = 1.0
    model = truth + 0.1 * contexts[:, None] * np.asarray([1.0, -1.0, 0.0])  # wrong by a third of each slope
    # the best of two arms for a standard normal context: .5 + .3 E|c|
    return Log(arms, logging[rows, arms], payoffs, model), target, 0.5 + 0.3 * np.sqrt(2 / np.pi)


def test_estimates_are_unbiased_intervals_cover_and_the_doubly_robust_vary_least() -> None:
    found: dict[str, list[Estimate]] = {each: [] for each in ESTIMATORS}
    naive, value = [], 0.0
    for seed in range(300):
        log, target, value = simulated(seed)
        naive.append(float(log.payoffs.mean()))
        for each in ESTIMATORS:
            found[each].append(estimate(log, target, each, floor=0.1))
    deviations = {}
    for each, estimates in found.items():
        values = np.asarray([one.value for one in estimates])
        deviations[each] = values.std(ddof=1)
        # four standard errors of the mean of 300; the ratio of SNIPS has a bias of order 1 / 400
        assert values.mean() == pytest.approx(
            value, abs=4 * deviations[each] / np.sqrt(300) + 0.002 * (each == "snips")
        )
        covered = np.mean([one.low <= value <= one.high for one in estimates])  # type: ignore[operator]  # all have one
        assert 0.91 <= covered <= 0.99  # .95 with a standard error of .0126
    assert deviations["doubly_robust"] < 0.8 * deviations["snips"] < 0.8 * deviations["ips"]
    assert abs(np.mean(naive) - value) > 0.05  # what the log itself earned is another thing


def test_a_model_that_is_right_leaves_nothing_to_chance_but_contexts_and_noise() -> None:
    log, target, _ = simulated(0)
    assert log.predictions is not None
    exact = Log(log.arms, log.propensities, log.predictions[np.arange(400), log.arms], log.predictions)
    wanted = (target * log.predictions).sum(axis=1).mean()
    assert estimate(exact, target).value == pytest.approx(wanted, abs=1e-12)


def test_propensities_below_the_floor_are_refused_or_clipped_and_counted() -> None:
    log = Log(np.asarray([0, 0]), np.asarray([0.01, 0.5]), np.asarray([1.0, 1.0]))
    target = np.ones((2, 1))
    with pytest.raises(ConfigError, match=r"propensities must be at least the floor 0.05, got 1 of 2 below it"):
        estimate(log, target, "ips", floor=0.05)
    clipped = estimate(log, target, "ips", floor=0.05, below="clip")
    assert (clipped.clipped, clipped.value) == (1, pytest.approx((20 + 2) / 2))
    assert (estimate(log, target, "ips").clipped, estimate(log, target, "ips").value) == (0, pytest.approx(51))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_a_log_does_not_tell_is_no_number(estimator: Estimator) -> None:
    """Two pulls of the first arm say nothing of a policy that takes the second; 0 would be a value with no doubt."""
    log = Log(np.asarray([0, 0]), np.asarray([0.5, 0.5]), np.asarray([1.0, 3.0]), np.asarray([[1.0, 2.0]] * 2))
    always, never = np.asarray([[1.0, 0.0]] * 2), np.asarray([[0.0, 1.0]] * 2)
    assert estimate(log, always, estimator).value is not None
    own, other = (f"no pull of the log is one that {who} would have made" for who in ("the policy", OTHER))
    for target, against, pulls, reason in (
        (never, None, 0, own), (always, never, 2, other), (never, always, 0, own), (never, never, 0, own)
    ):  # fmt: skip
        found = estimate(log, target, estimator, against=against)
        assert (found.value, found.low, found.high) == (None, None, None)
        assert (found.pulls, found.effective_pulls) == (2, pulls)
        assert found.reason == reason


def test_one_pull_has_a_value_and_no_interval() -> None:
    one = estimate(Log(np.asarray([0]), np.ones(1), np.ones(1)), np.ones((1, 1)), "ips")
    assert (one.value, one.low, one.reason) == (1, None, "one pull has no interval")


def test_what_is_no_log_is_refused() -> None:
    arms, chances, payoffs = np.asarray([0, 1]), np.asarray([0.5, 0.5]), np.ones(2)
    with pytest.raises(ShapeError, match="a log must have one entry for each pull"):
        Log(arms, chances, np.ones(3))
    with pytest.raises(NonFiniteError, match="must be finite, got NaN"):
        Log(arms, chances, np.asarray([np.nan, 1.0]))
    for wrong in (0.0, 1.5):
        with pytest.raises(ConfigError, match="propensities must be above 0 and at most 1"):
            Log(arms, np.asarray([wrong, 0.5]), payoffs)
    log = Log(arms, chances, payoffs)
    with pytest.raises(ShapeError, match="target must have a row for each of 2 pulls"):
        estimate(log, np.ones((2, 1)))
    with pytest.raises(ConfigError, match="doubly_robust must have predictions"):
        estimate(log, np.full((2, 2), 0.5))
    with pytest.raises(UnknownNameError, match="estimator must be one of"):
        estimate(log, np.full((2, 2), 0.5), "dr")  # type: ignore[arg-type]  # that is the point


def test_arms_that_are_no_numbers_of_arms_are_refused() -> None:
    for own in (np.asarray([0, -1]), np.asarray([0.0, 1.0])):  # -1 would be the last arm
        with pytest.raises(ShapeError, match=r"arms of a log must be whole numbers from 0 on, got (int|float)64 from"):
            Log(own, np.full(2, 0.5), np.ones(2))


@pytest.mark.parametrize(
    ("predictions", "error", "message"),
    [
        ([[0.1, np.nan], [0.1, 0.2]], NonFiniteError, "predictions of a log must be finite, got NaN or infinity"),
        ([0.1, 0.2], ShapeError, r"predictions of a log must be of all arms, \[N, A\], got shape \[2\]"),
        ([[0.1] * 3] * 2, ShapeError, "target must have a column for each of the 3 arms that are predicted, got 2"),
        ([[0.1]] * 2, ShapeError, "target must have a column for each of the 1 arms that are predicted, got 2"),
    ],
)
def test_predictions_of_no_number_or_of_other_arms_are_refused(
    predictions: list[object], error: type[Exception], message: str
) -> None:
    half = np.full((2, 2), 0.5)
    with pytest.raises(error, match=message):
        estimate(Log(np.asarray([0, 1]), np.full(2, 0.5), np.ones(2), np.asarray(predictions)), half)


@pytest.mark.parametrize(
    ("row", "got"),
    [([1.5, -0.5], r"\[1\.5, -0\.5\] \(sum 1\)"), ([0.5, 0.4], r".*\(sum 0\.9\)"), ([np.nan, 1.0], ".*nan")],
)
def test_chances_that_are_no_distribution_are_refused(row: list[float], got: str) -> None:
    log, half = Log(np.asarray([0, 1]), np.full(2, 0.5), np.ones(2)), np.full((2, 2), 0.5)
    wrong = np.asarray([[0.5, 0.5], row])
    with pytest.raises(ConfigError, match=f"target must be non-negative and sum to 1 in every row, got {got}.*row 1"):
        estimate(log, wrong, "ips")
    with pytest.raises(ConfigError, match="against must be non-negative and sum to 1"):
        estimate(log, half, "ips", against=wrong)
