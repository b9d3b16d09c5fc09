"""Files of prompts that are damaged, hostile or of another kind: one line that names the file and the place."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from paretune.core import limits
from paretune.core.errors import TaskError
from paretune.core.task import Row
from paretune.tasks import prompts
from paretune.tasks.prompts import load_split
from paretune.tasks.strict_yaml import Place


def rows_of(folder: Path, name: str, content: str | bytes) -> tuple[Row, ...]:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    return load_split(name, "train", "prompt", Place("task.yaml", folder))


def texts(folder: Path, name: str, content: str | bytes) -> list[object]:
    return [row["prompt"] for row in rows_of(folder, name, content)]


JSONL = {
    "key twice": ('{"prompt": "a"}\n{"prompt": "b", "prompt": "c"}\n', r":2 must .*the key 'prompt' twice"),
    "key twice below": ('{"prompt": "a", "x": {"y": 1, "y": 2}}', r":1 must .*the key 'y' twice"),
    "deep": ('{"prompt": "a", "x": ' + "[" * 1500 + "]" * 1500 + "}", r":1.* must "),
    "deep mappings": ('{"prompt": "a", "x": ' + '{"a":' * 100 + "1" + "}" * 101, r":1: x must be nested at most 32"),
    "open and deep": ("[" * 100_000, r":1 must be one JSON object a line"),
    "infinity": ('{"prompt": "a", "x": -Infinity}', r":1 must .*-Infinity, which is no finite number"),
    "beyond a double": ('{"prompt": "a", "x": 1e999}', r":1: x must be text, a finite number, .*got inf"),
    "5,000 digits": ('{"prompt": "a", "x": ' + "9" * 5000 + "}", r":1 must .*a whole number beyond 92233720368"),
    "half a pair": ('{"prompt": "a"}\n{"prompt": "b \\ud83d"}\n', r":2: prompt must be text without NUL or half a"),
    "half a pair in a column": ('{"prompt": "a", "x": ["\\udc00"]}', r":1: x must be text without NUL or half a"),
    "half a pair in a key": ('{"prompt": "a", "x\\ud800": 1}', r":1 must be text without NUL or half a surrogate"),
    "NUL": ('{"prompt": "a\\u0000b"}', r":1: prompt must be text without NUL"),
    "not UTF-8": (b'{"prompt": "a"}\n\n{"prompt": "sch\xf6n"}\n', r":3 must be UTF-8 text, got the byte 0xf6"),
    "half a pair in UTF-8": ('{"prompt": "a"}\n{"prompt": "\ud800"}\n', r":2 must be UTF-8 text, got the byte 0xed"),
    "UTF-16": ('{"prompt": "a"}\n'.encode("utf-16"), r":1 must be UTF-8 text, got the byte 0xff"),
    "a huge line": ('{"prompt": "' + "x" * limits.MAX_ROW_BYTES + '"}\n', r":1 must be a line of at most 4,194,304"),
    "a list": ('["a"]\n', r":1 must be one JSON object a line, got list"),
    "prompt as a number": ('{"prompt": 1e3}\n', r":1: prompt must be text, got float 1000\.0"),
    "two on a line": ('{"prompt": "a"} {"prompt": "b"}\n', r":1 must be one JSON object a line, got an error: Extra"),
}  # fmt: skip
CSV = {
    "semicolons": ("prompt;topic\na;b\n", r":1: cells must be separated by commas, got ';'\. Save the file as \.csv"),
    "tabs": ("prompt\ttopic\na\tb\n", r":1: cells must be separated by commas, got tabs"),
    "open quotes": ('prompt,topic\na,b\n"c,d\n' + "e,f\n" * 9, r":3 must be a row with closed quotes"),
    "open quotes over a huge file": ('prompt\n"' + "x\n" * 10**5, r":2 must be a row with .* at most 131,072"),
    "a huge cell": ("prompt\n" + "x" * 200_000 + "\n", r":2 must be .*cells of at most 131,072"),
    "too many cells": ('prompt,topic\n"a\nb",c\nd,e,f\n', r":4 must have 2 cells as the first line, got 3"),
    "too few cells": ("prompt,topic\na\n", r":2 must have 2 cells as the first line, got 1"),
    "a column twice": ("prompt,x,x\na,b,c\n", r":1: columns must have different names, got 'x' twice"),
    "a column twice after a blank line": ("\n\nprompt,x,x\na,b,c\n", r":3: columns must have different names"),
    "NUL": ("prompt\na\0b\n", r":2: prompt must be text without NUL"),
    "not UTF-8": (b"prompt\na\nsch\xf6n\n", r":3 must be UTF-8 text"),
    "blank lines alone": ("\n\n\n", r"must hold at least one prompt"),
    "an empty file": ("", r"must hold at least one prompt"),
    "a letter after quotes": ('prompt\n"a"b\n', r":2 must be a row with closed quotes"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("train.jsonl", *each) for each in JSONL.values()] + [("train.csv", *each) for each in CSV.values()],
    ids=[*JSONL.keys(), *CSV.keys()],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    began = time.perf_counter()
    with pytest.raises(TaskError, match=message) as raised:
        rows_of(tmp_path, name, content)
    assert time.perf_counter() - began < 5
    assert name in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 500


def test_byte_order_marks_line_ends_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    assert texts(tmp_path, "a.jsonl", mark + b'{"prompt": "a"}\r\n\r\n{"prompt": "b"}\r\n') == ["a", "b"]
    assert texts(tmp_path, "a.csv", mark + b'\r\nprompt,x\r\n"a,\r\nb",1\r\n\r\nc,2') == ["a,\r\nb", "c"]
    assert texts(tmp_path, "b.csv", b"prompt,x\ra,1\rb,2\r") == ["a", "b"]  # as old Macs end lines
    assert texts(tmp_path, "a.jsonl", '{"prompt": "a\u2028b\u0085c"}\n') == ["a\u2028b\u0085c"]  # no line ends


def test_numbers_that_are_missing_are_none(tmp_path: Path) -> None:
    (row,) = rows_of(tmp_path, "a.jsonl", '{"prompt": "a", "x": NaN, "y": null}\n')
    assert (row["x"], row["y"]) == (None, None)


def parquet(folder: Path, table: pyarrow.Table) -> tuple[Row, ...]:
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    return load_split("train.parquet", "train", "prompt", Place("task.yaml", folder))


def test_a_parquet_file_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    text = pyarrow.array(["a", "b"])
    with pytest.raises(TaskError, match=r"train\.parquet: columns must have different names, got 'prompt' twice"):
        parquet(tmp_path, pyarrow.Table.from_arrays([text, text], names=["prompt", "prompt"]))
    with pytest.raises(TaskError, match=r"train\.parquet, row 1: x must be text, .*got b'\\x00"):
        parquet(tmp_path, pyarrow.table({"prompt": text, "x": pyarrow.array([b"\0" * 9999, b""])}))
    broken = pyarrow.Array.from_buffers(
        pyarrow.string(), 2, [None, pyarrow.array([0, 1, 2], pyarrow.int32()).buffers()[1], pyarrow.py_buffer(b"a\xff")]
    )
    with pytest.raises(TaskError, match=r"train\.parquet, row 2 must be readable, got an error: 'utf-8' codec"):
        parquet(tmp_path, pyarrow.table({"prompt": broken}))
    twice = pyarrow.StructArray.from_arrays([text, text], names=["y", "y"])
    with pytest.raises(
        TaskError, match=r"train\.parquet, row 1 must be readable, got an error: .*duplicate field names"
    ):
        parquet(tmp_path, pyarrow.table({"prompt": text, "x": twice}))
    parquet(tmp_path, pyarrow.table({"prompt": text}))
    whole = (tmp_path / "train.parquet").read_bytes()
    for content in (
        whole[:-20],
        whole[: len(whole) // 2],
        whole[:4] + b"\xff" * (len(whole) - 8) + whole[-4:],
        b"",
        b"PAR1",
    ):
        with pytest.raises(TaskError, match=r"train\.parquet.* must be .*got an error"):
            rows_of(tmp_path, "train.parquet", content)
    with pytest.raises(TaskError, match=r"train\.parquet must be a Parquet file"):
        rows_of(tmp_path, "train.parquet", '{"prompt": "a"}\n')


def test_nested_columns_of_parquet_become_plain_data(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "turns": [{"role": "user", "tags": ["x"]}]}, {"prompt": "b", "turns": []}]
    assert [row["turns"] for row in parquet(tmp_path, pyarrow.Table.from_pylist(rows))] == [rows[0]["turns"], []]


def test_a_small_parquet_file_of_much_text_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prompts, "MAX_TABLE_BYTES", 10_000_000)
    long = pyarrow.array(["x" * 100_000]).take(pyarrow.array([0] * 5_000))  # 500 MB, of one text
    table = pyarrow.table({"prompt": long, "prompt_id": pyarrow.array(range(5_000))})
    with pytest.raises(TaskError, match=r"train\.parquet must have at most 10,000,000 bytes of prompts, got 1\d,"):
        parquet(tmp_path, table)
    assert (tmp_path / "train.parquet").stat().st_size < 1_000_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet"])
def test_a_file_above_the_limit_is_refused_unread(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_TABLE_BYTES", 20)
    with pytest.raises(TaskError, match=rf"{name} must have at most 20 bytes of prompts, got 21 or more"):
        rows_of(tmp_path, name, "x" * 21)


def test_more_rows_than_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "MAX_ROWS", 2)
    content = "".join(json.dumps({"prompt": text}) + "\n" for text in "abc")
    with pytest.raises(TaskError, match=r"prompts\.train must have at most 2 rows, got more in 'a\.jsonl'"):
        rows_of(tmp_path, "a.jsonl", content)


@pytest.mark.parametrize("path", ["a\0.jsonl", "~nobody_of_that_name/a.jsonl"])
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, path: str) -> None:
    from paretune.core.errors import ConfigError

    with pytest.raises(ConfigError, match=r"a path (must be text without NUL|that begins with ~ must name)"):
        load_split(path, "train", "prompt", Place("task.yaml", tmp_path))


def test_spaces_around_a_columns_name_are_shown(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"must include 'prompt', got ' prompt ', x\. Did you mean ' prompt '\?"):
        rows_of(tmp_path, "a.csv", " prompt ,x\nYou,1\n")
