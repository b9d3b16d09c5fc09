"""A legend never covers what it explains, and never leaves the figure."""

from __future__ import annotations

import warnings
from pathlib import Path

import matplotlib as mpl
import pytest

from paretune.report.drawing import STYLE, add_legend, blank_figure, save_figure


@pytest.mark.parametrize(("count", "name"), [(3, "linear"), (46, "linear"), (46, "conditioned_slower (meta-policy)")])
def test_a_figure_grows_with_its_legend(tmp_path: Path, count: int, name: str) -> None:
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns where a legend leaves no room
        figure = blank_figure(6.0, 4.0)
        axes = figure.add_subplot()
        for number in range(count):
            axes.plot([0, 1], [0, number], label=f"{name}_{number}")
        add_legend(figure, *axes.get_legend_handles_labels())
        save_figure(figure, tmp_path / "many")
        figure.draw_without_rendering()  # sizes at the resolution of the figure, not of its files
    drawn, legend = axes.get_window_extent(), figure.legends[0].get_window_extent()
    assert drawn.height > 2.5 * figure.dpi
    assert legend.width < 6.0 * figure.dpi
    assert legend.y0 > drawn.y1


def test_without_names_there_is_no_legend() -> None:
    figure = blank_figure(6.0, 4.0)
    add_legend(figure, [], [])
    assert not figure.legends
