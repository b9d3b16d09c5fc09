from __future__ import annotations

import json

import pytest

from paretune.core.errors import BudgetError
from paretune.core.ledger import EARLIER, Ledger, Seconds


def test_a_ledger_adds_up_what_is_charged() -> None:
    ledger = Ledger()
    ledger.charge(completions=8, prompts=1)
    ledger.charge(completions=16, tokens=100, reward_calls=32, flops=1e9)
    assert ledger.counts == {"prompts": 1, "completions": 24, "tokens": 100, "reward_calls": 32, "flops": 1e9}
    assert ledger.completions == 24
    assert ledger.remaining is None


def test_a_budget_may_be_used_up_to_the_last_completion() -> None:
    ledger = Ledger(10)
    ledger.charge(completions=10)
    assert ledger.remaining == 0


def test_a_charge_beyond_the_budget_is_refused_and_charges_nothing() -> None:
    ledger = Ledger(10)
    ledger.charge(completions=8, prompts=1)
    with pytest.raises(
        BudgetError, match="of a stage must stay within the 10 that it was planned with, got 8 spent and 3 asked for"
    ):
        ledger.charge(prompts=1, tokens=5, completions=3)
    assert ledger.counts == {"prompts": 1, "completions": 8, "tokens": 0, "reward_calls": 0, "flops": 0}


def test_what_is_no_completion_is_not_limited_by_the_budget() -> None:
    ledger = Ledger(1)
    ledger.charge(tokens=1000, reward_calls=50)
    assert ledger.remaining == 1


def test_seconds_are_booked_by_phase() -> None:
    ledger = Ledger()
    ledger.add_seconds("sampling", 2.0)
    ledger.add_seconds("sampling", 1.0)
    ledger.add_seconds("scoring", 0.5)
    assert ledger.seconds == {"sampling": 3.0, "scoring": 0.5}


def test_the_seconds_of_a_block_are_added_to_its_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cores = iter([10.0, 12.5, 20.0, 21.0]), iter([100.0, 104.0, 200.0, 200.5])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(cores))
    ledger = Ledger()
    for _ in range(2):
        with ledger.timed("sampling"):
            pass
    assert ledger.seconds == {"sampling": 3.5}
    assert ledger.cpu_seconds == {"sampling": 4.5}  # of several threads: more than on the wall


def test_seconds_that_several_spend_together_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, cores = iter([10.0, 16.0]), iter([100.0, 103.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    monkeypatch.setattr("time.process_time", lambda: next(cores))
    assert Seconds.now().passed(parts=3) == (2.0, 1.0)


def test_cpu_seconds_of_a_phase_are_unknown_once_some_were_not_measured() -> None:
    ledger = Ledger()
    ledger.add_seconds("sampling", 2.0, 1.5)
    ledger.add_seconds("sampling", 1.0)
    ledger.add_seconds("sampling", 1.0, 1.0)
    ledger.add_seconds("update", 1.0, 0.5)
    assert ledger.seconds == {"sampling": 4.0, "update": 1.0}
    assert ledger.cpu_seconds == {"sampling": None, "update": 0.5}


def test_a_state_of_an_earlier_version_has_unknown_cpu_seconds_and_an_unknown_attempt() -> None:
    ledger = Ledger(64)
    ledger.add_seconds("update", 2.0, 2.0)
    ledger.attempts["now"] = {"device": "cpu"}
    before = {name: value for name, value in ledger.state().items() if name not in ("cpu_seconds", "attempts")}
    resumed = Ledger.from_state(before)
    assert (resumed.seconds, resumed.cpu_seconds, resumed.attempts) == (
        {"update": 2.0},
        {"update": None},
        {EARLIER: {}},
    )
    resumed.add_seconds("update", 1.0, 1.0)
    assert resumed.cpu_seconds == {"update": None}
    untouched = {name: value for name, value in Ledger().state().items() if name not in ("cpu_seconds", "attempts")}
    assert Ledger.from_state(untouched).attempts == {}


def test_a_ledger_survives_json() -> None:
    ledger = Ledger(64)
    ledger.charge(completions=8, tokens=17)
    ledger.add_seconds("update", 0.25, 0.5)
    ledger.attempts["2026-11-30"] = {"device": "cpu", "load": 1.5}
    ledger.repeated["completions"] = 8.0
    ledger.peak_memory_bytes = 123
    assert Ledger.from_state(json.loads(json.dumps(ledger.state()))) == ledger


def test_a_state_is_a_copy_that_later_charges_leave_alone() -> None:
    ledger = Ledger(64)
    ledger.charge(completions=8)
    state = ledger.state()
    ledger.charge(completions=8)
    ledger.add_seconds("update", 1.0)
    other = Ledger.from_state(state)
    ledger.restore(state)
    ledger.charge(completions=16)
    assert (other.completions, other.seconds) == (8, {})
    assert ledger.completions == 24
