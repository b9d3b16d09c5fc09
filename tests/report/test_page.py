from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import builders
from paretune.core.protocols import MetricRow, MetricValue
from paretune.metrics import measure_all
from paretune.records.evaluation import EvaluationRecord
from paretune.records.study import CellRecord, StudyRecords
from paretune.report.completeness import OWN_UTILITY
from paretune.report.embedded_data import embedded_json
from paretune.report.metric_parts import remarks
from paretune.report.page import page_text, render_page
from paretune.report.section import blocks
from paretune.report.sections import SECTIONS
from paretune.report.tables import results_table, to_csv
from paretune.report.view import View, shown_preferences

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=1>",
    '"><svg onload=window.pwned=1>',
    "' onmouseover='window.pwned=1",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "]]></style><a href=https://example.org>x</a>",
    "\u2028\u2029&lt;b&gt;",
)
EIGHT_MEGABYTES = 8_000_000


class Outline(HTMLParser):
    """Start tags with their attributes, text, and the contents of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.inside = tag

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts.append(data)
        elif self.inside != "style":
            self.text.append(data)


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    return parser


def render(study: StudyRecords, rows: list[MetricRow] | None = None) -> str:
    return render_page(study, measure_all(study) if rows is None else rows)


def words(page: str) -> str:
    return " ".join("".join(outline(page).text).split())


def poisoned(study: StudyRecords, poison: str) -> StudyRecords:
    """Put a text into every name, prompt, completion and message of a study."""
    names = {name: name + poison for name in builders.OBJECTIVES + builders.AUDIT}

    def record(each: EvaluationRecord) -> EvaluationRecord:
        return replace(
            each,
            objectives=tuple(names[name] for name in each.objectives),
            audit=tuple(names[name] for name in each.audit),
            prompt_ids=tuple(text + poison for text in each.prompt_ids),
            prompts=tuple(text + poison for text in each.prompts),
            completions=tuple(text + poison for text in each.completions),
        )

    def cell(each: CellRecord) -> CellRecord:
        stages = tuple(replace(stage, kind=stage.kind + poison) for stage in each.stages)
        return replace(
            each,
            method=each.method + poison,
            task=each.task + poison,
            message=each.message + poison,
            stages=stages,
            evaluations=tuple(record(evaluation) for evaluation in each.evaluations),
        )

    (task,) = study.tasks.values()
    objectives = tuple(replace(each, name=names[each.name]) for each in task.objectives)
    info = replace(task, name=task.name + poison, model=task.model + poison, objectives=objectives)
    return replace(
        study,
        name=study.name + poison,
        resolved={"tasks": [poison], poison: poison},
        tasks={info.name: info},
        cells=tuple(cell(each) for each in study.cells),
        references={(task_ + poison, seed): record(each) for (task_, seed), each in study.references.items()},
        timings=tuple(replace(each, task=each.task + poison, method=each.method + poison) for each in study.timings),
        environment={"host" + poison: poison},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return render(builders.synthetic_study())


@pytest.fixture(scope="module")
def damaged() -> StudyRecords:
    return builders.synthetic_study(seeds=(0, 1), failed={("linear", 1): "crash"}, missing=1)


@pytest.fixture(scope="module")
def safe(damaged: StudyRecords) -> list[tuple[str, list[str]]]:
    """Every tag of a harmless page with the names of its attributes."""
    return [(tag, list(attributes)) for tag, attributes in outline(render(poisoned(damaged, "harmless"))).tags]


@pytest.mark.parametrize("poison", HOSTILE)
def test_hostile_names_and_texts_add_no_element_and_no_attribute(
    poison: str, damaged: StudyRecords, safe: list[tuple[str, list[str]]]
) -> None:
    hostile = outline(render(poisoned(damaged, poison)))
    assert [(tag, list(attributes)) for tag, attributes in hostile.tags] == safe
    embedded = [json.loads(text) for text in hostile.scripts if text.startswith("{")]
    (samples,) = (each for each in embedded if "notice" in each)
    prompt = samples["preferences"][0]["prompts"][0]["prompt"]
    assert prompt == builders.PROMPTS[0] + poison  # inert, and still whole


def test_control_characters_never_reach_the_page() -> None:
    poison = "\x1b[2J\x9b1m\u202eabc\u2066\x00\ud800"
    page = render(poisoned(builders.synthetic_study(seeds=(0, 1), failed={("linear", 1): "crash"}, missing=1), poison))
    page.encode()  # half a surrogate pair could not be written
    texts = outline(page)
    islands = [repr(json.loads(text)) for text in texts.scripts if text.startswith("{")]
    for letter in "\x1b\x9b\u202e\u2066\x00":
        assert letter not in "".join(texts.text)
        assert repr(letter)[1:-1] not in " ".join(islands).replace("\\\\", "")
    assert "\\x1b[2J\\x9b1m\\u202eabc" in "".join(texts.text)


def test_a_method_with_one_policy_for_all_preferences_is_said_to_have_one() -> None:
    said = (
        "linear trains one policy only on 6,000 completions, and it answers every preference. Each policy takes 7,000"
    )
    assert said in words(render(builders.study_of_experts(1)))
    assert "one policy only" not in words(render(builders.study_of_experts(2)))
    lone = builders.study_of_experts(1)
    answers = tuple(replace(each, identity=str(n)) for n, each in enumerate(lone.cells[0].evaluations))
    gated = replace(lone, cells=(replace(lone.cells[0], evaluations=answers),))
    assert "one policy only" not in words(render(gated))  # one expert, and a gate that follows preferences


def test_a_row_that_trains_for_another_utility_than_it_is_ranked_by_is_said_to() -> None:
    study = builders.study_of_experts(2)
    said = "linear (chebyshev) trains for its own utility and is ranked by the weighted sum. "
    for metrics, where in (([], "Add metrics:"), ([OWN_UTILITY], "'Utility by kind' values it by its own.")):
        resolved = {**study.resolved, "methods": {"linear": {"method": "chebyshev"}}, "metrics": metrics}
        assert f"{said}{where}" in words(render(replace(study, resolved=resolved)))
    assert "trains for its own utility" not in words(render(study))


def test_a_policy_that_answers_several_preferences_is_one_point_of_the_front() -> None:
    """One seed, three preferences; the last two have the policy of the first expert."""
    info = builders.task_info(preferences=[[1, 0], [0, 1], [0.5, 0.5]], objectives=("a", "b"), audit=())
    made = {}
    for others in ((0.0, 1.0), (1.0, 0.0)):  # experts that answer the last two: the other one, or the same again
        answers = [
            builders.evaluation([[0.5, 0.5]], point, ("a", "b"), expert_weights=(1.0, 0.0) if index == 0 else others)
            for index, point in enumerate(info.preferences)
        ]
        cell = builders.cell("linear", 0, answers, [builders.stage("one", 100)])
        made[others] = words(render(builders.study([cell], [info], {})))
    assert "Of 2 mean points of different policies, 2 are non-dominated" in made[0.0, 1.0]
    assert "linear 2 of 2" in made[0.0, 1.0]
    assert "Of 1 mean point of different policies, 1 is non-dominated" in made[1.0, 0.0]


def test_the_resolved_study_says_what_settings_of_tasks_go_before() -> None:
    study, said = builders.synthetic_study(seeds=(0,)), "What the block learner says goes before methods"
    assert said not in words(render(study))
    own = {"counselling": {"linear": {"learning_rate": 0.005}}}
    assert said in words(render(replace(study, resolved={**study.resolved, "learner": own})))


def test_embedded_json_holds_no_character_that_could_begin_markup() -> None:
    text = embedded_json({"a": "</script><!-- & \u2028"})
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028"}


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    loading = {"src", "href", "srcset", "action", "formaction", "data", "poster", "background", "ping", "xlink:href"}
    for tag, attributes in outline(page).tags:
        assert tag not in {"iframe", "object", "embed", "base", "form"}, tag
        for name in loading & set(attributes):
            value = attributes[name] or ""
            assert value.startswith("#") or value == "data:,", (tag, name, value)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_links_to_files_beside_the_page_are_relative() -> None:
    view = View(builders.synthetic_study(seeds=(0,)), [])
    text = page_text(view, blocks(view, SECTIONS), ["tables.csv", "figures/front.svg"])
    links = [attributes["href"] for tag, attributes in outline(text).tags if tag == "a"]
    assert "figures/front.svg" in links
    assert not any(re.match(r"[a-z]+:|//", link or "") for link in links)


def test_own_scripts_never_reach_for_the_network(page: str) -> None:
    own = [text for text in outline(page).scripts if text.startswith('"use strict"')]
    assert len(own) == 1
    forbidden = r"fetch\(|XMLHttpRequest|WebSocket|import\(|sendBeacon|innerHTML|insertAdjacentHTML|eval\("
    assert re.search(forbidden, own[0]) is None


def test_the_content_policy_forbids_everything_but_the_two_scripts(page: str) -> None:
    meta = next(attributes for tag, attributes in outline(page).tags if attributes.get("http-equiv"))
    policy = meta["content"] or ""
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert policy.count("'sha256-") == 2  # plotly's, which is put in place behind the first paint, and our own
    assert "connect-src 'none'" in policy
    assert "http" not in policy
    assert "unsafe-eval" not in policy


def test_sections_come_in_the_order_of_the_readers_questions(page: str) -> None:
    sections = [attributes["id"] for tag, attributes in outline(page).tags if tag == "section"]
    metrics = ["performance", "pareto", "training", "inference", "stability"]
    metrics += ["adaptability", "scalability", "explainability"]
    assert sections == ["answer", "front", "relations", *metrics, "kl", "texts", "trust", "appendix"]


def test_a_complete_study_has_no_banner(page: str) -> None:
    assert "9 of 9" in words(page)
    assert "Incomplete" not in words(page)


def test_failed_and_pending_cells_are_told_first_with_their_reasons() -> None:
    failed = {("linear", 1): "out_of_memory", ("weight_grid", 0): "method_error"}
    text = words(render(builders.synthetic_study(failed=failed, pending=[("rewarded_soups", 2)])))  # type: ignore[arg-type]
    assert "Incomplete: 2 cells failed and 1 cell not run yet of 9." in text
    for reason in ("✕ failed: out of memory", "✕ failed: the method's own code failed", "… not run"):
        assert reason in text
    assert text.index("Incomplete") < text.index("Who leads on average?")


@pytest.mark.parametrize(("seeds", "said"), [((0,), "Only 1 seed: one run shows no spread"), ((0, 1), "Only 2 seeds")])
def test_fewer_than_three_seeds_raise_a_banner(seeds: tuple[int, ...], said: str) -> None:
    assert said in words(render(builders.synthetic_study(seeds=seeds)))


def test_one_seed_shows_no_interval_anywhere() -> None:
    text = words(render(builders.synthetic_study(seeds=(0,), timed=False)))  # decoding has one over its repeats
    assert "no interval" in text
    assert re.search(r"\d \[−?\d", text) is None


def test_missing_rewards_are_counted_with_their_cause() -> None:
    text = words(render(builders.synthetic_study(missing=2)))
    # 2 completions of 3 methods x 3 seeds x 7 preferences and of 3 base evaluations, 8 completions x 4 objectives each
    assert f"{2 * 66} of {66 * 32:,} rewards are missing." in text
    assert f"empathy: {2 * 66} because the reward function raised an error" in text


def test_reasons_stand_beside_the_metrics_they_are_of_each_once() -> None:
    study = builders.synthetic_study(failed={("linear", seed): "crash" for seed in range(3)}, timed=False, missing=1)
    (part,) = View(study, measure_all(study)).parts
    labels = [label for label in part.labels("performance") if not label.startswith(("preference: ", "kl: "))]
    said = remarks(part, "performance", labels)
    (lost,) = (each for each in said if each.startswith("All preferences: 0 of 3 seeds"))
    assert lost.endswith("seed 2 failed (crash) (linear).")
    assert len(said) == len(set(said)) <= 13
    rows = measure_all(study)
    shown, kept = words(render(study, rows)), to_csv(results_table(rows))
    for row in rows:  # every reason is on the page or in the table beside it
        assert " ".join(row.value.reason.split()) in shown or row.value.reason in kept.replace('""', '"')
    assert "No figures: decoding was not timed." in words(render(study))


def test_hypervolume_is_labelled_naive(page: str) -> None:
    assert "Naive: evaluation noise pushes it up." in words(page)


def test_a_metric_of_a_users_own_is_shown_by_its_name() -> None:
    value = MetricValue(0.25, per_seed={0: 0.25}, reason="one seed: no interval")
    row = MetricRow("counselling", "linear", 6000, "my_package.kindness:Kindness", value)
    assert "my package.kindness:Kindness" in words(render(builders.synthetic_study(seeds=(0,)), [row]))


def test_a_study_without_a_finished_cell_still_has_a_page() -> None:
    pending = [(method, seed) for method in builders.METHODS for seed in range(3)]
    text = words(render(builders.synthetic_study(pending=pending, timed=False)))
    assert "0 of 9" in text
    assert "No method has finished a cell yet" in text


def test_one_objective_has_no_front_but_a_page() -> None:
    info = builders.task_info(preferences=[[1.0]], objectives=("kind",), audit=(), test_prompts=1, samples=1)
    cells = [builders.cell(seed=seed, evaluations=[builders.evaluation([[0.5]], [1.0], ["kind"])]) for seed in (0, 1)]
    assert "A front needs two objectives; this task has one." in words(render(builders.study(cells, [info])))


def test_two_budgets_are_kept_apart() -> None:
    small = builders.synthetic_study(budget=1200)
    large = builders.synthetic_study(budget=6000)
    text = render(replace(small, cells=small.cells + large.cells))
    selects = [attributes.get("id") for tag, attributes in outline(text).tags if tag == "select"]
    assert "part" in selects
    assert {"preference-0", "preference-1"} <= set(selects)
    assert "Quality against cost, 2 budgets" in text


def many_preferences(methods: int, count: int) -> StudyRecords:
    grid = np.linspace(0, 1, count)
    info = builders.task_info(
        preferences=np.stack([1 - grid, grid], axis=1),
        objectives=("kind", "short"),
        audit=(),
        test_prompts=1,
        samples=1,
    )
    one = builders.evaluation([[0.5, 0.5]], info.preferences[0], ("kind", "short"))
    answers = [replace(one, preference=each, rewards=np.array([each])) for each in info.preferences]
    cells = [builders.cell(f"method_{index}", 0, answers) for index in range(methods)]
    base = {("counselling", 0): builders.evaluation([[0.1, 0.1]], None, ("kind", "short"))}
    return builders.study(cells, [info], base)


@pytest.mark.slow
def test_too_many_points_are_thinned_out_and_the_reader_is_told() -> None:
    text = render(many_preferences(4, 1_300), [])
    assert len(text.encode()) < EIGHT_MEGABYTES
    assert "Showing 1,000 of 1,300 preferences, corners first; the tables hold all." in words(text)
    assert "500 of 1,300 preferences, corners first" in words(text)
    assert "more are in the tables beside this page" not in text


@pytest.mark.slow
def test_fifty_thousand_points_stay_below_eight_megabytes() -> None:
    text = render(many_preferences(5, 10_000), [])
    assert len(text.encode()) < EIGHT_MEGABYTES
    assert "The sliders know some of the measured preferences, corners first: 8,000 more are in the tables" in text


def test_thinned_preferences_keep_the_corners_and_reach_the_end() -> None:
    shown = shown_preferences(1_000, 3, 10)
    assert shown[:3] == [0, 1, 2]
    assert shown[-1] == 999
    assert len(shown) == 10
    assert shown_preferences(5, 3, 10) == [0, 1, 2, 3, 4]


def test_a_quick_study_makes_a_small_page(page: str) -> None:
    assert len(page.encode()) < 5_500_000  # plotly.js alone is 4.8 MB


def test_importing_the_room_loads_neither_torch_nor_drawing_libraries(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, paretune.report; "
        "print([name for name in ('torch', 'matplotlib', 'plotly', 'jinja2', 'scipy', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
