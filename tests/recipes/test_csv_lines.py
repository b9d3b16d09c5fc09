"""Tables of recipes: they go on where they stopped, and hold lines of one form alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")


def test_a_table_goes_on_where_it_stopped_and_makes_no_line_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes"))
    from csv_lines import continued

    file, made = tmp_path / "new" / "lines.csv", []
    keys = [{"rho": rho, "instance": instance} for instance in (0, 1) for rho in (-0.8, 0.0)]

    def make(key: Any) -> dict[str, object]:
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append((key["rho"], key["instance"]))
        return {"share": 0.123456 + key["instance"]}

    with pytest.raises(KeyboardInterrupt):
        continued(file, keys, make, False)
    assert file.read_text() == "rho,instance,share\n-0.8000,0,0.1235\n0.0000,0,0.1235\n"
    first = made[:]
    made.clear()
    continued(file, keys, make, False)
    assert first + made == [(-0.8, 0), (0.0, 0), (-0.8, 1), (0.0, 1)]
    assert file.read_text().splitlines()[3:] == ["-0.8000,1,1.1235", "0.0000,1,1.1235"]


@pytest.mark.parametrize("name", ["kinds", "split_gain", "new_objective", "context_range"])
def test_a_table_of_the_study_is_not_completed_by_tiny_lines_nor_the_other_way(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(root / "recipes" / "meta_policy"))
    recipe: Any = __import__(name)
    kept = root / f"docs/results/data/meta_policy/{name}.csv"
    file, made = tmp_path / "table.csv", list[object]()

    def measured(*given: object) -> Any:  # in the place of what takes minutes
        made.append(given)
        numbers = np.ones(4), 2.0
        return {"kinds": {"share": 0.5}, "new_objective": {"all_after": 0.5}, "split_gain": numbers}.get(
            name, (0.5, 1.0)
        )

    for slow in ("measured", "gained", "lived"):
        if hasattr(recipe, slow):
            monkeypatch.setattr(recipe, slow, measured)

    def run(*arguments: str) -> int:
        monkeypatch.setattr("sys.argv", [name, "-o", str(file), *arguments])
        return int(recipe.main())

    file.write_bytes(kept.read_bytes())
    assert run() == 0
    assert (made, file.read_bytes()) == ([], kept.read_bytes())  # read as it is, and whole
    assert run("--tiny") == 2
    assert "must all be made without --tiny, as those in it are, got a call with it. Name" in capsys.readouterr().err
    file.unlink()
    assert run("--tiny") == 0
    tiny, count = file.read_bytes(), len(made)
    assert {line["tiny"] for line in csv.DictReader(tiny.decode().splitlines())} == {"1"}
    assert run("--tiny") == 0
    assert run() == 2
    assert "must all be made with --tiny, as those in it are, got a call without it. Name" in capsys.readouterr().err
    assert (file.read_bytes(), len(made)) == (tiny, count)
