"""Prompts from JSONL, CSV, TSV, Parquet or a data set of the hub: read as rows, checked, numbered."""

from __future__ import annotations

import csv
import datetime
import json
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from paretune.core.checks import did_you_mean
from paretune.core.errors import TaskError
from paretune.core.limits import MAX_NESTING, MAX_ROW_BYTES, MAX_ROWS, MAX_TABLE_BYTES, MAX_WHOLE
from paretune.core.printable import brief, is_writable, printable, printable_line
from paretune.core.task import Row, Split
from paretune.core.text_files import decoded
from paretune.tasks.strict_yaml import Place

Numbered = tuple[str, dict[str, object]]  # where a row stands, for messages, and its columns
Rows = Generator[Numbered, None, None]  # closed after use, and its file with it
HUB: Final = "hub:"
LINE: Final = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
BATCH_ROWS: Final = 64  # read at once: a small Parquet file may hold the same long text a million times
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
    with closing(_read(source, split, place, where)) as numbered:
        for index, (line, raw) in enumerate(numbered):
            row = _check_row(raw, line, column, f"{split}-{index}")
            prompt_id = str(row["prompt_id"])
            if prompt_id in seen:
                raise TaskError(
                    f"{line}: prompt_id must be unique in its split, got '{prompt_id}' as in {seen[prompt_id]}. Rename "
                    "one, or leave the column out."
                )
            seen[prompt_id] = line
            rows.append(row)
            if len(rows) > MAX_ROWS:
                raise TaskError(f"{where} must have at most {MAX_ROWS:,} rows, got more in '{source}'. Take fewer.")
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


def _read(source: str, split: Split, place: Place, where: str) -> Rows:
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
        names = [printable(str(name), kept="") for name in list(raw)[:20]]
        got = ", ".join(name if name == name.strip() else repr(name) for name in names)
        raise TaskError(
            f"{where}: columns must include '{column}', got {got or 'none'}."
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
            f"{where}: {column} must be text, got {type(prompt).__name__} {brief(prompt)}. Write each prompt as "
            "one text; what surrounds it belongs in the task's template."
        )
    if not prompt.strip():
        raise TaskError(f"{where}: {column} must not be empty, got {brief(prompt)}. Remove the row, or write a prompt.")
    prompt_id = raw.get("prompt_id", default_id)
    if isinstance(prompt_id, bool) or not isinstance(prompt_id, (str, int)) or prompt_id == "":
        raise TaskError(
            f"{where}: prompt_id must be text or a whole number, got {brief(prompt_id)}. Correct it, or leave it out."
        )
    columns = {_text(name, where): plain(value, f"{where}: {name}") for name, value in raw.items() if name != column}
    return {**columns, "prompt": _text(prompt, f"{where}: {column}"), "prompt_id": str(prompt_id)}


def plain(value: object, where: str, depth: int = 0) -> object:
    """Return a cell as plain data: dates as ISO text, NaN as None, which is how tables write a missing number.

    Raises:
        TaskError: If it is infinite, text that cannot be written, nested too deep, or of a type JSON does not have.
    """
    if isinstance(value, str):
        return _text(value, where)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float) and not math.isinf(value):
        return None if math.isnan(value) else value
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if depth > MAX_NESTING:
        raise TaskError(f"{where} must be nested at most {MAX_NESTING} deep, got more. Flatten it, or remove it.")
    if isinstance(value, Mapping):
        return {_text(str(name), where): plain(item, where, depth + 1) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, where, depth + 1) for item in value]
    raise TaskError(
        f"{where} must be text, a finite number, a date, or a list or mapping of these, got {brief(value)}. Convert "
        "the column, or remove it."
    )


def _text(text: str, where: str) -> str:
    if "\0" in text or not is_writable(text):
        raise TaskError(
            f"{where} must be text without NUL or half a surrogate pair, got {brief(text)}. Correct the file's "
            "encoding, or remove the character."
        )
    return text


def _read_jsonl(file: Path) -> Rows:
    with closing(_lines(file)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line, object_pairs_hook=_once, parse_int=_whole, parse_constant=_finite)
            except (ValueError, RecursionError) as error:
                at = f" (column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
                problem = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                raise TaskError(
                    f"{file}:{number} must be one JSON object a line, got an error: {problem}{at}. Correct the line."
                ) from error
            if not isinstance(row, dict):
                raise TaskError(
                    f"{file}:{number} must be one JSON object a line, got {type(row).__name__}. Write "
                    '{"prompt": "..."} on each line.'
                )
            yield f"{file}:{number}", row


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {brief(doubled)} twice")
    return row


def _whole(digits: str) -> int:
    if len(digits) > 20 or abs(int(digits)) > MAX_WHOLE:
        raise ValueError(f"a whole number beyond {MAX_WHOLE}")
    return int(digits)


def _finite(constant: str) -> object:
    if constant == "NaN":  # what Python and pandas write for a missing number
        return None
    raise ValueError(f"{constant}, which is no finite number")


def _read_table(file: Path, delimiter: str) -> Rows:
    with closing(_lines(file)) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        names: list[str] = []
        line = 1  # where the row begins
        try:
            for row in reader:
                where, line = f"{file}:{line}", reader.line_num + 1
                if not row:
                    continue
                if not names:
                    names = row
                    _check_names(names, delimiter, where)
                    continue
                if len(row) != len(names):
                    raise TaskError(
                        f"{where} must have {len(names)} cells as the first line, got {len(row)}. Put a cell that "
                        "contains the separator in double quotes."
                    )
                yield where, dict(zip(names, row, strict=True))
        except csv.Error as error:
            raise TaskError(
                f"{file}:{line} must be a row with closed quotes and cells of at most {csv.field_size_limit():,} "
                f"characters, got an error: {error}. Close its quotes, or write longer texts as JSONL."
            ) from error


def _check_names(names: Sequence[str], delimiter: str, where: str) -> None:
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise TaskError(f"{where}: columns must have different names, got '{doubled}' twice. Rename one.")
    other = next((each for each in ";\t,|" if each != delimiter and each in names[0]), None)
    if len(names) == 1 and other is not None:
        raise TaskError(
            f"{where}: cells must be separated by {_separator(delimiter)}, got {_separator(other)}. Save the file as "
            ".csv with commas or as .tsv with tabs."
        )


def _separator(letter: str) -> str:
    return {",": "commas", "\t": "tabs"}.get(letter, f"'{letter}'")


def _read_csv(file: Path) -> Rows:
    return _read_table(file, ",")


def _read_tsv(file: Path) -> Rows:
    return _read_table(file, "\t")


def _read_parquet(file: Path) -> Rows:
    import pyarrow
    import pyarrow.parquet

    _check_size(file, file.stat().st_size)
    content, size, number = file.read_bytes(), 0, 0
    try:
        whole = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content))
        names = whole.schema_arrow.names
        doubled = next((name for name in names if names.count(name) > 1), None)
        if doubled is not None:
            raise TaskError(f"{file}: columns must have different names, got '{doubled}' twice. Rename one.")
        for batch in whole.iter_batches(BATCH_ROWS, use_threads=False):  # records/evaluations.py says why no thread
            size += batch.nbytes
            _check_size(file, size)
            for index in range(batch.num_rows):
                number += 1
                yield f"{file}, row {number}", batch.slice(index, 1).to_pylist()[0]
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        what = f"{file}, row {number} must be readable" if number else f"{file} must be a Parquet file"
        raise TaskError(f"{what}, got an error: {printable_line(str(error))}. Write it again.") from error


def _check_size(file: Path, size: int) -> None:
    if size > MAX_TABLE_BYTES:
        raise TaskError(
            f"{file} must have at most {MAX_TABLE_BYTES:,} bytes of prompts, got {size:,} or more. Keep the columns "
            "and rows that are used."
        )


def _read_hub(name: str, split: Split, place: Place, where: str) -> Rows:
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


def _lines(file: Path) -> Generator[str, None, None]:
    """Yield the lines of a text file, whichever way they end."""
    _check_size(file, file.stat().st_size)
    with file.open("rb") as stream:
        number = 1
        while line := stream.readline(MAX_ROW_BYTES + 1):
            if len(line) > MAX_ROW_BYTES:
                raise TaskError(
                    f"{file}:{number} must be a line of at most {MAX_ROW_BYTES:,} bytes, got more. Shorten it."
                )
            for part in LINE.findall(decoded(line, file, TaskError, number)):
                yield part
                number += 1


READERS: Final[dict[str, Callable[[Path], Rows]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
"""What reads a file, by the end of its name."""
