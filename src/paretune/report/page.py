"""The report as one offline HTML page: a table of sections, everything escaped, nothing loaded."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from paretune.core.printable import printable
from paretune.core.protocols import CEILING, REFERENCE, MetricRow
from paretune.core.version import VERSION
from paretune.records.study import StudyRecords
from paretune.report.charts import Charts
from paretune.report.completeness import warnings
from paretune.report.embedded_data import embedded_json
from paretune.report.header import configuration_figure, key_figures, subtitle, unequal
from paretune.report.heat_map import BASE
from paretune.report.palette import BASE_LOOK
from paretune.report.section import Block, blocks
from paretune.report.sections import SECTIONS
from paretune.report.view import View
from paretune.report.wording import table_cell

SCRIPTS = ("words", "figures", "choice", "completions", "tables", "page")  # one script, joined in this order


def render_page(study: StudyRecords, rows: Sequence[MetricRow]) -> str:
    """Return the page of a study as text, from its metrics."""
    view = View(study, rows)
    return page_text(view, blocks(view, SECTIONS))


def page_text(view: View, found: Sequence[Block], files: Sequence[str] = ()) -> str:
    """Return the page as text.

    Args:
        view: The study.
        found: What its sections show.
        files: Relative names of files written beside the page, to link to.
    """
    study, charts = view.study, Charts()
    plotly, script = _plotly(), _script()
    environment = _environment(view, charts, files)
    sections = {block.section.name: block.section for block in found}
    return environment.get_template("page.html.jinja").render(
        study=study,
        policy=content_policy(plotly, script),
        css=_own("report.css"),
        plotly=plotly,
        script=script,
        subtitle=subtitle(study, view.comparisons),
        warnings=[*warnings(study, view.comparisons), *unequal(view.configuration)],
        key_figures=[*key_figures(study, view.comparisons), *configuration_figure(view.configuration)],
        parts=view.parts,
        sections=list(sections.values()),
        shown={
            name: [(block.part, _rendered(block, view, environment)) for block in found if block.section.name == name]
            for name in sections
        },
        figures=embedded_json(charts.packed()),
        version=VERSION,
    )


def content_policy(*scripts: str) -> str:
    """Return a content security policy that runs these scripts only and fetches nothing.

    Styles may be inline: Plotly sets them on the elements it draws.
    """
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; connect-src 'none'; "
        "form-action 'none'; base-uri 'none'"
    )


def _rendered(block: Block, view: View, environment: Environment) -> Markup:
    if block.missing:
        return Markup('<p class="muted">{}</p>').format(block.missing)
    template = environment.get_template(f"sections/{block.section.template}")
    place = None if block.part is None else block.part.index
    return Markup(template.render(block.data, view=view, part=block.part, i=place))  # rendered with escaping on


def _environment(view: View, charts: Charts, files: Sequence[str]) -> Environment:
    environment = Environment(
        loader=PackageLoader("paretune.report"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        finalize=lambda value: printable(value) if type(value) is str else value,  # Markup is our own
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cell"] = table_cell
    environment.filters["anchor"] = anchor
    environment.filters["embedded"] = embedded_json
    environment.globals |= {
        "looks": view.looks,
        "base_look": BASE_LOOK,
        "base": BASE,
        "ceilings": view.names_of(CEILING),
        "untrained": view.names_of(REFERENCE),
        "add": charts.add,
        "files": files,
    }
    return environment


def anchor(term: str) -> str:
    """Return the place of a term's meaning in the appendix."""
    return "term-" + re.sub(r"\W+", "-", term.lower())


def _own(name: str) -> Markup:
    """Read a style sheet or script of this package; only our own text is ever passed through unescaped."""
    return Markup((Path(__file__).parent / "templates" / name).read_text(encoding="utf-8"))  # our file


def _script() -> Markup:
    joined = Markup("\n").join(_own(f"scripts/{name}.js") for name in SCRIPTS)
    return Markup('"use strict";\n(() => {\n') + joined + Markup("})();")


@cache
def _plotly() -> Markup:
    from plotly.offline import get_plotlyjs

    return Markup(get_plotlyjs().replace("</script", "<\\/script"))  # the library's own file
