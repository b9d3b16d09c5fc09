"""Parquet files with columns of types that a reader may not expect."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write_parquet(file: Path, random: Random, notes: list[str]) -> None:
    """Write a table whose columns are of types that a reader may not expect."""
    prompts = pa.array([f"You {i} a" for i in range(4)])
    others: dict[str, Callable[[], Any]] = {
        "nothing": lambda: pa.nulls(4),
        "binary": lambda: pa.array([b"\xff", b"a", None, b""]),
        "invalid text": lambda: pa.array([b"\xff\xfe"] * 4).cast(pa.binary()).view(pa.string()),
        "decimals": lambda: pa.array([decimal.Decimal("1.5")] * 4),
        "lists": lambda: pa.array([[1], [], None, [2, 3]]),
        "deep lists": lambda: pa.array([[[[[1]]]]] * 4),
        "structs": lambda: pa.array([{"a": 1, "b": None}] * 4),
        "maps": lambda: pa.array([[("a", 1), ("a", 2)]] * 4, type=pa.map_(pa.string(), pa.int64())),
        "durations": lambda: pa.array([datetime.timedelta(days=9)] * 4),
        "timestamps": lambda: pa.array([2**62] * 4, type=pa.timestamp("ns")),
        "far timestamps": lambda: pa.array([2**50] * 4, type=pa.timestamp("s")),
        "zones": lambda: pa.array([1] * 4, type=pa.timestamp("s", tz=random.choice(("Europe/Berlin", "No/Where")))),
        "dates": lambda: pa.array([2**30] * 4, type=pa.date32()),
        "times": lambda: pa.array([86_399_999_999_999] * 4, type=pa.time64("ns")),
        "half floats": lambda: pa.array([1.0, float("nan"), float("inf"), None]),
        "unsigned": lambda: pa.array([2**64 - 1] * 4, type=pa.uint64()),
        "dictionary": lambda: pa.array(["a", "b", "a", None]).dictionary_encode(),
        "surrogates": lambda: pa.array([b"\xed\xa0\x80"] * 4).view(pa.string()),
        "controls": lambda: pa.array(["\x1b[31m\x00"] * 4),
        "large": lambda: pa.array(["a" * 2_000_000] * 4),
        "numbers": lambda: pa.array([1, 2, 3, None]),
        "flags": lambda: pa.array([True, False, None, True]),
    }
    names = [random.choice(("prompt", "prompt_id", "topic", "", "a.b", "\x00", "x", "prompt")) for _ in range(2)]
    kinds = [random.choice(sorted(others)) for _ in range(2)]
    notes.append(f"columns {list(zip(names, kinds))}")
    columns = [prompts, *(others[kind]() for kind in kinds)]
    if random.random() < 0.3:
        columns, names = columns[1:], names[1:]
        notes.append("no prompts")
    table = pa.Table.from_arrays(
        columns, names=["prompt", *names][: len(columns)] if len(names) == 2 else [*names, "y"]
    )
    rows = random.choice((0, 1, 4, 4, 4))
    compression = random.choice(("snappy", "none", "gzip", "zstd", "brotli"))
    pq.write_table(table.slice(0, rows), file, compression=compression)
