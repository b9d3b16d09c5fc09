import random

import pytest

from paretune.core.errors import ShapeError
from paretune.objectives import fluency as module
from paretune.objectives.fluency import fluency

STATEMENT = "I keep putting off calling my sister because I never have enough time, and I feel so guilty."
GOOD = "You feel guilty about putting off calling your sister, because you never have enough time."


def score(reply: str, statement: str = STATEMENT) -> float:
    (value,) = fluency([statement], [reply])
    assert value is not None
    return value


def test_good_replies_score_high_and_the_same_words_shuffled_low() -> None:
    shuffled = GOOD.lower().split()
    random.Random(0).shuffle(shuffled)
    assert score(GOOD) > 0.6
    assert score(" ".join(shuffled)) < 0.15


def test_the_score_is_the_published_line_through_the_judges_mean_log_probability() -> None:
    (likelihood,) = module.mean_log_probs([STATEMENT], [GOOD])
    assert score(GOOD) == pytest.approx((likelihood - module.LOW) / (module.HIGH - module.LOW))


def test_the_judges_mean_is_that_of_the_chain_rule_one_token_at_a_time() -> None:
    torch = pytest.importorskip("torch")
    model, tokenizer = module._judge()
    ids = tokenizer(module.TEMPLATE.format(prompt=STATEMENT))["input_ids"]
    steps = []
    for token in [*tokenizer(" You feel guilty.")["input_ids"], tokenizer.eos_token_id]:
        with torch.inference_mode():
            steps.append(model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)[token].item())
        ids = [*ids, token]
    assert module.mean_log_probs([STATEMENT], ["You feel guilty."]) == pytest.approx(
        [sum(steps) / len(steps)], abs=1e-4
    )


def test_a_reply_scores_the_same_alone_and_in_company() -> None:
    replies = [GOOD, "You feel guilty.", "What would help most right now?", ""] * 20
    rewards = fluency([STATEMENT] * len(replies), replies)
    assert rewards[:4] == pytest.approx([score(reply) for reply in replies[:4]], abs=1e-4)  # sums in another order


def test_leading_and_doubled_spaces_do_not_count() -> None:
    assert score("  " + GOOD.replace(" ", "  ")) == pytest.approx(score(GOOD))


@pytest.mark.parametrize("reply", ["", "   ", "...", "?!?", "12 34"])
def test_nothing_said_earns_nothing(reply: str) -> None:
    assert score(reply) == 0.0


@pytest.mark.parametrize("word", ["you", "guilty", "the", "sister"])
def test_one_word_repeated_earns_next_to_nothing(word: str) -> None:
    assert score(" ".join([word] * 12)) < 0.05


@pytest.mark.parametrize(
    "soup",
    [
        "afraid sad angry guilty lonely exhausted hurt torn proud",
        "putting calling sister time guilty",
        "zqx vbn wrt plk",
    ],
)
def test_heaps_of_keywords_earn_little(soup: str) -> None:
    assert score(soup) < 0.15


def test_a_copy_of_the_statement_earns_less_than_a_reply() -> None:
    assert score(STATEMENT) < score(GOOD) - 0.2


def test_a_sentence_said_twice_earns_less_than_once() -> None:
    assert score(f"{GOOD} {GOOD}") < 0.6 * score(GOOD)


def test_a_reply_cut_off_earns_less_than_one_that_ends() -> None:
    assert score(GOOD.rsplit(" ", 3)[0]) < score(GOOD)


def test_very_long_texts_and_any_script_can_be_scored() -> None:
    rewards = fluency([STATEMENT * 60, "我很难过", STATEMENT], [GOOD, "你很难过。", GOOD * 60])
    assert all(reward is not None and 0.0 <= reward <= 1.0 for reward in rewards)
    assert rewards[0] == pytest.approx(score(GOOD), abs=0.25)  # the end of the statement is what the judge read


def test_no_replies_give_no_rewards() -> None:
    assert fluency([], []) == []


def test_lists_of_unequal_length_are_refused() -> None:
    with pytest.raises(ShapeError, match="prompts must be one per completion"):
        fluency([STATEMENT], [])
