from __future__ import annotations

import builders
from paretune.core.protocols import MetricValue
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons
from paretune.report.controls import controls_of, controls_sentence
from paretune.report.findings import findings

NAMES = ("kind", "short")
QUESTION = "Do dynamic methods beat shuffled feedback?"
METHODS = {
    "dorb": {"method": "dorb", "feedback": "measured", "learning_rate": 0.1},
    "dorb_slow": {"method": "dorb", "feedback": "measured", "learning_rate": 0.01},
    "control": {"method": "dorb", "feedback": "shuffled", "learning_rate": 0.1},
    "linear": {"method": "linear", "learning_rate": 0.1},
}


def value(*seeds: float) -> MetricValue:
    return MetricValue(sum(seeds) / len(seeds), per_seed=dict(enumerate(seeds)))


def test_a_control_has_all_settings_but_the_feedback() -> None:
    assert controls_of(METHODS) == {"dorb": "control"}
    assert controls_of({"linear": METHODS["linear"], "control": METHODS["control"]}) == {}
    assert controls_of(None) == {}


def test_a_method_above_its_control_in_every_seed_beats_it() -> None:
    text = controls_sentence({"dorb": "control"}, "J", {"dorb": value(0.9, 0.91), "control": value(0.5, 0.5)})
    assert text.endswith("dorb +0.405 [+0.341, +0.469]. dorb beats it.")


def test_a_method_within_noise_of_its_control_is_said_not_to_beat_it() -> None:
    text = controls_sentence({"dorb": "control"}, "J", {"dorb": value(0.9, 0.5), "control": value(0.5, 0.8)})
    assert text.endswith("dorb does not beat it: nothing shows that measuring helped.")


def test_a_method_below_its_control_does_not_beat_it() -> None:
    text = controls_sentence({"dorb": "control"}, "J", {"dorb": value(0.5, 0.5), "control": value(0.9, 0.91)})
    assert "dorb does not beat it" in text


def test_a_method_that_is_its_control_in_every_seed_says_nothing_of_measuring() -> None:
    values = {"dorb": value(0.5, 0.7), "control": value(0.5, 0.7), "slow": value(0.9, 0.5), "idle": value(0.5, 0.8)}
    alike = "dorb and its control are identical policies: there were too few pulls to tell them apart."
    text = controls_sentence({"dorb": "control"}, "J", values)
    assert text.endswith(f"dorb +0.000 [+0.000, +0.000]. {alike}")
    assert "beat it" not in text
    text = controls_sentence({"dorb": "control", "slow": "idle"}, "J", values)
    assert text.endswith(f". slow does not beat it: nothing shows that measuring helped. {alike}")
    most = {**values, "dorb": value(0.5, 0.7000001)}  # one seed apart
    assert "dorb does not beat it" in controls_sentence({"dorb": "control"}, "J", most)


def test_one_seed_shows_nothing() -> None:
    text = controls_sentence({"dorb": "control"}, "J", {"dorb": value(0.9), "control": value(0.5)})
    assert "dorb does not beat it" in text


def test_the_number_of_methods_is_corrected_for() -> None:
    """Alone its p-value of .04 would do; beside two others that differ from nothing it does not."""
    pair = {"dorb": value(1.0, 1.3, 1.75), "control": value(0.0, 0.0, 0.0)}
    assert controls_sentence({"dorb": "control"}, "J", pair).endswith("dorb beats it.")
    same = {name: value(0.5, 0.4, 0.6) for name in ("b", "c", "d")} | {
        name: value(0.5, 0.6, 0.4) for name in ("b0", "c0", "d0")
    }
    many = controls_sentence({"dorb": "control", "b": "b0", "c": "c0", "d": "d0"}, "J", pair | same)
    assert "dorb, b, c and d do not beat it" in many


def test_findings_say_it_where_a_study_has_a_control() -> None:
    info = builders.task_info(preferences=[[1, 0], [0, 1]], objectives=NAMES, audit=(), test_prompts=1, samples=1)
    cells = [
        builders.cell(
            method, seed, [builders.evaluation([[score + 0.01 * seed] * 2], each, NAMES) for each in info.preferences]
        )
        for method, score in (("dorb", 0.6), ("control", 0.65), ("linear", 0.7))
        for seed in range(3)
    ]
    (part,) = comparisons(builders.study(cells, [info], {}))
    rows = measure_all(builders.study(cells, [info], {}))
    said = {each.question: each.answer for each in findings(part, rows, {"dorb": "control"})}
    assert said[QUESTION].endswith("dorb does not beat it: nothing shows that measuring helped.")
    assert QUESTION not in {each.question for each in findings(part, rows)}
