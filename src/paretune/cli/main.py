"""Commands of `paretune`. Modules are imported inside commands, so that `--help` and `ls` answer at once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

from paretune.cli.arguments import (
    Budget,
    Number,
    Output,
    Samples,
    Seed,
    Trackers,
    Workers,
    check_arguments,
    usage_error,
)
from paretune.cli.compare import compare
from paretune.cli.elicit import elicit
from paretune.cli.examples import show_examples
from paretune.cli.printing import (
    complain,
    complain_last,
    flush_output,
    flushed_or_dropped,
    notes_shown,
    prepare_streams,
    say,
    say_json,
)
from paretune.cli.score import score
from paretune.cli.status import status
from paretune.cli.track import track
from paretune.core.disk_errors import explained
from paretune.core.errors import ConfigError, MissingDependencyError, ParetuneError
from paretune.core.preferences import preference_from_mapping
from paretune.core.printable import printable_line
from paretune.core.surroundings import END, exits_refused
from paretune.core.user_calls import called
from paretune.core.user_folders import look_in
from paretune.core.version import VERSION
from paretune.executors.leftovers import end_children

LONGEST_ERROR = 1900  # letters: a screen; what is wrong comes first, what to do last
OK, SOME_FAILED, USAGE, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 130
Kind = Literal["tasks", "methods", "objectives", "metrics", "studies"]

Json = Annotated[bool, Parameter(name="--json", negative=())]

app = App(
    name="paretune",
    help="Fine-tune language models for several objectives at once, and measure which way of doing so is worth it.",
    version=VERSION,
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `execute` says how to go on
)
for command in (compare, elicit, score, status, track):
    app.command(command)


@app.command
def run(
    study: str,
    *,
    output: Output | None = None,
    workers: Workers | None = None,
    part: str | None = None,
    trackers: Trackers | None = None,
    quiet: bool = False,
) -> int:
    """Run a study; run it again to finish, extend or repair it. Finished work is never repeated.

    Args:
        study: A study file, or the name of a built-in study.
        output: Folder of the study; by default results/NAME.
        workers: Worker processes; by default what the study says.
        part: Run this part of the study alone.
        trackers: Where else to show training: mlflow, tensorboard, trackio, wandb, or module:Class; may be given
            several times.
        quiet: Show no progress.

    Example:
        paretune run quick -o results/quick
        paretune run quick -o results/quick --tracker tensorboard
        paretune run study.yaml -o results/mine --workers 2
    """
    from paretune.benchmark.runner import run as run_study
    from paretune.benchmark.summary import summary

    if quiet:
        logging.getLogger("paretune").setLevel(logging.WARNING)
    if trackers:
        look_in(os.getcwd())  # as for train
    result = run_study(study, output, workers=workers, progress=not quiet, part=part, trackers=trackers or ())
    say(summary(result))
    return OK if result.complete else SOME_FAILED


@app.command
def plan(
    study: str,
    *,
    output: Output | None = None,
    workers: Workers | None = None,
    part: str | None = None,
    measure: bool = True,
    as_json: Json = False,
) -> int:
    """Say what running a study would do: cells, cost and time. Changes nothing.

    Args:
        study: A study file, or the name of a built-in study.
        output: Folder of the study; by default results/NAME.
        workers: Worker processes; by default what the study says.
        part: Look at this part of the study alone.
        measure: Run parts of it for a few seconds, once for each machine, to say how long it takes; this calls rewards.
        as_json: Print JSON.

    Example:
        paretune plan study.yaml -o results/mine
    """
    from paretune.benchmark.plan import plan as make_plan
    from paretune.benchmark.summary import plan_text

    planned = make_plan(
        study, output, workers=workers, part=part, measure=measure and "PARETUNE_NO_MEASURING" not in os.environ
    )
    say_json(planned.plain()) if as_json else say(plan_text(planned))
    return OK


@app.command
def report(folder: Path, *others: Path, output: Output | None = None) -> int:
    """Write the report of a study again, from what its folder holds; or one report of parts run in several folders.

    Args:
        folder: Folder of a study.
        others: Folders of other parts of the same study.
        output: Folder of the merged report; needed for several folders.

    Example:
        paretune report results/mine
        paretune report results/part-1 results/part-2 -o results/both
    """
    from paretune.cli.values import import_folders
    from paretune.metrics import measure_all
    from paretune.records.layout import lock_path
    from paretune.records.merging import finished_twice, merged
    from paretune.records.reading import read_study
    from paretune.report import summary_table, write_report
    from paretune.report.completeness import missing_shares, missing_tables
    from paretune.report.wording import count

    if not others:
        if output is not None:
            raise ConfigError(
                f"output must be left out for one folder, whose report goes into it, got '{output}'. Remove it."
            )
        records = read_study(folder)
        target = folder
    else:
        if output is None:
            raise ConfigError("output must name a folder for the merged report, got none. Add -o DIR.")
        folders = (folder, *others)
        for index, each in enumerate(folders):
            if each.resolve() in {other.resolve() for other in folders[:index]}:
                raise ConfigError(f"folders must be different ones, got '{each}' twice. Name it once.")
        if lock_path(output).exists():
            raise ConfigError(
                f"output must be a folder of its own, got '{output}', which holds a study. Name another with -o."
            )
        parts = [read_study(each) for each in folders]
        records = merged(parts)
        target, twice = output, finished_twice(parts)
        if twice:
            complain(f"finished in several folders, taken from the first of them: {count(twice, 'cell')}")
    look_in(*reversed(import_folders(records)))  # for metrics of the user's own
    rows = measure_all(records)
    page = write_report(target, records, rows)
    say("\n".join([summary_table(records, rows), *missing_tables(records), *missing_shares(records)]))
    say(f"\nreport: {page}")
    return OK


@app.command(name="ls")
def list_names(kind: Kind | None = None, name: str | None = None, *, as_json: Json = False) -> int:
    """List what can be named in a study, each with what it is; of one method, the settings of its own.

    Args:
        kind: What to list; everything by default.
        name: One of these; a method may be module:Class.
        as_json: Print JSON.

    Example:
        paretune ls methods
        paretune ls methods rewarded_soups
    """
    from paretune.cli.listing import KINDS, listing, text_of

    look_in(os.getcwd())  # a user's module:Class lies beside them, not beside this program
    found = {each: listing(each, name) for each in (KINDS if kind is None else (kind,))}
    if as_json:
        say_json(found if kind is None else found[kind] if name is None else found[kind][0])
    else:
        say(text_of(found))
    return OK


@app.command
def train(
    method: str,
    *,
    task: Annotated[str, Parameter(name=["--task", "-t"])],
    output: Output,
    budget: Budget = 6000,
    seed: Seed = 0,
    preferences: Annotated[list[str] | None, Parameter(name=["--preference", "-p"], negative=())] = None,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
    trackers: Trackers | None = None,
) -> int:
    """Train one method on one task and save its policies.

    Args:
        method: Name of a method, or module:Class.
        task: Name of a task, path of a task.yaml, or module:name.
        output: Folder to save to.
        budget: Completions it may make.
        seed: Training seed.
        preferences: What to train for, such as empathy=0.7,brevity=0.3, or empathy=7,brevity=3; those left out count
            0. Or @choice.json, a saved choice. May be given several times; by default a grid of two divisions with its
            centre.
        settings: A setting of the method, as key=value; may be given several times, dots for nested ones.
        trackers: Where else to show training: mlflow, tensorboard, trackio, wandb, or module:Class; may be given
            several times.

    Example:
        paretune train rewarded_soups --task counselling -o out
        paretune train linear -t my_task/ -p empathy=1,brevity=1 --set rank=4 -o one
    """
    from paretune.cli.values import LineLink, check_settings, parse_preference, parse_settings
    from paretune.training.train import train as train_method

    look_in(os.getcwd())  # a user's module:Class lies beside them, not beside this program
    given = parse_settings(settings or [])
    check_settings(method, given)
    wanted = [parse_preference(each) for each in preferences] if preferences else None
    link = LineLink(budget)
    solutions = train_method(method, task, budget, seed, wanted, given, output, link, trackers or ())
    experts = "1 expert" if len(solutions.experts) == 1 else f"{len(solutions.experts)} experts"
    say(f"{solutions.method} with {experts} saved to {output}")
    names = ", ".join(f"{name}=..." for name in solutions.objectives)
    say(f'next: paretune generate {output} --preference {names.replace(", ", ",")} "prompt"')
    return OK


@app.command
def probe(
    task: str,
    *,
    samples: Samples = 1024,
    seed: Seed = 0,
    study: Annotated[Path | None, Parameter(name="--from")] = None,
    method: str | None = None,
    pilot: Budget | None = None,
    output: Output | None = None,
    as_json: Json = False,
) -> int:
    """Say how the objectives of a task relate: correlated, competing, independent, or undetermined.

    Args:
        task: Name of a task, path of a task.yaml, or module:name.
        samples: Completions sampled from the base model.
        seed: Names the task instance, the prompts and the noise.
        study: Folder of a finished study, whose policies tell what improving one objective does to the others.
        method: Method of that study whose policies to take; by default the one with most seeds.
        pilot: Completions to train an expert for each objective with, to tell it instead.
        output: Folder to write to; by default results/probe-TASK.
        as_json: Print JSON.

    Example:
        paretune probe counselling
        paretune probe my_task/ --from results/mine
    """
    from paretune.benchmark.probe import probe as probe_task
    from paretune.cli.relations import StepLines, print_probe
    from paretune.tasks import load_task

    look_in(os.getcwd())  # as for train
    loaded = load_task(task)
    folder = output or Path("results") / f"probe-{loaded.name}"
    found = probe_task(loaded, samples, seed, study, pilot, folder, StepLines(), method)
    if as_json:
        say_json(found.plain())
    else:
        print_probe(found)
    return OK


@app.command
def generate(
    folder: Path,
    prompts: Annotated[list[str] | None, Parameter(negative=())] = None,
    *,
    preference: Annotated[str | None, Parameter(name=["--preference", "-p"])] = None,
    samples: Samples = 1,
    temperature: Number = 1.0,
    top_p: Number = 1.0,
    seed: Seed = 0,
    as_json: Json = False,
) -> int:
    """Answer prompts with a trained policy, for a preference of your choice.

    Args:
        folder: What train saved, or a cell of a study (runs/CELL).
        prompts: One or more prompts; needed.
        preference: Weights of the objectives, such as empathy=0.7,brevity=0.3, or empathy=7,brevity=3; those left out
            count 0. Or @choice.json, a saved choice. Needed.
        samples: Completions per prompt.
        temperature: 1 samples as trained; lower is less varied.
        top_p: Share of the probability mass that is sampled from.
        seed: Another seed, other completions.
        as_json: Print JSON.

    Example:
        paretune generate out -p empathy=0.7,brevity=0.3 "I want to sleep better."
        paretune generate out -p @choice.json "I want to sleep better."
    """
    from paretune.cli.values import check_sampling, chosen_elsewhere, given, import_folders, parse_preference, stand_in
    from paretune.records.layout import lock_path
    from paretune.records.reading import read_lock

    preference, prompts = given(folder, preference, prompts or [])
    wanted = parse_preference(preference)
    check_sampling(temperature, top_p)
    from paretune.models.solutions import load_solutions

    study = folder.resolve().parent.parent  # of runs/<cell>
    look_in(*reversed(import_folders(read_lock(study) if lock_path(study).is_file() else None)))
    solutions = load_solutions(folder)
    policy = solutions.policy_for(wanted)
    for note in (
        chosen_elsewhere(wanted, solutions.method),
        stand_in(solutions.answer, solutions.objectives, policy.preferences[0]),
    ):
        if note:
            complain(note)
    made = policy.generate(prompts, samples=samples, temperature=temperature, top_p=top_p, seed=seed)
    rows = [
        {"prompt": prompts[prompt], "sample": sample, "completion": text, "finish": finish}
        for (_, prompt, sample), text, finish in zip(made.row_ids, made.texts, made.finish, strict=True)
    ]
    if as_json:
        shares = dict(zip(wanted, preference_from_mapping(wanted, tuple(wanted)).tolist(), strict=True))
        say_json({"preference": shares, "answer": policy.answers[0], "completions": rows})
        return OK
    for row, text in zip(rows, made.texts, strict=True):
        say(text if len(prompts) == 1 else f"{row['prompt']}\n  {text}")
    return OK


show_examples(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end this process with its code, and with it what a user's code has left running."""
    try:
        status = execute(arguments)
    except BaseException:  # noqa: BLE001  # a traceback that was asked for, or a mistake of ours
        sys.excepthook(*sys.exc_info())
        status = SOME_FAILED
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or nobody reads it
            stream.flush()
    end_children()
    END(status)  # at the usual end Python would wait for threads, children and exit functions of a user's


@notes_shown()
def execute(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 some cells failed, 2 usage or configuration, 3 environment, 130 stopped.
    """
    prepare_streams()
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars for loading a file would tear our progress apart
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with exits_refused(), called():
            check_arguments(given)
            result: Any = app(given, exit_on_error=False, print_error=False, result_action="return_value")
            flush_output()  # here an error has a handler
    except CycloptsError as error:
        complain(f"paretune: {_cut(usage_error(error, given, app))}")
        return USAGE
    except KeyboardInterrupt:
        complain("stopped; run the same command again to go on")
        return INTERRUPTED
    except (ParetuneError, OSError, MemoryError) as error:
        if os.environ.get("PARETUNE_TRACEBACK") == "1":
            raise
        if not flushed_or_dropped() and isinstance(error, BrokenPipeError):  # the reader of help has gone
            return OK
        complain_last(f"paretune: {_sentence(error)}")
        environment = isinstance(error, MissingDependencyError) or not isinstance(error, ParetuneError)
        return ENVIRONMENT if environment else USAGE
    return int(result or OK)


def _sentence(error: ParetuneError | OSError | MemoryError) -> str:
    if isinstance(error, OSError):
        return explained(error)
    if isinstance(error, MemoryError):
        return (
            "memory of this machine must suffice, got an allocation that failed. Take fewer workers, or less at once."
        )
    return _cut(str(error).partition("\n\n")[0])  # a traceback may follow


def _cut(text: str) -> str:
    """Return a message as one line, without its middle where it is longer than a screen."""
    text = printable_line(text)
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 500]} ... {text[-495:]}"


if __name__ == "__main__":
    main()
