from __future__ import annotations

import io
from dataclasses import replace

import pytest

from paretune.benchmark import progress
from paretune.benchmark.progress import Display, LiveTable, Meter, PlainLines, Progress, display

SHOWN = Progress(9, 3, 2, 1, 12_000, 25_000, 120.0, 108.3, "training x2")
LINE = (
    "cells 3/9 done, 2 running, 1 failed, 12,000 of at most 25,000 completions, 120 samples/s, 1:48 left | training x2"
)


def test_a_line_says_cells_speed_and_time_left() -> None:
    assert SHOWN.line() == LINE
    assert replace(SHOWN, noun="tuning cells").line() == f"tuning {LINE}"


def test_the_speed_is_that_of_the_last_half_minute() -> None:
    meter = Meter()
    assert meter.rate() is None
    for second in range(61):
        meter.add(10 if second <= 30 else 40, float(second))
    assert meter.rate() == 40.0
    assert meter.total == 31 * 10 + 30 * 40


def test_time_left_is_told_once_enough_was_measured_and_until_then_its_absence() -> None:
    meter = Meter()
    assert meter.seconds_left(100) is None
    for second in range(20):
        meter.add(10, float(second))
        assert meter.seconds_left(100) is None
    meter.add(10, 20.0)
    assert meter.seconds_left(100) == pytest.approx(10)  # 10 a second
    assert "samples/s, time left not measured yet |" in replace(SHOWN, seconds_left=None).line()


def test_plain_lines_are_rare_and_messages_come_at_once() -> None:
    stream = io.StringIO()
    lines = PlainLines(stream)
    for _ in range(5):
        lines.show(SHOWN)
    lines.say("a cell failed")
    assert stream.getvalue().splitlines() == [f"[0:00] {LINE}", "a cell failed"]


def test_text_of_others_controls_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = "boom \x1b[2J\u202e [red]"
    stream = io.StringIO()
    lines = PlainLines(stream)
    lines.show(replace(SHOWN, doing=hostile))
    lines.say(hostile)
    assert stream.getvalue().count("boom \\x1b[2J\\u202e [red]") == 2
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    table = LiveTable()
    table.show(replace(SHOWN, doing=hostile))
    assert table._bar.tasks[0].description.endswith("boom \\x1b[2J\\u202e [red]")
    table.say(hostile)
    assert "boom \\x1b[2J\\u202e [red]" in progress.sys.stderr.getvalue()


def test_a_terminal_gets_a_table_a_file_gets_lines_and_nobody_gets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert isinstance(display(False), Display)
    monkeypatch.setattr(progress.sys, "stderr", io.StringIO())
    assert isinstance(display(), PlainLines)
    monkeypatch.setattr(progress.sys, "stderr", Terminal())
    shown = display()
    assert isinstance(shown, LiveTable)
    with shown:
        shown.show(SHOWN)
        shown.say("a cell [failed]")
