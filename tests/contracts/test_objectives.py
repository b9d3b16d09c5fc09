"""What every built-in objective keeps, whatever it measures."""

import itertools
import random
from pathlib import Path

import pytest

from paretune.core.task import Objective
from paretune.objectives import OBJECTIVES, fluency
from paretune.objectives.functions import load_function
from paretune.tasks.counselling import text

PROMPTS = [
    "I keep arguing with my wife about the rent, and I feel worn out.",
    "Nobody at work listens to me.",
    "Ich schlafe nicht – seit Wochen… 😞",
]
COMPLETIONS = [
    "",
    "   \n",
    "?!",
    "You keep arguing with your wife, and you feel worn out.",
    "You should call her. Have you tried that?",
    "Das klingt schwer… 你好 😞 \u0301\u200b",
    "sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad sad",
]
STATEMENT = next(text.statements("train", 0))  # the fluency judge knows text of the embedded task, and little else
PAIRS = [
    *itertools.product(PROMPTS, COMPLETIONS),
    *((STATEMENT.text, text.reply(STATEMENT, kind, random.Random(0))) for kind in text.KINDS if kind != "broken"),
]
BATCH_TOLERANCE = 1e-5  # fp32 sums of a padded batch in another order


@pytest.fixture(params=sorted(OBJECTIVES), scope="module")
def objective(request):
    if request.param == "fluency" and not Path(fluency.JUDGE).is_dir():
        pytest.skip("the fluency judge has not been trained in this checkout")
    return load_function(Objective(request.param, OBJECTIVES[request.param]))


def score(objective, pairs):
    prompts, completions = [list(side) for side in zip(*pairs, strict=True)]
    return objective(prompts=prompts, completions=completions, situation=["x"] * len(pairs))


@pytest.fixture(scope="module")
def scores(objective):
    return score(objective, PAIRS)


def test_every_completion_gets_one_value_in_the_range(scores):
    assert len(scores) == len(PAIRS)
    assert all(isinstance(value, float) and 0.0 <= value <= 1.0 for value in scores)


def test_an_empty_reply_wins_nothing(scores):
    assert [value for value, (_, completion) in zip(scores, PAIRS, strict=True) if not completion.strip()] == [0.0] * 6


def test_some_reply_is_better_than_another(scores):
    assert max(scores) - min(scores) > 0.2


def test_the_order_of_the_batch_does_not_matter(objective, scores):
    assert score(objective, PAIRS[::-1])[::-1] == pytest.approx(scores, abs=BATCH_TOLERANCE)


def test_a_reply_scores_alone_what_it_scores_in_a_batch(objective, scores):
    alone = [score(objective, [pair])[0] for pair in PAIRS]
    assert alone == pytest.approx(scores, abs=BATCH_TOLERANCE)


def test_an_empty_batch_gives_an_empty_list(objective):
    assert objective(prompts=[], completions=[]) == []
