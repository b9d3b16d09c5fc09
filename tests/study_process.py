"""A study of fake stages in a process that a test may kill: `import study_process`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CODE = (
    "import json, sys, fake_study; from paretune.benchmark import runner; "
    "fake_study.stand_in(); "
    "result = runner.run(json.loads(sys.argv[1]), sys.argv[2]); sys.exit(not result.complete)"
)


def command(made: dict[str, Any], folder: Path) -> list[str]:
    """Return the command that runs a study; its exit status says whether the study is complete."""
    return [sys.executable, "-c", CODE, json.dumps(made), str(folder)]


def updates(trace: Path) -> int:
    """Count the updates that stages have noted in their `trace`."""
    return len(trace.read_text().splitlines()) if trace.exists() else 0
