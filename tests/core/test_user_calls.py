from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paretune.core.errors import BudgetError, MethodError, StopRequested
from paretune.core.user_calls import called, check_takes, described, shown, user_line, where_found

LINE = rf" \({Path(__file__).name}, line \d+\)"


def fails(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (KeyError("rows"), "KeyError: 'rows'"),
        (ValueError("one\n  two"), "ValueError: one two"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (SystemExit(3), "SystemExit: 3"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (GeneratorExit(), "GeneratorExit"),
        (StopIteration(1), "StopIteration: 1"),
        (ValueError("a\x1b[31m \ud800"), r"ValueError: a\\x1b\[31m \\ud800"),
        (ValueError("x" * 10**6), r"ValueError: x{900,1000}\.\.\."),
    ],
)
def test_what_a_users_code_raises_names_what_was_called_and_the_line(error: BaseException, got: str) -> None:
    with (
        pytest.raises(MethodError, match=rf"^It must not raise, got {got}{LINE}\. Correct it\.$") as caught,
        called("It"),
    ):
        fails(error)
    assert caught.value.__cause__ is error


def test_a_block_of_ours_names_the_function_that_raised_in_it() -> None:
    with pytest.raises(MethodError, match=rf"^{__name__}:Some\.fails must not raise, got KeyError: 1{LINE}"), called():
        json.loads("[1]", object_hook=None, parse_int=Some().fails)  # what a library calls in turn


def test_what_can_be_called_is_named_by_its_module() -> None:
    found = [where_found(each) for each in (Some, Some.method, partial(Some.method, None))]
    assert found == [f"{__name__}:Some", f"{__name__}:Some.method", "functools:partial"]


@pytest.mark.parametrize("error", [BudgetError("budget must be more."), StopRequested()])
def test_errors_on_purpose_and_an_interrupt_go_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, called("It"):
        fails(error)
    assert caught.value is error


def test_the_last_line_of_a_user_is_told_also_where_a_library_raised() -> None:
    with pytest.raises(MethodError, match=rf"got JSONDecodeError: Expecting .*{LINE}\. Correct it\."), called("It"):
        json.loads("{]")


def test_what_no_user_had_part_in_goes_through() -> None:
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{]")
    raised = caught.value
    raised.__traceback__ = raised.__traceback__.tb_next if raised.__traceback__ else None  # from json on
    assert user_line(raised) == ""
    assert described(raised).startswith("JSONDecodeError: Expecting ")


class Some:
    def fails(self, text: str) -> None:
        raise KeyError(int(text))

    def method(self, first: int, second: int = 2) -> None:
        pass

    def no_self(first) -> None:  # type: ignore[no-untyped-def]  # noqa: N805  # a user's mistake
        pass


@pytest.mark.parametrize("function", [Some().method, lambda *anything: 0, partial(Some.method, None), print, dict, min])
def test_what_can_be_called_so_is_let_through(function: Any) -> None:
    check_takes("It", function, ["first"])


@pytest.mark.parametrize(
    ("function", "names", "said"),
    [
        (Some().method, ["a", "b", "c"], r"\(self, a, b, c\), got \(self, first: 'int', second: 'int' = 2\)"),
        (Some().no_self, ["first"], r"\(self, first\), got \(first\)"),
        (lambda: 0, ["context"], r"\(context\), got \(\)"),
        (Some, ["settings"], r"\(settings\), got \(\)"),
    ],
)
def test_other_arguments_are_refused_with_both_lists(function: Any, names: list[str], said: str) -> None:
    with pytest.raises(MethodError, match=rf"^It must take {said}\. Correct its arguments\.$"):
        check_takes("It", function, names)


def test_a_value_is_shown_as_typed_where_that_is_short() -> None:
    assert [shown(each) for each in (None, "a", [1], Some)] == ["None", "'a'", "[1]", "a type"]
    assert shown("x" * 100) == "a str"
