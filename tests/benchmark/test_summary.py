from __future__ import annotations

from pathlib import Path
from typing import Any

import builders
from paretune.benchmark.plan import plan
from paretune.benchmark.planned import StudyResult
from paretune.benchmark.runner import planned_records
from paretune.benchmark.summary import plan_text, summary
from paretune.report.completeness import OWN_UTILITY


def test_missing_rewards_are_said_in_the_terminal_with_objective_cause_and_what_to_do() -> None:
    whole, holed = builders.synthetic_study(), builders.synthetic_study(missing=3)
    assert "rewards are missing" not in summary(StudyResult(Path("s"), Path("s/index.html"), whole))
    text = summary(StudyResult(Path("s"), Path("s/index.html"), holed))
    assert "test rewards are missing: " in text
    assert "Mend the reward function" in text


def test_a_plan_says_how_many_policies_or_experts_each_method_trains_and_which_trains_one_for_all(
    tmp_path: Path,
) -> None:
    study = {
        "tasks": ["counselling"],
        "methods": {
            "linear": {},
            "weight_grid": {},
            "rewarded_soups": {},
            "slow": {"method": "linear", "epochs": 1},
            "mixture_of_experts": {},
            "evolution": {},
        },
        "budget": {"completions": [1200, 6000]},
        "seeds": 1,
    }
    text = plan_text(plan(study, tmp_path))
    # linear: 1,200 and 6,000 over 1,500 each; weight_grid: corners and centre at least; soups: one an objective
    assert (
        "policies: linear 1, weight_grid 4, slow 1, evolution as many as it finds, one_policy 1 "
        "(trained for counselling, 1,200 completions)\n"
        "experts:  rewarded_soups 3, mixture_of_experts 3 (combined to a policy for each preference; trained for "
        "counselling, 1,200 completions)" in text
    )
    assert (
        "policies: linear 4, weight_grid 4, slow 4, evolution as many as it finds, one_policy 1 "
        "(trained for counselling, 6,000 completions)\n"
        "experts:  rewarded_soups 3, mixture_of_experts 3 (combined to a policy for each preference; trained for "
        "counselling, 6,000 completions)" in text
    )
    assert text.count("one policy only") == 2
    assert "note:     slow (linear) trains one policy only on 1,200 completions" in text  # which method that is
    assert "note:     linear trains one policy only on 1,200 completions, and it answers every preference. Each" in text


def test_a_plan_notes_once_for_each_row_where_policies_get_few_updates(tmp_path: Path) -> None:
    study = {
        "tasks": ["counselling"],
        "methods": {
            "linear": {"completions_each": 200},
            "often": {"method": "linear", "completions_each": 200, "completions_per_update": 8},
            "mixture_of_experts": {},
            "weight_grid": {},
            "evolution": {},
        },
        "preferences": {"grid": 1},
        "budget": {"completions": [800, 6000]},
        "seeds": 2,
    }
    notes = [line for line in plan_text(plan(study, tmp_path)).splitlines() if "too few" in line]
    few = "often too few to tell methods apart"
    # linear: 800 over corners and centre, 200 each: 4 updates of 64, the last not whole; of 8 completions that is 25.
    # The bank of one policy takes all 800 at once, 13 updates; four policies of a grid share what selection leaves.
    assert notes == [
        f"note:     linear trains policies of 200 completions, 4 updates each: {few}",
        f"note:     weight_grid trains policies of 144 completions, 3 updates each: {few}",
    ]


def test_a_plan_names_the_rows_that_hear_nothing_of_what_a_prompts_user_wants(tmp_path: Path) -> None:
    settings = {"rho": -0.8, "heterogeneity": 0.5}
    study = {
        "tasks": [{"controlled": {**settings, "context": 0.6}}],
        "methods": {
            "mixture_of_experts": {"gate": "prompt"},
            "hears": {"method": "mixture_of_experts", "gate": "prompt", "feedback": "utility"},
            "linear": {},
        },
        "budget": {"completions": 1024},
        "seeds": 2,
    }
    notes = [line for line in plan_text(plan(study, tmp_path)).splitlines() if "depends on the prompt" in line]
    assert len(notes) == 1
    assert "mixture_of_experts and linear are told weights alone" in notes[0]  # one_policy stands in every study
    assert "feedback: utility" in notes[0]
    for quiet in ({"tasks": [{"controlled": settings}]}, {"methods": {"hears": study["methods"]["hears"]}}):
        assert "depends on the prompt" not in plan_text(plan({**study, **quiet}, tmp_path / next(iter(quiet))))


def test_a_plan_says_what_rows_cost_more_whose_longer_budgets_do_not_go_on_from_shorter_ones(tmp_path: Path) -> None:
    study = {
        "tasks": ["counselling"],
        "methods": {
            "linear": {},
            "gated_experts": {},
            "pilots": {"method": "bone_soups", "pilot_share": 0.5, "completions_per_update": 8},
        },
        "preferences": {"grid": 1},
        "budget": {"completions": [3000, 6000]},
        "seeds": 2,
    }
    notes = [line for line in plan_text(plan(study, tmp_path)).splitlines() if "anew" in line]
    # gated_experts: what the gate of 3,000 is trained with, a quarter in groups of 8, twice 744; its experts go on.
    # pilots: they go on; what they are measured with, 3 betas for 7 preferences with 64 each, and the experts behind
    # the choice do not: for each seed 1344 and 3000 - 1344 - 152 = 1504 more. linear: 16 are not worth a line.
    assert notes == [
        f"note:     {label} trains some or all of its stages anew for each budget: {made} completions together, where "
        "the longest budget alone takes 12,000"
        for label, made in (("gated_experts", "13,488"), ("pilots", "17,696"))
    ]
    once = {**study, "budget": {"completions": 6000}}
    assert "anew" not in plan_text(plan(once, tmp_path))


def test_a_plan_has_no_note_where_policies_get_ten_updates(tmp_path: Path) -> None:
    study = {"tasks": ["counselling"], "methods": {"linear": {}}, "budget": {"completions": 6000}, "seeds": 1}
    assert "too few" not in plan_text(plan(study, tmp_path))


def test_a_plan_notes_which_rows_train_for_a_utility_that_they_are_not_ranked_by(tmp_path: Path) -> None:
    study: dict[str, Any] = {
        "tasks": ["counselling"],
        "methods": {
            "chebyshev": {},
            "enough": {"method": "thresholds", "level": "expected"},
            "thresholds": {},
            "linear": {},
        },
        "budget": {"completions": [6000, 12000]},
        "seeds": 1,
    }
    whole = plan_text(plan(study, tmp_path, measure=False))
    advice = f'Add metrics: ["{OWN_UTILITY}"] to the study to see it.'
    assert [line for line in whole.splitlines() if "own utility" in line] == [
        f"note:     chebyshev trains for its own utility and is ranked by the weighted sum. {advice}",
        f"note:     enough (thresholds) trains for its own utility and is ranked by the weighted sum. {advice}",
    ]
    asked = plan_text(plan({**study, "metrics": [OWN_UTILITY]}, tmp_path, measure=False))  # as the note writes it
    assert "weighted sum. 'Utility by kind' values it by its own." in asked
    assert "Add metrics" not in asked


def test_a_method_that_never_divides_its_budget_is_not_told_to(tmp_path: Path) -> None:
    """On 1,200 completions both train one policy of 1,500; one of them would train two on 3,000."""
    study = {
        "tasks": ["counselling"],
        "methods": {"linear": {}, "published": {"method": "dynaopt", "mode": "faithful"}},
        "budget": {"completions": 1200},
        "seeds": 1,
    }
    planned = plan(study, tmp_path)
    notes = [line for line in plan_text(planned).splitlines() if "one policy only" in line]
    assert len(notes) == 2
    assert "note:     linear trains" in notes[0]
    assert notes[0].endswith("Each policy takes 1,500 (completions_each): raise the budget, or lower that.")
    assert "note:     published (dynaopt) trains" in notes[1]
    assert notes[1].endswith("It is made so: no budget gives it another.")
    assert planned_records(planned).resolved["undivided"] == ["published"]  # for the report


def test_a_method_with_one_policy_for_all_preferences_is_noted() -> None:
    one, two = (
        summary(StudyResult(Path("s"), Path("s/index.html"), builders.study_of_experts(experts))) for experts in (1, 2)
    )
    (note,) = (line for line in one.splitlines() if line.startswith("note:"))
    assert "linear trains one policy only on 6,000 completions" in note
    assert "note:" not in two
