"""What a run says and what it leaves, for tests: `import watched`."""

from __future__ import annotations

from pathlib import Path

from paretune.benchmark.progress import Display, Progress


def contents(folder: Path, *parts: str) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file below some folders of a study."""
    files = [path for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


class Watch(Display):
    def __init__(self) -> None:
        self.shown: list[Progress] = []
        self.said: list[str] = []

    def show(self, progress: Progress) -> None:
        self.shown.append(progress)

    def say(self, text: str) -> None:
        self.said.append(text)
