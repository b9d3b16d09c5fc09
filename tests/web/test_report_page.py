from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import builders
from paretune.metrics import measure_all
from paretune.report.page import render_page

pytestmark = pytest.mark.web
READY = "html[data-ready]"
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
    shown.page.evaluate(UNTOUCHED)
    assert shown.said == []


def points(page: Any, pair: str) -> list[Any]:
    return page.evaluate(  # type: ignore[no-any-return]
        "pair => document.querySelector(`#front-0 [data-pair='${pair}'] .canvas`).data"
        ".filter(trace => trace.mode === 'markers').map(trace => [trace.name, trace.x.length])",
        pair,
    )


def test_the_page_draws_itself_in_silence_and_asks_for_nothing(shown: Visit) -> None:
    assert shown.said == []
    assert len(shown.requests) == 1  # the file itself
    assert shown.page.locator("#front-0 .plot:visible svg.main-svg").count() >= 3
    assert shown.page.locator("#cost .plot svg.main-svg").count() >= 3
    assert points(shown.page, "0-1") == [["linear", 7], ["weight_grid", 7], ["rewarded_soups", 7]]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_never_scrolls_sideways(browser: Any, report: Path, width: int, scheme: str) -> None:
    opened = Visit(browser, report, width, scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    opened.page.close()


def test_a_page_that_is_made_narrow_does_not_scroll_sideways(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 400, "height": 900})
    visit.page.wait_for_timeout(300)  # charts are drawn anew
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 400
    visit.page.set_viewport_size({"width": 1280, "height": 900})


def test_the_selector_of_objectives_shows_one_pair(visit: Visit) -> None:
    assert visit.page.locator("#front-0 .plot:visible").count() == 3
    visit.page.select_option("#pair-0", "1-2")
    shown = visit.page.locator("#front-0 .plot:visible")
    assert shown.count() == 1
    assert "empathy: mean reward" in shown.locator(".xtitle").text_content()
    assert "brevity: mean reward" in shown.locator(".ytitle").text_content()


def test_zooming_to_the_points_leaves_the_reference_corner_out(visit: Visit) -> None:
    first_tick = "document.querySelector('#front-0 .canvas').layout.xaxis.range[0]"
    assert visit.page.evaluate(first_tick) < 0
    visit.page.check("#zoom-0")
    assert visit.page.evaluate(first_tick) > 0


def test_a_legend_button_hides_its_method_everywhere_by_keyboard(visit: Visit) -> None:
    button = visit.page.locator("#legend-0 button[data-method='linear']")
    button.focus()
    visit.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "false"
    assert [name for name, _ in points(visit.page, "0-1")] == ["weight_grid", "rewarded_soups"]
    visit.page.keyboard.press("Enter")
    assert len(points(visit.page, "0-1")) == 3


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


def test_the_metrics_table_sorts_both_ways_and_keeps_gaps_last(visit: Visit) -> None:
    button = visit.page.locator("#metrics-0 th button", has_text="value")
    keys = "Array.from(document.querySelectorAll('#metrics-0 tbody tr')).map(row => row.cells[2].dataset.sort)"
    button.click()
    rising = [float(each) for each in visit.page.evaluate(keys) if each]
    assert rising == sorted(rising)
    assert visit.page.locator("#metrics-0 th[aria-sort='ascending']").count() == 1
    button.click()
    falling = [float(each) for each in visit.page.evaluate(keys) if each]
    assert falling == sorted(falling, reverse=True)


def test_the_metrics_table_narrows_down_to_one_metric_and_shows_details_on_request(visit: Visit) -> None:
    rows = visit.page.locator("#metrics-0 tbody tr:visible")
    everything = rows.count()
    visit.page.check("#detail-0")
    assert rows.count() > everything
    visit.page.select_option("#metric-0", label="Pareto-optimality")
    assert rows.count() == 3 * (4 + 3)  # two pairs, and the noise of three objectives


def test_another_baseline_turns_its_own_row_into_the_baseline(visit: Visit) -> None:
    row = visit.page.locator("#heat-0 tbody tr").first
    assert "+" in row.locator("td").first.text_content()
    visit.page.select_option("#baseline-0", label="linear")
    assert set(row.locator("td").all_text_contents()) == {"baseline"}
    assert visit.page.locator("#heat-status-0").text_content() == "Differences to: linear"
    assert visit.page.locator("#heat-0 td.unclear").count() > 0


def test_what_python_drew_and_what_the_script_fills_in_agree(shown: Visit, report: Path) -> None:
    cells = "Array.from(document.querySelectorAll('#heat-0 td')).map(cell => [cell.textContent, cell.className])"
    filled = shown.page.evaluate(cells)
    drawn = shown.page.evaluate(
        "html => { const page = new DOMParser().parseFromString(html, 'text/html');"
        "return Array.from(page.querySelectorAll('#heat-0 td')).map(cell => [cell.textContent, cell.className]) }",
        report.read_text("utf-8"),
    )
    assert filled == drawn


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
    colour = opened.page.evaluate("document.querySelector('#front-0 .canvas').layout.font.color")
    assert colour == "#e9e9e6"
    opened.page.close()


def test_every_control_is_reached_by_keyboard_and_shows_its_focus(visit: Visit) -> None:
    reached = set()
    for _ in range(160):  # from wherever the page was left, around to its start
        visit.page.keyboard.press("Tab")
        focused = visit.page.evaluate(
            "[document.activeElement.id, document.activeElement.tagName,"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        if focused[1] != "BODY":
            assert focused[2] != "none", focused
        reached.add(focused[0])
    assert {"theme", "pair-0", "bars-0", "zoom-0", "baseline-0", "metric-0", "preference-0", "prompt-0"} <= reached


def test_every_chart_says_in_words_what_it_shows(shown: Visit) -> None:
    charts = shown.page.locator("[role='img'].canvas")
    assert charts.count() == 6
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
    opened.page.hover("#front-0 .canvas .scatterlayer .point >> nth=0", force=True)
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
    assert opened.page.locator("#front-0").is_visible()
    assert not opened.page.locator("#front-1").is_visible()
    opened.page.select_option("#part", label="counselling, 6,000 completions")
    assert opened.page.locator("#front-1 svg.main-svg").count() > 0
    assert not opened.page.locator("#front-0").is_visible()
    assert opened.said == []
    opened.page.close()
