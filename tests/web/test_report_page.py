from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builders
from paretune.metrics import measure_all
from paretune.report.comparison import comparisons
from paretune.report.estimates import column_mean
from paretune.report.page import render_page
from paretune.report.wording import interval, number

pytestmark = pytest.mark.web
READY = "html[data-ready]"
SLOW = 3  # this often slower a busy machine may be
UNTOUCHED = """() => {
    for (const list of document.querySelectorAll("select")) {
        const index = Math.max(0, Array.from(list.options).findIndex(option => option.defaultSelected));
        if (list.selectedIndex !== index) { list.selectedIndex = index; list.dispatchEvent(new Event("change")); }
    }
    for (const box of document.querySelectorAll("input[type=checkbox]")) {
        if (box.checked !== box.defaultChecked) { box.click(); }
    }
}"""


class Visit:
    """A page with everything it said, threw and asked for."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.said: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector(READY, state="attached")


@pytest.fixture(scope="module")
def shown(browser: Any, report: Path) -> Iterator[Visit]:
    """Open the page once for all tests: loading it takes seconds."""
    opened = Visit(browser, report)
    yield opened
    opened.page.close()


@pytest.fixture
def visit(shown: Visit) -> Iterator[Visit]:
    """Let a test turn the controls of the open page, and put them back behind it."""
    yield shown
    shown.page.set_viewport_size({"width": 1280, "height": 900})
    shown.page.evaluate(UNTOUCHED)
    assert shown.said == []


def drawn(page: Any, section: str) -> int:
    """Scroll to a section and count its charts once they are drawn."""
    page.evaluate("name => document.getElementById(name).scrollIntoView()", section)
    page.wait_for_selector(f"#{section} [data-drawn] svg.main-svg")
    return int(page.locator(f"#{section} [data-drawn]:visible").count())


def points(page: Any) -> list[Any]:
    """Return the methods of the first chart of trade-offs with the number of their points."""
    return page.evaluate(  # type: ignore[no-any-return]
        "() => document.querySelector('#front [data-figure]').data"
        ".filter(trace => trace.meta && trace.meta.kind === 'points' && trace.visible !== false)"
        ".map(trace => [trace.name, trace.x.length])"
    )


def slide(page: Any, objective: int, value: int) -> None:
    page.evaluate(
        "([k, value]) => { const each = document.querySelector(`#chooser-0 [data-weight='${k}']`);"
        "each.value = value; each.dispatchEvent(new Event('input', { bubbles: true })); }",
        [objective, value],
    )


def ask(page: Any, objective: int, least: float) -> None:
    page.evaluate(
        "([k, value]) => { const each = document.querySelector(`#chooser-0 [data-least='${k}']`);"
        "each.value = value; each.dispatchEvent(new Event('input', { bubbles: true })); }",
        [objective, least],
    )


def test_the_page_draws_itself_in_silence_and_asks_for_nothing(shown: Visit) -> None:
    assert drawn(shown.page, "front") >= 3
    assert drawn(shown.page, "training") == 2
    assert points(shown.page) == [["linear", 7], ["weight_grid", 7], ["rewarded_soups", 7]]
    assert shown.said == []
    assert len(shown.requests) == 1  # the file itself


@pytest.mark.slow  # a clock on a machine that others use
def test_the_first_paint_comes_before_a_second_has_passed(browser: Any, report: Path) -> None:
    opened = Visit(browser, report)
    times = opened.page.evaluate("performance.getEntriesByType('paint').map(each => each.startTime)")
    assert times
    assert min(times) < 1000 * SLOW
    opened.page.close()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(browser: Any, report: Path, width: int, scheme: str) -> None:
    opened = Visit(browser, report, width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.close()


def test_a_page_that_is_made_narrow_does_not_scroll_sideways(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 900})
    visit.page.wait_for_function("document.documentElement.scrollWidth <= 390")  # once charts are drawn anew


def test_sliders_change_the_answer_and_keep_their_sum(visit: Visit) -> None:
    head, lines = (visit.page.locator(f"#chooser-0 {name}") for name in (".head", ".answer-lines"))
    slide(visit.page, 0, 100)
    first = lines.text_content()
    assert head.text_content() == "For reflection"
    slide(visit.page, 2, 100)
    assert head.text_content() == "For brevity"
    assert lines.text_content() != first
    slide(visit.page, 2, 40)
    sliders = "Array.from(document.querySelectorAll('#chooser-0 [data-weight]')).map(each => Number(each.value))"
    values = visit.page.evaluate(sliders)
    assert values[2] == 40
    assert abs(sum(values) - 100) <= 1  # whole percents
    visit.page.click("#chooser-0 [data-preset='0']")
    assert head.text_content() == "For reflection"


def test_a_preference_that_was_not_measured_is_marked_and_interpolated(visit: Visit) -> None:
    note = visit.page.locator("#chooser-0 .interpolated")
    visit.page.click("#chooser-0 [data-preset='0']")
    assert not note.is_visible()
    slide(visit.page, 0, 70)
    assert note.is_visible()
    assert "Interpolated for yours (an estimate): reflection 0." in note.text_content()
    symbol = "document.querySelector('#chooser-0 [data-figure]').data[1].marker.symbol"
    visit.page.wait_for_selector("#chooser-0 [data-drawn]")
    assert visit.page.evaluate(symbol) == "circle-open"
    visit.page.click("#chooser-0 [data-preset='0']")
    assert visit.page.evaluate(symbol) == "circle"


def test_the_table_of_gains_is_that_of_the_records(visit: Visit) -> None:
    study = builders.synthetic_study(task=builders.task_info(test_prompts=12))
    (part,) = comparisons(study)
    visit.page.click("#chooser-0 [data-preset='1']")
    visit.page.select_option("#chooser-0 .chosen-method", "linear")
    gap = part.method("linear").scores[:, 1, 1] - part.base_scores[:, 1]
    cell = visit.page.locator("#chooser-0 .gains tbody tr").first.locator("td").nth(1)
    value = column_mean(gap, part.seeds)
    assert cell.text_content() == number(value.value, signed=True) + interval(value, signed=True).split(" ", 1)[1]
    # all intervals exclude 0 here but those that are grey, and a sentence says the same
    (said,) = (each for each in answers(visit.page) if each.startswith("Against the base model linear "))
    assert f"gains {number(value.value)} empathy" in said or f"and {number(value.value)} empathy" in said
    assert "linear cost" in answers(visit.page)[1]
    visit.page.select_option("#chooser-0 .chosen-method", "")


def answers(page: Any) -> list[str]:
    return [str(each) for each in page.locator("#chooser-0 .answer-lines p").all_text_contents()]


def test_a_held_choice_is_compared_with(visit: Visit) -> None:
    visit.page.click("#chooser-0 [data-preset='0']")
    visit.page.click("#chooser-0 .hold")
    visit.page.click("#chooser-0 [data-preset='1']")
    rows = visit.page.locator("#chooser-0 .gains tbody th").all_text_contents()
    assert any(each.endswith(", for reflection") for each in rows)


def saved(page: Any) -> Any:
    with page.expect_download() as download:
        page.click("#chooser-0 .save")
    return json.loads(Path(download.value.path()).read_text("utf-8"))


def head(page: Any) -> str:
    return str(page.locator("#chooser-0 .head").text_content())


def test_an_audit_can_be_asked_for_and_asks_for_nothing_at_its_lowest(visit: Visit) -> None:
    visit.page.check("#chooser-0 [value='aspirations']")
    before = saved(visit.page)
    assert list(before["aspirations"]) == ["reflection", "empathy", "brevity"]
    ask(visit.page, 3, 0.8)
    after = saved(visit.page)
    assert after["aspirations"]["fluency"] == 0.8
    ask(visit.page, 3, 0.0)
    visit.page.check("#chooser-0 [value='weights']")


def test_aspirations_choose_the_policy_that_falls_short_least(visit: Visit) -> None:
    visit.page.check("#chooser-0 [value='aspirations']")
    ask(visit.page, 1, 1)
    assert visit.page.locator("#chooser-0 .head").text_content().startswith("For empathy, answered by ")
    note = visit.page.locator("#chooser-0 .interpolated")
    assert note.text_content().startswith("No measured policy reaches all of this. The closest lacks ")
    found = head(visit.page).rpartition(" ")[2]
    other = "linear" if found != "linear" else "weight_grid"
    assert answers(visit.page)[0].startswith(f"{found} cost ")  # of the policy found, and not of who leads by weights
    visit.page.select_option("#chooser-0 .chosen-method", other)
    assert head(visit.page).endswith(f"answered by {other}")
    assert answers(visit.page)[0].startswith(f"{other} cost ")
    visit.page.select_option("#chooser-0 .chosen-method", "")
    visit.page.check("#chooser-0 [value='weights']")


def test_a_choice_is_saved_as_json_that_the_command_line_reads(visit: Visit, tmp_path: Path) -> None:
    visit.page.click("#chooser-0 [data-preset='equal']")
    with visit.page.expect_download() as download:
        visit.page.click("#chooser-0 .save")
    path = tmp_path / "choice.json"
    download.value.save_as(path)
    kept = json.loads(path.read_text("utf-8"))
    assert kept["kind"] == "paretune choice"
    assert kept["schema_version"] == 1
    assert kept["task"] == "counselling"
    assert kept["cell"] == f"counselling-{kept['method']}-6000-0"  # its first
    said = visit.page.locator("#chooser-0 .said").text_content()
    assert f'paretune generate runs/{kept["cell"]} --preference @choice.json "prompt"' in said
    assert sum(kept["objectives"].values()) == pytest.approx(1, abs=1e-3)
    assert list(kept["objectives"]) == ["reflection", "empathy", "brevity"]


def test_a_link_brings_back_the_choice(browser: Any, report: Path, visit: Visit) -> None:
    visit.page.click("#chooser-0 [data-preset='2']")
    visit.page.click("#chooser-0 .link")
    link = visit.page.url
    opened = browser.new_page()
    opened.goto(link)
    opened.wait_for_selector(READY, state="attached")
    assert opened.locator("#chooser-0 .head").text_content() == "For brevity"
    opened.evaluate("location.hash = ''")
    opened.click("#chooser-0 [data-preset='0']")
    opened.evaluate("link => { location.hash = new URL(link).hash; }", link)  # pasted into the tab that shows the page
    opened.wait_for_function("document.querySelector('#chooser-0 .head').textContent === 'For brevity'")
    opened.close()
    visit.page.evaluate("history.replaceState(null, '', location.pathname)")


def test_texts_are_those_of_the_nearest_preference_that_the_page_holds_beside_the_held_choice(visit: Visit) -> None:
    visit.page.click("#chooser-0 [data-preset='0']")
    visit.page.select_option("#chooser-0 .chosen-method", "linear")
    visit.page.click("#chooser-0 .hold")
    slide(visit.page, 2, 96)  # measured nowhere
    visit.page.select_option("#chooser-0 .chosen-method", "weight_grid")
    of = visit.page.locator("#chooser-0 .sampled .of").text_content()
    assert of.startswith("For brevity; the choice to compare with for reflection")
    cards = visit.page.locator("#chooser-0 .sampled .card h4").all_text_contents()
    assert cards == ["base model", "weight_grid", "linear"]
    visit.page.select_option("#chooser-0 .chosen-method", "")


def test_a_switch_draws_down_to_the_reference_point(visit: Visit) -> None:
    drawn(visit.page, "front")
    first_tick = "document.querySelector('#front [data-figure]').layout.xaxis.range[0]"
    assert visit.page.evaluate(first_tick) > 0
    visit.page.locator("#front input[data-layout]").first.check()
    assert visit.page.evaluate(first_tick) < 0


def test_a_legend_button_hides_its_method_everywhere_by_keyboard(visit: Visit) -> None:
    drawn(visit.page, "front")
    button = visit.page.locator("#front .legend button[data-method='linear']")
    button.focus()
    visit.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert [name for name, _ in points(visit.page)] == ["weight_grid", "rewarded_soups"]
    visit.page.keyboard.press("Enter")
    assert len(points(visit.page)) == 3


def test_choosing_a_preference_changes_the_completions(visit: Visit) -> None:
    cards = visit.page.locator("#cards-0")
    assert cards.locator("h4").all_text_contents() == ["base model", "linear", "weight_grid", "rewarded_soups"]
    before = cards.text_content()
    visit.page.select_option("#preference-0", label="brevity")
    assert cards.text_content() != before
    assert cards.locator(".chip.audit").count() == 4


def test_next_and_previous_walk_through_the_prompts(visit: Visit) -> None:
    shown = visit.page.locator("#shown-prompt-0")
    assert shown.text_content() == builders.PROMPTS[0]
    visit.page.click("#next-0")
    assert shown.text_content() == builders.PROMPTS[1]  # with < and &: shown as they are
    visit.page.click("#previous-0")
    assert shown.text_content() == builders.PROMPTS[0]


def test_a_table_sorts_both_ways_and_is_kept_as_csv(visit: Visit) -> None:
    fold = visit.page.locator("#training details", has_text="The same as a table")
    fold.locator("summary").click()
    table = fold.locator("table")
    button = table.locator("th button").nth(1)
    keys = "table => Array.from(table.tBodies[0].rows).map(row => Number(row.cells[1].textContent.replace(/,/g, '')))"
    button.click()
    falling = table.evaluate(keys)
    assert falling == sorted(falling, reverse=True)
    assert table.locator("th[aria-sort='descending']").count() == 1
    button.click()
    assert table.evaluate(keys) == sorted(falling)
    with visit.page.expect_download() as download:
        fold.locator("button.csv").click()
    rows = list(csv.reader(Path(download.value.path()).read_text("utf-8").splitlines()))
    assert rows[0][0] == "method"
    assert len(rows) == 4
    fold.locator("summary").click()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("=1+1", "'=1+1"), ("-1+cmd|x", "'-1+cmd|x"), ("+1+cmd|x", "'+1+cmd|x"), ("＝1", "'＝1"),
        ("-1.5", "-1.5"), ("a", "a"),
    ],
)  # fmt: skip
def test_a_cell_that_a_spreadsheet_would_run_is_kept_as_text(visit: Visit, text: str, kept: str) -> None:
    table = visit.page.locator("#answer .ranking table, #answer table.ranking").first
    cell = table.locator("tbody tr").first.locator("td").nth(1)
    before = cell.text_content()
    cell.evaluate("(cell, text) => { cell.textContent = text; }", text)
    with visit.page.expect_download() as download:
        visit.page.locator("#answer button.csv").first.click()
    rows = list(csv.reader(Path(download.value.path()).read_text("utf-8").splitlines()))
    cell.evaluate("(cell, text) => { cell.textContent = text; }", before)
    assert kept in rows[1]


def test_the_button_switches_to_dark_and_back(visit: Visit) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = visit.page.evaluate(ground)
    visit.page.click("#theme")
    assert visit.page.evaluate(ground) != light
    assert visit.page.locator("#theme").text_content() == "Light mode"
    visit.page.click("#theme")
    assert visit.page.evaluate(ground) == light


def test_a_reader_who_prefers_dark_gets_dark_charts(browser: Any, report: Path) -> None:
    opened = Visit(browser, report, scheme="dark")
    drawn(opened.page, "front")
    colour = opened.page.evaluate("document.querySelector('#front [data-figure]').layout.font.color")
    assert colour == "#e9e9e6"
    opened.page.close()


def test_every_control_is_reached_by_keyboard_and_shows_its_focus(visit: Visit) -> None:
    reached = set()
    for _ in range(220):  # from wherever the page was left, around to its start
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(
            "[document.activeElement.id || document.activeElement.className || document.activeElement.type,"
            " document.activeElement.tagName, getComputedStyle(document.activeElement).outlineStyle]"
        )
        if focused[1] != "BODY":
            assert focused[2] != "none", focused
        reached.add(focused[0])
    assert {"theme", "range", "chosen-method", "hold", "link", "save", "preference-0", "prompt-0"} <= reached


def test_every_chart_says_in_words_what_it_shows(shown: Visit) -> None:
    charts = shown.page.locator("[role='img'].canvas")
    assert charts.count() > 10
    assert all(charts.nth(index).get_attribute("aria-label") for index in range(charts.count()))


def test_hostile_texts_run_nothing(browser: Any, tmp_path: Path) -> None:
    poison = "</script><img src=x onerror='window.pwned=1'><script>window.pwned=1</script>"
    study = builders.synthetic_study(seeds=(0,))
    cells = tuple(
        replace(
            cell,
            method=cell.method + poison,
            evaluations=tuple(
                replace(
                    each,
                    prompts=tuple(text + poison for text in each.prompts),
                    completions=tuple(text + poison for text in each.completions),
                )
                for each in cell.evaluations
            ),
        )
        for cell in study.cells
    )
    study = replace(study, name=poison, cells=cells)
    path = tmp_path / "index.html"
    path.write_text(render_page(study, measure_all(study)), encoding="utf-8")
    opened = Visit(browser, path)
    assert opened.page.evaluate("window.pwned") is None
    assert poison in opened.page.locator("#cards-0 blockquote").nth(1).text_content()
    drawn(opened.page, "front")
    opened.page.hover("#front .canvas .scatterlayer .point >> nth=0", force=True)
    assert opened.page.evaluate("window.pwned") is None
    assert opened.said == []
    assert len(opened.requests) == 1
    opened.page.close()


def test_two_budgets_are_shown_one_at_a_time(browser: Any, tmp_path: Path) -> None:
    small, large = builders.synthetic_study(seeds=(0,), budget=1200), builders.synthetic_study(seeds=(0,), budget=6000)
    study = replace(small, cells=small.cells + large.cells)
    path = tmp_path / "index.html"
    path.write_text(render_page(study, measure_all(study)), encoding="utf-8")
    opened = Visit(browser, path)
    front = opened.page.locator("#front [data-part]")
    assert [front.nth(place).is_visible() for place in (0, 1)] == [True, False]
    opened.page.select_option("#part", label="counselling, 6,000 completions")
    assert [front.nth(place).is_visible() for place in (0, 1)] == [False, True]
    assert drawn(opened.page, "front") >= 3
    assert opened.said == []
    opened.page.close()
