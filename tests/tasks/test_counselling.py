import pytest

from paretune.core.errors import ModelError
from paretune.core.task import SPLITS
from paretune.tasks import counselling, load_task


@pytest.fixture
def task():
    if not counselling.MODEL.is_dir():
        pytest.skip("the base model has not been trained in this checkout")
    return load_task("counselling")


def test_the_task_is_what_its_page_says(task):
    assert task.name == task.source == "counselling"
    assert task.objective_names == ("reflection", "empathy", "brevity")
    assert [objective.name for objective in task.audit] == ["fluency"]
    assert task.reference_point == (0.0, 0.0, 0.0)
    assert task.prompt_format.text("Hi.") == "Client: Hi.\nCounselor:"
    assert {objective.range for objective in task.objectives} == {(0.0, 1.0)}
    assert all(0 < objective.pass_threshold < 1 for objective in task.objectives)


def test_prompts_are_distinct_and_their_situations_unseen(task):
    rows = [row for split in SPLITS for row in task.splits[split]]
    assert len({row["prompt"] for row in rows}) == len(rows)
    situations = [{row["situation"] for row in task.splits[split]} for split in SPLITS]
    assert not situations[0] & situations[1]
    assert not situations[0] & situations[2]


def test_its_keys_repeat(task):
    again = load_task("counselling")
    assert again.training_key() == task.training_key()
    assert again.evaluation_key() == task.evaluation_key()


def test_its_prompts_fit_its_model(task):
    from transformers import AutoTokenizer

    from paretune.core.prompt_format import PromptEncoder
    from paretune.tasks.checks import check_prompts

    check_prompts(task, PromptEncoder.of(AutoTokenizer.from_pretrained(task.model)))


def test_its_rewards_score_replies(task):
    from paretune.objectives.scoring import Scorer

    row = task.splits["test"][0]
    scores = Scorer(task.objectives)([row, row], ["I hear you.", ""])
    assert set(scores.statuses.ravel()) == {"ok"}
    assert scores.rewards[1].tolist() == [0.0, 0.0, 0.0]


def test_a_missing_model_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(counselling, "MODEL", tmp_path / "base")
    with pytest.raises(ModelError, match=r"model of the counselling task must lie in .*recipes/counselling_models"):
        load_task("counselling")
