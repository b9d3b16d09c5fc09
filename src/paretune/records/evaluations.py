"""Evaluations as Parquet: one row per completion, what holds for all of them in the file's metadata."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from paretune.core.errors import RecordError
from paretune.core.text_files import parsed_json
from paretune.records.evaluation import EvaluationRecord
from paretune.records.files import AGAIN, SCHEMA_VERSION, write_bytes

_METADATA = b"paretune"


def write_evaluation(record: EvaluationRecord, path: Path) -> None:
    """Write an evaluation in one step; `read_evaluation` gives back exactly the same.

    Args:
        record: What to write. A reward that is NaN becomes null, its status says why.
        path: A file ending in `.parquet`.

    Raises:
        RecordError: If a text is not valid Unicode, or the disk is full.
    """
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(_table(record), sink, compression="zstd")
    except UnicodeEncodeError as error:
        raise RecordError(
            f"text of {path.name} must be valid Unicode, got {error.object[error.start : error.end]!r} in "
            f"'{error.object[:40].encode(errors='replace').decode()}'. Remove the lone surrogate from the prompts."
        ) from error
    write_bytes(path, sink.getvalue().to_pybytes())


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read what `write_evaluation` wrote.

    Raises:
        RecordError: If the file is missing, damaged, of a later version or no evaluation.
    """
    try:
        # not read_table, which starts a thread: one that is just starting aborts a process that ends (arrow#34314)
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
        shared = parsed_json(table.schema.metadata[_METADATA])
        version = shared["schema_version"]
        if version == SCHEMA_VERSION:
            return _record(table, shared)
    except FileNotFoundError as error:
        raise RecordError(f"{path} must exist, got no such file. {AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise RecordError(f"{path} must be an evaluation, got damaged content ({error}). {AGAIN}") from error
    raise RecordError(
        f"{path} must have schema version {SCHEMA_VERSION}, got {version}. Read it with the paretune that wrote it."
    )


def _table(record: EvaluationRecord) -> pa.Table:
    rows = len(record.prompt_ids)
    text, number = pa.string(), pa.float64()
    columns: dict[str, pa.Array] = {
        "split": pa.array([record.split] * rows, text),
        "prompt_id": pa.array(record.prompt_ids, text),
        "sample": pa.array(record.samples, pa.int64()),
        "preference": pa.array([record.preference.tolist()] * rows, pa.list_(number)),
        "answer": pa.array([record.answer] * rows, text),
        "prompt": pa.array(record.prompts, text),
        "completion": pa.array(record.completions, text),
        "token_ids": pa.array(record.token_ids, pa.list_(pa.int64())),
        "finish": pa.array(record.finish, text),
        "log_prob": pa.array(record.log_probs, number),
        "reference_log_prob": pa.array(record.reference_log_probs, number),
        "latency_seconds": pa.array(record.latency_seconds, number),
    }
    for index, name in enumerate((*record.objectives, *record.audit)):
        rewards = record.rewards[:, index]
        columns[f"reward/{name}"] = pa.array(rewards, number, mask=np.isnan(rewards))
        columns[f"status/{name}"] = pa.array(record.statuses[:, index].tolist(), text)
    shared = {
        "schema_version": SCHEMA_VERSION,
        "split": record.split,
        "preference": [None if math.isnan(weight) else weight for weight in record.preference.tolist()],
        "answer": record.answer,
        "expert_weights": record.expert_weights.tolist(),
        "identity": record.identity,
        "objectives": record.objectives,
        "audit": record.audit,
        **({"prompt_preferences": wanted.tolist()} if (wanted := record.prompt_preferences) is not None else {}),
    }
    return pa.table(columns).replace_schema_metadata({_METADATA: json.dumps(shared, allow_nan=False).encode()})


def _record(table: pa.Table, shared: dict[str, Any]) -> EvaluationRecord:
    objectives, audit = tuple(shared["objectives"]), tuple(shared["audit"])
    names = (*objectives, *audit)
    rewards = np.full((len(table), len(names)), np.nan)
    statuses = np.full((len(table), len(names)), "", dtype="<U16")
    for index, name in enumerate(names):
        column = table[f"reward/{name}"].to_pylist()
        rewards[:, index] = [math.nan if reward is None else reward for reward in column]
        statuses[:, index] = table[f"status/{name}"].to_pylist()
    return EvaluationRecord(
        split=shared["split"],
        preference=np.array([math.nan if each is None else each for each in shared["preference"]], dtype=np.float64),
        answer=shared["answer"],
        expert_weights=np.array(shared["expert_weights"], dtype=np.float64),
        identity=shared["identity"],
        objectives=objectives,
        audit=audit,
        prompt_ids=tuple(table["prompt_id"].to_pylist()),
        samples=np.array(table["sample"].to_pylist(), dtype=np.int64),
        prompts=tuple(table["prompt"].to_pylist()),
        completions=tuple(table["completion"].to_pylist()),
        token_ids=tuple(tuple(ids) for ids in table["token_ids"].to_pylist()),
        finish=tuple(table["finish"].to_pylist()),
        log_probs=np.array(table["log_prob"].to_pylist(), dtype=np.float64),
        reference_log_probs=np.array(table["reference_log_prob"].to_pylist(), dtype=np.float64),
        rewards=rewards,
        statuses=statuses,
        latency_seconds=np.array(table["latency_seconds"].to_pylist(), dtype=np.float64),
        prompt_preferences=np.array(wanted, dtype=np.float64) if (wanted := shared.get("prompt_preferences")) else None,
    )
