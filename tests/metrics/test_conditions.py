from dataclasses import replace

import pytest

from builders import attempt, cell, stage
from paretune.metrics.conditions import Busy, busy, seconds_note


def seeds(*stages):
    return [cell(seed=seed, stages=[each]) for seed, each in enumerate(stages)]


def test_seconds_of_one_attempt_each_on_an_idle_machine_need_no_note():
    assert seconds_note(seeds(stage("a"), stage("b"))) == ""
    assert seconds_note([]) == ""


def test_several_attempts_are_named_with_their_seeds():
    twice, thrice = [attempt()] * 2, [attempt()] * 3
    assert seconds_note(seeds(stage("a"), stage("b", attempts=twice))) == "trained in 2 attempts (seed 1)"
    cells = [
        cell(seed=0, stages=[stage("a", attempts=twice)]),
        cell(seed=1, stages=[stage("b", attempts=thrice), stage("c")]),
    ]
    assert seconds_note(cells) == "trained in up to 3 attempts (seeds 0, 1)"
    assert seconds_note([replace(cells[1], state="failed")]) == ""


def test_threads_and_devices_that_differ_are_named():
    one, two = stage("a"), stage("b", attempts=[attempt(threads_per_worker=2)])
    assert seconds_note(seeds(one, two)) == "with 1 and 2 threads"
    assert seconds_note(seeds(two, two)) == ""
    gpu = stage("c", attempts=[attempt(device="NVIDIA H200")])
    assert seconds_note(seeds(one, gpu)) == "on NVIDIA H200 and cpu"


def test_a_busy_machine_is_named_by_its_load_weighted_by_seconds():
    """30 s at 3.6 and 10 s at 1.2 are 3.0 on average: not above 1.5 a core; 30 s at 4 and 10 s at .4 are 3.1."""
    quiet = [stage("a", seconds=30.0, attempts=[attempt(load=3.6)]), stage("b", attempts=[attempt(load=1.2)])]
    crowded = [stage("a", seconds=30.0, attempts=[attempt(load=4.0)]), stage("b", attempts=[attempt(load=0.4)])]
    assert busy(quiet).load == pytest.approx(3.0)
    assert busy(quiet).reasons == ()
    assert busy(crowded).reasons == ("load 3.1 on 2 cores",)
    cells = [cell(seed=0, stages=quiet), cell(seed=1, stages=crowded)]
    assert seconds_note(cells) == "machine was busy: load 3.1 on 2 cores (seed 1)"
    assert busy([stage("a", attempts=[attempt(load=3.1, machine_cores=8)])]).reasons == ()


def test_load_is_that_of_the_machine_it_was_measured_on():
    """10 on 16 cores and 1 on 2 are no crowd; 10 on 16 and 5 on 2 are (.625 + 2.5) / 2 = 1.56 a core."""
    large, small = attempt(load=10.0, machine_cores=16), attempt(load=1.0)
    assert busy([stage("a", attempts=[large]), stage("b", attempts=[small])]).reasons == ()
    crowded = busy([stage("a", attempts=[large, attempt(load=5.0)])])
    assert crowded.load_per_core == pytest.approx(1.5625)
    assert crowded.reasons == ("load 7.5 on 2 to 16 cores",)


def test_several_threads_are_marked_where_they_have_less_than_one_core():
    assert busy([stage("a", cpu_share=1.0, attempts=[attempt(threads_per_worker=2)])]).reasons == ()
    assert busy([stage("a", cpu_share=0.7, attempts=[attempt(threads_per_worker=2)])]).reasons != ()


def test_a_machine_is_busy_where_computing_had_no_core_for_a_fifth_of_the_time():
    assert busy([stage("a", cpu_share=0.8)]).reasons == ()
    assert busy([stage("a", cpu_share=0.61)]).reasons == ("a core for 61 % of the time",)
    assert seconds_note(seeds(stage("a", cpu_share=0.61))) == ("machine was busy: a core for 61 % of the time (seed 0)")


def test_waiting_for_a_judge_is_no_sign_of_a_busy_machine():
    waiting = stage("a", seconds=10.0)
    waiting = replace(waiting, cpu_phases={**waiting.cpu_phases, "scoring": 0.0})  # 2 of 10 seconds
    assert busy([waiting]).share == pytest.approx(1.0)
    whole = replace(waiting, phases={"total": 10.0}, cpu_phases={"total": 1.0})  # which may have scored all the time
    assert busy([whole]).share is None


def test_what_is_not_on_record_is_not_said():
    assert busy([]) == Busy(None, (), None, None)
    old = replace(stage("a", cpu_share=None, attempts=[{}]))
    assert busy([old]).reasons == ()
    assert seconds_note(seeds(old, stage("b"))) == ""
    assert busy([stage("a", cpu_share=0.1, attempts=[attempt(device="NVIDIA H200")])]).share is None  # the CPU waits
    assert busy([stage("a", cpu_share=0.1, seconds=1.0)]).share is None  # .8 s of computing: too short to tell
    assert busy([stage("a", attempts=[attempt(load=None)])]).load is None
