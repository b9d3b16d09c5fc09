"""`paretune compare`: methods held against each other, prompt by prompt and seed by seed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from paretune.cli.arguments import Output
from paretune.cli.printing import complain, say
from paretune.core.errors import ConfigError

if TYPE_CHECKING:
    from paretune.benchmark.pairing import Pairing, Source


def compare(
    names: Annotated[list[str] | None, Parameter(negative=())] = None,
    *,
    study: Annotated[Path | None, Parameter(name="--study")] = None,
    baselines: Annotated[list[str] | None, Parameter(name="--with", negative=())] = None,
    form: Annotated[Literal["text", "csv", "md", "latex"], Parameter(name="--format")] = "text",
    output: Output | None = None,
) -> int:
    """Compare methods of one study, or of several, or with records that ship with paretune. Nothing is trained.

    Differences are paired by prompt and seed; methods that cannot be told apart share a rank. What is not the same task
    instance, with the same preferences and budget, is left out and listed.

    Args:
        names: Folders of studies, or files of their records; with --study, methods. By default all methods.
        study: Folder of the study whose methods are named.
        baselines: Records to compare with, by name, folder or file; may be given several times.
        form: What to print: text, csv, md or latex.
        output: Folder to write all forms to, and the differences of all pairs.

    Example:
        paretune compare results/mine --with controlled
        paretune compare results/mine results/theirs
        paretune compare --study results/mine linear rewarded_soups
        paretune compare --study results/mine --with controlled mine --format latex
    """
    from paretune.benchmark.compared_tables import rendered, write_compared
    from paretune.benchmark.comparing import compared
    from paretune.benchmark.pairing import pair

    names = names or []
    sources = _sources([str(study)] if study is not None else names, baselines or [])
    methods = _checked(names, sources) if study is not None else []
    pairing = pair(sources, methods)
    subject = methods[0] if methods else _own_method(pairing, sources)
    found = [compared(lineup, subject) for lineup in pairing.lineups]
    if not any(len(each.rivals(each.measures[0])) > 1 for each in found):
        left_out = "; ".join(pairing.unpaired[:5]) or "no second method"
        raise ConfigError(
            f"methods to compare must be at least two on one task instance, with the same preferences and budget, got "
            f"none that can be paired: {left_out}. Run them with equal tasks, seeds, preferences and budget."
        )
    say(rendered(found, pairing.unpaired, form).rstrip())
    if form in ("csv", "latex"):
        for each in pairing.unpaired:
            complain(f"not compared: {each}")
    if output is not None:
        complain(f"written: {', '.join(str(file) for file in write_compared(output, found, pairing.unpaired))}")
    return 0


def _sources(folders: list[str], baselines: list[str]) -> list[Source]:
    from paretune.benchmark.baselines import load_records
    from paretune.benchmark.pairing import Source

    if not folders and not baselines:
        raise ConfigError(
            "compare must be given a study, got none. Name its folder, such as results/NAME, or --study DIR and its "
            "methods."
        )
    given = [*((name, False) for name in folders), *((name, True) for name in baselines)]
    doubled = next((name for place, (name, _) in enumerate(given) if name in [each for each, _ in given[:place]]), None)
    if doubled is not None:
        raise ConfigError(f"sources to compare must be different ones, got '{doubled}' twice. Name it once.")
    return [Source(name, load_records(name, built_in)) for name, built_in in given]


def _checked(methods: list[str], sources: list[Source]) -> list[str]:
    """Check that methods are among those of the sources."""
    from paretune.core.checks import check_choice

    known = dict.fromkeys(cell.method for source in sources for cell in source.study.cells)
    return [check_choice("method to compare", name, known) for name in methods]


def _own_method(pairing: Pairing, sources: list[Source]) -> str:
    """Return the first method that the first of several sources alone has; empty where there is none."""
    others = {cell.method for source in sources[1:] for cell in source.study.cells}
    rows = [row for lineup in pairing.lineups for row in lineup.rows if row.ranked and row.source is sources[0]]
    return next((row.label for row in rows if row.label not in others), "") if others else ""
