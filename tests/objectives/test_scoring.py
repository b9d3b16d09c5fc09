import re
import textwrap

import numpy as np
import pytest

from paretune.core.errors import RewardError, ShapeError, TaskError
from paretune.core.task import Objective
from paretune.objectives.scoring import Scorer, read_outcome

REWARDS = """
import asyncio

def good(prompts, completions, **columns): return [0.5] * len(completions)
def lengths(completions, **columns): return [len(text) / 10 for text in completions]
def answer(completions, answer, **columns): return [float(text == a) for text, a in zip(completions, answer)]
def batch_size(completions, **columns): return [len(completions) / 100] * len(completions)
def none_for_a(completions, **columns): return [None if text == "a" else 1.0 for text in completions]
def short(completions, **columns): return [0.5] * (len(completions) - 1)
def scalar(completions, **columns): return 0.5
def nothing(completions, **columns): pass
def odd(completions, **columns): return [float("nan"), float("inf"), 2.0, -0.1, "0.5", 1.0]
def raises(completions, **columns): raise KeyError("label")
async def raises_late(completions, **columns):
    await asyncio.sleep(0)
    raise OSError("server is down")
async def good_late(completions, **columns):
    await asyncio.sleep(0)
    return [0.25] * len(completions)
def interrupted(completions, **columns): raise KeyboardInterrupt
def leaves(completions, **columns): raise SystemExit(3)
"""


@pytest.fixture
def scorer(tmp_path):
    (tmp_path / "rewards.py").write_text(textwrap.dedent(REWARDS))

    def make(*names, **changes):
        return Scorer([Objective(name, f"rewards:{name}", import_path=str(tmp_path), **changes) for name in names])

    return make


def rows(count, **columns):
    return [{"prompt": f"p{index}", "prompt_id": str(index), **columns} for index in range(count)]


def problems(scorer):
    return {(problem.objective, problem.status): (problem.count, problem.example) for problem in scorer.problems}


def test_rewards_are_a_matrix_in_the_order_of_the_objectives(scorer):
    scores = scorer("lengths", "good_late", "good")(rows(2), ["ab", "abcd"])
    assert scores.rewards.tolist() == [[0.2, 0.25, 0.5], [0.4, 0.25, 0.5]]
    assert scores.statuses.tolist() == [["ok"] * 3] * 2


def test_columns_reach_the_function(scorer):
    scores = scorer("answer")([{"prompt": "p", "answer": "4"}, {"prompt": "p", "answer": "5"}], ["4", "4"])
    assert scores.rewards[:, 0].tolist() == [1.0, 0.0]


def test_none_is_missing_and_not_zero(scorer, caplog):
    score = scorer("none_for_a")
    scores = score(rows(2), ["a", "b"])
    assert caplog.messages == []  # a function may say None
    assert np.isnan(scores.rewards[0, 0])
    assert scores.rewards[1, 0] == 1.0
    assert scores.statuses[:, 0].tolist() == ["missing", "ok"]
    assert problems(score) == {("none_for_a", "missing"): (1, "returned None for completion 0 of 2")}


@pytest.mark.parametrize(
    ("name", "example"),
    [
        ("short", "returned 1 values for 2 completions"),
        ("scalar", "returned a float in place of a list for 2 completions"),
        ("nothing", "returned a NoneType in place of a list for 2 completions"),
    ],
)
def test_a_wrong_length_costs_the_whole_objective_and_no_other(scorer, name, example):
    score = scorer("good", name)
    scores = score(rows(2), ["a", "b"])
    assert scores.statuses.tolist() == [["ok", "wrong_length"]] * 2
    assert np.isnan(scores.rewards[:, 1]).all()
    assert scores.rewards[:, 0].tolist() == [0.5, 0.5]
    assert problems(score) == {(name, "wrong_length"): (2, example)}


def test_numbers_that_are_none_or_outside_the_range_are_not_clipped_to_it(scorer):
    score = scorer("odd")
    scores = score(rows(6), list("abcdef"))
    assert scores.statuses[:, 0].tolist() == ["not_finite"] * 2 + ["out_of_range"] * 2 + ["not_finite", "ok"]
    assert np.isnan(scores.rewards[:5, 0]).all()
    assert problems(score) == {
        ("odd", "not_finite"): (3, "returned nan for completion 0 of 6"),
        ("odd", "out_of_range"): (2, "returned 2, outside [0, 1], for completion 2 of 6"),
    }


def test_rounding_at_the_ends_of_a_range_is_no_error():
    rewards, statuses, found = read_outcome([1.0000000001, -1e-9, 0.1 + 0.2], 3, Objective("x", "m:f"))
    assert rewards.tolist() == [1.0, 0.0, 0.1 + 0.2]
    assert set(statuses) == {"ok"}
    assert found == []


def test_arrays_and_tensors_are_lists_too():
    torch = pytest.importorskip("torch")
    for outcome in (np.array([0.5, 1.0]), torch.tensor([0.5, 1.0]), (np.float32(0.5), torch.tensor(1.0)), [0.5, True]):
        assert read_outcome(outcome, 2, Objective("x", "m:f"))[0].tolist() == [0.5, 1.0]
    assert set(read_outcome(np.ones((2, 1)), 2, Objective("x", "m:f"))[1]) == {"wrong_length"}


@pytest.mark.parametrize(
    ("name", "example"), [("raises", "KeyError: 'label'"), ("raises_late", "OSError: server is down")]
)
def test_what_raises_is_missing_with_the_first_traceback_kept_and_logged(scorer, name, example, caplog):
    score = scorer("good", name)
    scores = score(rows(3), ["a", "b", "c"])
    score(rows(1), ["a"])
    (logged,) = caplog.messages  # the first time, not every time
    assert re.match(
        rf"no score: {name} \(rewards:{name}\) raised {example} \(rewards\.py, line \d+\)\. Its scores are left out",
        logged,
    )
    assert "run again.\nTraceback" in logged
    assert scores.statuses[:, 1].tolist() == ["raised"] * 3
    assert np.isnan(scores.rewards[:, 1]).all()
    (problem,) = score.problems
    assert (problem.status, problem.count) == ("raised", 4)
    assert problem.example.startswith(f"{example} (rewards.py, line ")
    assert "rewards.py" in problem.traceback


@pytest.mark.parametrize(("name", "stop"), [("interrupted", KeyboardInterrupt), ("leaves", SystemExit)])
def test_a_wish_to_stop_passes(scorer, name, stop):
    with pytest.raises(stop):
        scorer("good", name)(rows(1), ["a"])


def test_a_batch_without_any_score_is_an_error_that_names_each_function(scorer):
    message = (
        r"rewards must give at least one score for a batch of 2 completions, got none: "
        r"raises \(rewards:raises\) raised KeyError: 'label' \(rewards\.py, line \d+\); "
        r"short \(rewards:short\) returned 1 values.*"
        r"Correct the reward functions"
    )
    with pytest.raises(RewardError, match=message) as caught:
        scorer("raises", "short")(rows(2), ["a", "b"])
    assert "The first traceback:\nTraceback" in str(caught.value)


def test_one_score_or_one_none_is_enough_to_go_on(scorer):
    scores = scorer("none_for_a", "raises")(rows(1), ["a"])
    assert scores.statuses.tolist() == [["missing", "raised"]]


def test_scores_say_what_each_objective_did_wrong_in_their_batch(scorer):
    score = scorer("good", "raises", "none_for_a")
    for _ in range(2):  # each time, not only the first
        before, told, after = score(rows(2), ["a", "b"]).faults
        assert (before, after) == ("", "")
        assert told.startswith("raises (rewards:raises) raised KeyError: 'label' (rewards.py, line ")


def test_an_empty_batch_calls_nobody(scorer):
    scores = scorer("raises", "good")([], [])
    assert scores.rewards.shape == scores.statuses.shape == (0, 2)


def test_built_in_objectives_score_equal_pairs_once(monkeypatch):
    from paretune.objectives import brevity

    seen = []
    original = brevity.brevity

    def counted(prompts, completions, **columns):
        seen.append(list(completions))
        return original(prompts, completions, **columns)

    monkeypatch.setattr(brevity, "brevity", counted)
    score = Scorer([Objective("brevity", "paretune.objectives.brevity:brevity")])
    row, other = rows(2)
    scores = score([row, row, other, row], ["I hear you.", "I hear you.", "I hear you.", "Hm."])
    assert seen == [["I hear you.", "I hear you.", "Hm."]]  # one pair of `row`, one of `other`, one of another reply
    assert scores.rewards[:, 0].tolist() == [1.0, 1.0, 1.0, pytest.approx(1 / 3)]


def test_a_users_function_sees_the_whole_batch(scorer):
    row = rows(1)[0]
    assert scorer("batch_size")([row] * 3, ["a"] * 3).rewards[:, 0].tolist() == [0.03] * 3


def test_rows_and_completions_of_different_number_are_refused(scorer):
    with pytest.raises(ShapeError, match=r"rows must be one per completion \(1\), got 2\. Repeat the rows\."):
        scorer("good")(rows(2), ["a"])


def test_a_reward_that_is_nowhere_is_refused_before_the_first_batch(tmp_path):
    with pytest.raises(TaskError, match=r"module of 'absent:f' must be importable"):
        Scorer([Objective("x", "absent:f", import_path=str(tmp_path))])
