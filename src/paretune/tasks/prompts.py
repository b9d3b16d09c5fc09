"""Prompts from JSONL, CSV, TSV, Parquet or a data set of the hub: read as rows, checked, numbered."""

from __future__ import annotations

import csv
import datetime
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from paretune.core.checks import did_you_mean
from paretune.core.errors import TaskError
from paretune.core.task import Row, Split
from paretune.tasks.strict_yaml import Place

Numbered = tuple[str, dict[str, object]]  # where a row stands, for messages, and its columns
HUB: Final = "hub:"
HUB_SPLITS: Final[dict[Split, str]] = {"train": "train", "development": "validation", "test": "test"}


def load_split(source: str, split: Split, column: str, place: Place) -> tuple[Row, ...]:
    """Read and check the prompts of one split.

    Args:
        source: File, or `hub:owner/name[:config][:split]`, where the owner and name may be a local folder.
        split: Name of the split; numbers the rows that have no `prompt_id`.
        column: Column of the prompts.
        place: Where the source was named.

    Returns:
        Rows with `prompt`, `prompt_id` and all other columns.

    Raises:
        TaskError: If the file is missing, empty or damaged, or a row cannot be used.
    """
    where = place.at("prompts", split)
    rows: list[Row] = []
    seen: dict[str, str] = {}
    for index, (line, raw) in enumerate(_read(source, split, place, where)):
        row = _check_row(raw, line, column, f"{split}-{index}")
        prompt_id = str(row["prompt_id"])
        if prompt_id in seen:
            raise TaskError(
                f"{line}: prompt_id must be unique in its split, got '{prompt_id}' as in {seen[prompt_id]}. Rename "
                "one, or leave the column out."
            )
        seen[prompt_id] = line
        rows.append(row)
    if not rows:
        raise TaskError(f"{where} must hold at least one prompt, got none in '{source}'. Add prompts to it.")
    return tuple(rows)


def check_overlap(splits: Mapping[Split, Sequence[Row]], place: Place) -> None:
    """Refuse test prompts that training or selection also sees: scores on them would flatter every method.

    Raises:
        TaskError: If a test prompt is also a training or development prompt.
    """
    tested = {row["prompt"]: row["prompt_id"] for row in splits["test"]}
    for other in ("train", "development"):
        shared = [row for row in splits[other] if row["prompt"] in tested]
        if shared:
            first = shared[0]
            raise TaskError(
                f"{place.at('prompts', 'test')} must have no prompt of {other}, got {len(shared)}, the first "
                f"'{tested[first['prompt']]}' (in {other}: '{first['prompt_id']}'). Remove them from one, or allow it "
                "with prompts.allow_overlap: true."
            )


def _read(source: str, split: Split, place: Place, where: str) -> Iterator[Numbered]:
    if source.startswith(HUB):
        return _read_hub(source.removeprefix(HUB), split, place, where)
    file = place.resolve(source)
    if not file.is_file():
        raise TaskError(f"{where} must be a file that exists, got '{source}' ({file}). Check the path.")
    reader = READERS.get(file.suffix.lower())
    if reader is None:
        raise TaskError(
            f"{where} must end in one of {', '.join(READERS)}, got '{source}'. Convert it, or name a data set as "
            f"{HUB}owner/name."
        )
    return reader(file)


def _check_row(raw: Mapping[str, object], where: str, column: str, default_id: str) -> Row:
    if column not in raw:
        names = [str(name) for name in raw]
        raise TaskError(
            f"{where}: columns must include '{column}', got {', '.join(names) or 'none'}."
            f"{did_you_mean(column, names) or ' Name the column of the prompts in prompts.column.'}"
        )
    if column != "prompt" and "prompt" in raw:
        raise TaskError(
            f"{where}: columns must not include both 'prompt' and the prompt column '{column}', got both. Rename "
            "'prompt' in the file, or remove prompts.column."
        )
    prompt = raw[column]
    if not isinstance(prompt, str):
        raise TaskError(
            f"{where}: {column} must be text, got {type(prompt).__name__} {str(prompt)[:60]!r}. Write each prompt as "
            "one text; what surrounds it belongs in the task's template."
        )
    if not prompt.strip():
        raise TaskError(f"{where}: {column} must not be empty, got {prompt!r}. Remove the row, or write a prompt.")
    prompt_id = raw.get("prompt_id", default_id)
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, (str, int)) or prompt_id == "":
        raise TaskError(
            f"{where}: prompt_id must be text or a whole number, got {prompt_id!r}. Correct it, or leave it out."
        )
    columns = {name: plain(value, f"{where}: {name}") for name, value in raw.items() if name != column}
    return {**columns, "prompt": prompt, "prompt_id": str(prompt_id)}


def plain(value: object, where: str) -> object:
    """Return a cell as plain data: dates as ISO text, NaN as None, which is how tables write a missing number.

    Raises:
        TaskError: If it is infinite or of a type that JSON does not have.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(item, where) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where) for item in value]
    raise TaskError(
        f"{where} must be text, a finite number, a date, or a list or mapping of these, got {value!r}. Convert the "
        "column, or remove it."
    )


def _read_jsonl(file: Path) -> Iterator[Numbered]:
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise TaskError(
                f"{file}:{number} must be one JSON object a line, got an error: {error.msg} (column {error.colno}). "
                "Correct the line."
            ) from error
        if not isinstance(row, dict):
            raise TaskError(
                f"{file}:{number} must be one JSON object a line, got {type(row).__name__}. Write "
                '{"prompt": "..."} on each line.'
            )
        yield f"{file}:{number}", row


def _read_table(file: Path, delimiter: str) -> Iterator[Numbered]:
    reader = csv.DictReader(_lines(file), delimiter=delimiter, strict=True)
    names = list(reader.fieldnames or [])
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise TaskError(f"{file}:1: columns must have different names, got '{doubled}' twice. Rename one.")
    try:
        for row in reader:
            where = f"{file}:{reader.line_num}"
            if None in row or None in row.values():
                got = len(row.get(None) or []) + sum(row[name] is not None for name in names)
                raise TaskError(
                    f"{where} must have {len(names)} cells as the first line, got {got}. Put a cell that contains "
                    "the separator in double quotes."
                )
            yield where, {name: row[name] for name in names}
    except csv.Error as error:
        raise TaskError(
            f"{file}:{reader.reader.line_num} must be a table with closed quotes, got an error: {error}. Correct it."
        ) from error


def _read_csv(file: Path) -> Iterator[Numbered]:
    return _read_table(file, ",")


def _read_tsv(file: Path) -> Iterator[Numbered]:
    return _read_table(file, "\t")


def _read_parquet(file: Path) -> Iterator[Numbered]:
    import pyarrow
    import pyarrow.parquet

    try:
        whole = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(file.read_bytes()))
        rows = whole.read(use_threads=False).to_pylist()  # without a thread, as records/evaluations.py says why
    except pyarrow.ArrowException as error:
        raise TaskError(f"{file} must be a Parquet file, got an error: {error}. Write it again.") from error
    for number, row in enumerate(rows, start=1):
        yield f"{file}, row {number}", row


def _read_hub(name: str, split: Split, place: Place, where: str) -> Iterator[Numbered]:
    import datasets

    repository, *rest = name.split(":")
    if len(rest) > 2 or not repository:
        raise TaskError(
            f"{where} must be written as {HUB}owner/name[:config][:split], got '{HUB}{name}'. Remove what is too much."
        )
    local = place.resolve(repository)
    path = str(local) if local.is_dir() else repository
    config, part = (rest[0] if len(rest) == 2 else None), (rest[-1] if rest else HUB_SPLITS[split])
    try:
        rows = datasets.load_dataset(path, config, split=part)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise TaskError(
            f"{where} must be a data set that can be loaded, got '{HUB}{name}' ({type(error).__name__}: "
            f"{str(error).strip().splitlines()[0]}). Check its name, configuration, split and the network."
        ) from error
    for number, row in enumerate(rows, start=1):
        yield f"{HUB}{name}, row {number}", dict(row)


def _lines(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:  # spreadsheets start a file with a byte-order mark
            yield from text
    except UnicodeDecodeError as error:
        raise TaskError(f"{file} must be UTF-8 text, got other bytes ({error}). Save it as UTF-8.") from error


READERS: Final[dict[str, Callable[[Path], Iterator[Numbered]]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
"""What reads a file, by the end of its name."""
