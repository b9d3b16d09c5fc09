"""Commands of `paretune`. Modules are imported inside commands, so that `--help` and `ls` answer at once."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter

import paretune
from paretune.core.errors import ConfigError, MissingDependencyError, ParetuneError

OK, SOME_FAILED, USAGE, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 130
Kind = Literal["tasks", "methods", "objectives", "metrics", "studies"]

Output = Annotated[Path | None, Parameter(name=["--output", "-o"])]
Json = Annotated[bool, Parameter(name="--json", negative=())]

app = App(
    name="paretune",
    help="Fine-tune language models for several objectives at once, and measure which way of doing so is worth it.",
    version=paretune.__version__,
    version_flags=["--version"],
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `execute` says how to go on
)


@app.command
def run(
    study: str,
    *,
    output: Output = None,
    workers: int | None = None,
    part: str | None = None,
    quiet: bool = False,
) -> int:
    """Run a study; run it again to finish, extend or repair it. Finished work is never repeated.

    Args:
        study: A study file, or the name of a built-in study.
        output: Folder of the study; by default results/NAME.
        workers: Worker processes; by default what the study says.
        part: Run this part of the study alone.
        quiet: Show no progress.
    """
    from paretune.benchmark.runner import run as run_study
    from paretune.benchmark.summary import summary

    if quiet:
        logging.getLogger("paretune").setLevel(logging.WARNING)
    result = run_study(study, output, workers=workers, progress=not quiet, part=part)
    print(summary(result))
    return OK if result.complete else SOME_FAILED


@app.command
def plan(
    study: str,
    *,
    output: Output = None,
    workers: int | None = None,
    part: str | None = None,
    as_json: Json = False,
) -> int:
    """Say what running a study would do: cells, cost and time. Changes nothing.

    Args:
        study: A study file, or the name of a built-in study.
        output: Folder of the study; by default results/NAME.
        workers: Worker processes; by default what the study says.
        part: Look at this part of the study alone.
        as_json: Print JSON.
    """
    from paretune.benchmark.plan import plan as make_plan
    from paretune.benchmark.summary import plan_text

    planned = make_plan(study, output, workers=workers, part=part)
    print(json.dumps(planned.plain(), indent=2) if as_json else plan_text(planned))
    return OK


@app.command
def report(folder: Path, *others: Path, output: Output = None) -> int:
    """Write the report of a study again, from what its folder holds; or one report of parts run in several folders.

    Args:
        folder: Folder of a study.
        others: Folders of other parts of the same study.
        output: Folder of the merged report; needed for several folders.
    """
    from paretune.cli.values import import_folders
    from paretune.records.layout import lock_path
    from paretune.records.merging import finished_twice, merged
    from paretune.records.reading import read_study
    from paretune.report import summary_table, write_report
    from paretune.report.wording import count

    if not others:
        if output is not None:
            raise ConfigError(
                f"output must be left out for one folder, whose report goes into it, got '{output}'. Remove it."
            )
        records = read_study(folder)
        sys.path[:0] = import_folders(records)
        page = write_report(folder, records)
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
        sys.path[:0] = import_folders(records)
        page = write_report(output, records)
        twice = finished_twice(parts)
        if twice:
            print(f"finished in several folders, taken from the first of them: {count(twice, 'cell')}", file=sys.stderr)
    print(summary_table(records))
    print(f"\nreport: {page}")
    return OK


@app.command
def score(folder: Path, *, study: Annotated[str | None, Parameter(name="--study")] = None) -> int:
    """Score a study again after a change of its audit, from the completions it has stored. Nothing is sampled.

    Args:
        folder: Folder of a study.
        study: Its study file; by default the copy in the folder.
    """
    from paretune.benchmark.score import score as score_study
    from paretune.report.wording import count

    done = score_study(folder, study)
    for task, audit in sorted({*done.cells, *done.references}):
        cells, bases = done.cells.get((task, audit), 0), done.references.get((task, audit), 0)
        print(f"audit '{audit}' of {task}: scored again in {count(cells, 'cell')} and {count(bases, 'base model')}")
    if not done.cells and not done.references:
        print("nothing to score again: every stored reward of the audit is of the task as it is")
    for cell in done.left:
        print(f"{cell}: left as it is, since other completions are asked for now; paretune run samples them")
    print(f"\nreport: {done.page}")
    return OK


@app.command(name="ls")
def list_names(kind: Kind | None = None, *, as_json: Json = False) -> int:
    """List what can be named in a study, each with what it is.

    Args:
        kind: What to list; everything by default.
        as_json: Print JSON.
    """
    from paretune.cli.listing import listing

    kinds: Sequence[Kind] = ("tasks", "methods", "objectives", "metrics", "studies") if kind is None else (kind,)
    found = {each: listing(each) for each in kinds}
    if as_json:
        print(json.dumps(found if kind is None else found[kind], indent=2))
        return OK
    for each, entries in found.items():
        if kind is None:
            print(f"{each}:")
        for entry in entries:
            family = f"{entry['family']:<15}" if "family" in entry else ""
            print(f"{'  ' if kind is None else ''}{entry['name']:<24}{family}{entry['description']}")
    return OK


@app.command
def train(
    method: str,
    *,
    task: Annotated[str, Parameter(name=["--task", "-t"])],
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    budget: int = 6000,
    seed: int = 0,
    settings: Annotated[list[str] | None, Parameter(name="--set", negative=())] = None,
) -> int:
    """Train one method on one task and save its policies.

    Args:
        method: Name of a method, or module:Class.
        task: Name of a task, path of a task.yaml, or module:name.
        output: Folder to save to.
        budget: Completions it may make.
        seed: Training seed.
        settings: A setting of the method, as key=value; may be given several times, dots for nested ones.
    """
    from paretune.benchmark.training import train as train_method
    from paretune.cli.values import LineLink, parse_settings

    sys.path.insert(0, os.getcwd())  # a user's module:Class lies beside them, not beside this program
    given = parse_settings(settings or [])
    solutions = train_method(method, task, budget, seed, settings=given, output=output, progress=LineLink(budget))
    experts = "1 expert" if len(solutions.experts) == 1 else f"{len(solutions.experts)} experts"
    print(f"{solutions.method} with {experts} saved to {output}")
    names = ", ".join(f"{name}=..." for name in solutions.objectives)
    print(f'next: paretune generate {output} --preference {names.replace(", ", ",")} "prompt"')
    return OK


@app.command
def probe(
    task: str,
    *,
    samples: int = 1024,
    seed: int = 0,
    study: Annotated[Path | None, Parameter(name="--from")] = None,
    method: str | None = None,
    pilot: int | None = None,
    output: Output = None,
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
    """
    from paretune.benchmark.probe import probe as probe_task
    from paretune.cli.relations import StepLines, print_probe
    from paretune.tasks import load_task

    sys.path.insert(0, os.getcwd())  # as for train
    loaded = load_task(task)
    folder = output or Path("results") / f"probe-{loaded.name}"
    found = probe_task(loaded, samples, seed, study, pilot, folder, StepLines(), method)
    if as_json:
        print(json.dumps(found.plain(), indent=2))
    else:
        print_probe(found)
    return OK


@app.command
def generate(
    folder: Path,
    prompts: Annotated[list[str] | None, Parameter(negative=())] = None,
    *,
    preference: Annotated[str | None, Parameter(name=["--preference", "-p"])] = None,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    as_json: Json = False,
) -> int:
    """Answer prompts with a trained policy, for a preference of your choice.

    Args:
        folder: What train saved, or a cell of a study (runs/CELL).
        prompts: One or more prompts; needed.
        preference: Weights of the objectives, such as empathy=0.7,brevity=0.3; those left out count 0. Needed.
        samples: Completions per prompt.
        temperature: 1 samples as trained; lower is less varied.
        top_p: Share of the probability mass that is sampled from.
        seed: Another seed, other completions.
        as_json: Print JSON.
    """
    from paretune.cli.values import check_sampling, given, import_folders, parse_preference
    from paretune.records.layout import lock_path
    from paretune.records.reading import read_lock

    preference, prompts = given(folder, preference, prompts or [])
    wanted = parse_preference(preference)
    check_sampling(samples, temperature, top_p)
    from paretune.models.solutions import load_solutions

    study = folder.resolve().parent.parent  # of runs/<cell>
    sys.path[:0] = import_folders(read_lock(study) if lock_path(study).is_file() else None)
    policy = load_solutions(folder).policy_for(wanted)
    made = policy.generate(prompts, samples=samples, temperature=temperature, top_p=top_p, seed=seed)
    rows = [
        {"prompt": prompts[prompt], "sample": sample, "completion": text, "finish": finish}
        for (_, prompt, sample), text, finish in zip(made.row_ids, made.texts, made.finish, strict=True)
    ]
    if as_json:
        print(json.dumps({"preference": wanted, "answer": policy.answers[0], "completions": rows}, indent=2))
        return OK
    for row in rows:
        print(row["completion"] if len(prompts) == 1 else f"{row['prompt']}\n  {row['completion']}")
    return OK


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(execute(arguments))


def execute(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done, 1 some cells failed, 2 usage or configuration, 3 environment, 130 stopped.
    """
    os.environ.setdefault("TQDM_DISABLE", "1")  # libraries' bars for loading a file would tear our progress apart
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with notes_shown():
            result: Any = app(given, exit_on_error=False, result_action="return_value")
    except CycloptsError:
        return USAGE  # it has printed what was wrong
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except (ParetuneError, OSError) as error:
        if os.environ.get("PARETUNE_TRACEBACK") == "1":
            raise
        text = " ".join(str(error).split())
        print(f"paretune: {text}", file=sys.stderr)
        environment = isinstance(error, MissingDependencyError) or not isinstance(error, ParetuneError)
        return ENVIRONMENT if environment else USAGE
    return int(result or OK)


@contextmanager
def notes_shown() -> Iterator[None]:
    """Print what the library notes, such as an instance it is drawing, on stderr."""
    logger, handler = logging.getLogger("paretune"), logging.StreamHandler(sys.stderr)
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


if __name__ == "__main__":
    main()
