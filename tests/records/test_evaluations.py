import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import assert_same, evaluation
from paretune.core.errors import RecordError
from paretune.records.evaluations import read_evaluation, write_evaluation

NAN = float("nan")


def record(**changes):
    rewards = [[0.1, NAN, 1 / 3, 0.5], [0.2, 0.4, 0.6, NAN], [1.0, 0.0, 0.7, 0.9]]
    return replace(evaluation(rewards, [0.2, 0.1, 0.7], audit=("fluency",), samples=2, kl=0.3), **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"preference": np.full(3, NAN), "expert_weights": np.zeros(0), "answer": "reference"},
        {"token_ids": ((), (1,), (2**31, 5))},
        {"completions": ("", "line\nbreak", 'quote " and 🙂')},
        {"log_probs": np.array([-0.1, -1e300, -np.inf])},
        {"statuses": np.array([["ok", "raised", "ok", "ok"], ["ok", "ok", "ok", "out_of_range"], ["ok"] * 4])},
    ],
)
def test_round_trip_is_exact(tmp_path, changes):
    written = record(**changes)
    write_evaluation(written, tmp_path / "deep" / "000.parquet")
    assert_same(written, read_evaluation(tmp_path / "deep" / "000.parquet"))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads of a process are listed under Linux only")
def test_reading_starts_no_thread_that_could_abort_a_process_that_ends(tmp_path):
    """Nor does reading prompts from a Parquet file."""
    write_evaluation(record(), tmp_path / "000.parquet")
    code = (
        "import os, sys; from pathlib import Path; from paretune.records.evaluations import read_evaluation; "
        "from paretune.tasks import prompts; file = Path(sys.argv[1]); before = os.listdir('/proc/self/task'); "
        "read_evaluation(file); list(prompts._read_parquet(file)); "
        "sys.exit(os.listdir('/proc/self/task') != before)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "000.parquet")], env=environment, check=True)


def test_round_trip_of_no_completions_keeps_what_holds_for_all(tmp_path):
    written = evaluation(np.zeros((0, 3)), [0.5, 0.5, 0.0])
    write_evaluation(written, tmp_path / "000.parquet")
    assert_same(written, read_evaluation(tmp_path / "000.parquet"))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.floats(allow_infinity=False), min_size=3, max_size=3), min_size=1, max_size=4),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=4, max_size=4),
)
def test_round_trip_is_exact_for_any_rewards_and_texts(tmp_path_factory, rewards, texts):
    written = evaluation(rewards, [1.0, 0.0, 0.0])
    written = replace(written, completions=tuple(texts[: len(rewards)]))
    path = tmp_path_factory.mktemp("any") / "000.parquet"
    write_evaluation(written, path)
    assert_same(written, read_evaluation(path))


def test_any_reader_of_parquet_finds_the_columns_and_nulls_for_missing_rewards(tmp_path):
    write_evaluation(record(), tmp_path / "000.parquet")
    table = pq.read_table(tmp_path / "000.parquet").to_pydict()
    assert table["reward/empathy"] == [None, 0.4, 0.0]
    assert table["status/empathy"] == ["raised", "ok", "ok"]
    assert table["reward/fluency"] == [0.5, None, 0.9]
    assert table["preference"] == [[0.2, 0.1, 0.7]] * 3
    assert {"split", "prompt_id", "sample", "answer", "prompt", "completion", "token_ids", "finish"} <= set(table)
    assert {"log_prob", "reference_log_prob", "latency_seconds"} <= set(table)


def test_cut_file_is_a_damaged_record(tmp_path):
    path = tmp_path / "000.parquet"
    write_evaluation(record(), path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(RecordError, match=r"000.parquet must be an evaluation, got damaged content"):
        read_evaluation(path)
    with pytest.raises(RecordError, match="must exist"):
        read_evaluation(tmp_path / "none.parquet")


def test_foreign_parquet_is_no_evaluation(tmp_path):
    path = tmp_path / "000.parquet"
    write_evaluation(record(), path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    with pytest.raises(RecordError, match="must be an evaluation"):
        read_evaluation(path)


def test_text_that_is_no_unicode_is_refused_with_its_prompt(tmp_path):
    with pytest.raises(RecordError, match="Remove the lone surrogate"):
        write_evaluation(record(prompts=("a", "bad \ud83d here", "c")), tmp_path / "000.parquet")
    assert list(tmp_path.iterdir()) == []
