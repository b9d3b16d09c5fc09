from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paretune.benchmark.folder import locked
from paretune.core.errors import StudyError

HOLD = (
    "import sys, time; from pathlib import Path; from paretune.benchmark.folder import locked\n"
    "with locked(Path(sys.argv[1])) as descriptor:\n    print('held', flush=True); time.sleep(60)"
)


def test_a_second_process_is_refused_until_the_first_has_gone_even_by_a_kill(tmp_path: Path) -> None:
    first = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert first.stdout is not None
    with first.stdout:
        assert first.stdout.readline() == "held\n"
    with pytest.raises(StudyError, match=f"which process {first.pid} is working on"), locked(tmp_path):
        pass
    first.kill()
    first.wait()
    with locked(tmp_path):
        pass


def test_a_run_waits_for_orphaned_workers_of_a_killed_one(tmp_path: Path) -> None:
    """The killed parent's number is dead, a child still holds the descriptor: it leaves in a moment."""
    code = (
        "import os, subprocess, sys; from pathlib import Path; from paretune.benchmark.folder import locked\n"
        "with locked(Path(sys.argv[1])) as descriptor:\n"
        "    subprocess.Popen(['sleep', '1'], pass_fds=[descriptor]); print('held', flush=True); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, stdout=subprocess.DEVNULL)
    with locked(tmp_path):
        pass
