"""What every policy of a study did on every test prompt, and what it cost: one small file, read without the study.

Later comparisons read it instead of training again. Texts, tokens and stages stay in the study's folder.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from paretune.core.errors import RecordError
from paretune.core.text_files import parsed_json
from paretune.records.evaluation import EvaluationRecord, weighed_sum
from paretune.records.files import AGAIN, to_json, write_bytes
from paretune.records.layout import evaluations_folder, reference_folder
from paretune.records.outcomes import TruthRecord
from paretune.records.study import CellRecord, StudyRecords, TaskInfo
from paretune.records.tables import plain_parts
from paretune.records.writing import task_plain

FloatArray = NDArray[np.float64]
Kind = Literal["cell", "base", "optimum"]
FILE = "per_prompt.parquet"
SCHEMA, _METADATA = 3, b"paretune"
READ = (1, 2, SCHEMA)  # versions; the first two had less in the metadata, and the first what users want of each prompt
COSTS = ("completions", "tokens", "flops")  # counts of stages; their seconds beside them
LATER = ("cell", "feedback", "made_of", "tested", "measured")  # fields that files of earlier versions lack
_NOTHING = base64.b64encode(zlib.compress(b"{}"))
ANSWERED = ("training", "training_preferences", "preferences", "measurement", "version")  # else of an evaluation's key


@dataclass(frozen=True)
class PerPrompt:
    """What answered M preferences on P test prompts.

    Attributes:
        kind: `cell`: a cell's policies; `base`: the base model, one row for all preferences; `optimum`: the best
            policies there are, where they are known.
        task: Name of the task.
        seed: Names the task instance.
        objectives: Names of the K objectives.
        audit: Names of the A objectives scored beside them.
        beta: What a nat of KL costs on this instance.
        preferences: `[M, K]`; those of the base model are NaN.
        prompts: Ids of the prompts, `[P]`.
        rewards: Mean rewards, `[M, P, K]`: expected ones where completions can be listed.
        audit_rewards: The same of the audit, `[M, P, A]`.
        made: How many rewards a mean is over, `[M, P, K + A]`; 0 where all are missing.
        kl: KL to the base model in nats, `[M, P]`.
        method: Name of the method in its study; empty unless it is a cell.
        family: Its family.
        budget_completions: What the cell might use.
        answers: How each preference was answered, `[M]`.
        policies: How many experts were trained for it.
        costs: `completions`, `tokens`, `flops` and `seconds` of all its stages, shared or not.
        prompt_preferences: What the users of the preferences want of each prompt, `[M, P, K]`; None where that is the
            preference itself, and of the base model.
        cell: Name of the cell's folder.
        feedback: Class of what its method is told, see `core.feedback`.
        made_of: What its training depended on, part by part, see `benchmark.changes.made_of`; empty in files of an
            earlier version.
        tested: What its evaluation depended on beside its policies and preferences: test prompts, decoding, rewards of
            the audit; empty likewise, and where rewards have changed since.
        stages: Keys of its stages.
        measured: What was measured of it on request, by the measurement's name.
    """

    kind: Kind
    task: str
    seed: int
    objectives: tuple[str, ...]
    audit: tuple[str, ...]
    beta: float
    preferences: FloatArray
    prompts: tuple[str, ...]
    rewards: FloatArray
    audit_rewards: FloatArray
    made: NDArray[np.int64]
    kl: FloatArray
    method: str = ""
    family: str = ""
    budget_completions: int = 0
    answers: tuple[str, ...] = ()
    policies: int = 0
    costs: Mapping[str, float] | None = None
    prompt_preferences: FloatArray | None = None
    cell: str = ""
    feedback: str = "told"
    made_of: Mapping[str, Any] = field(default_factory=dict)
    tested: Mapping[str, Any] = field(default_factory=dict)
    stages: tuple[str, ...] = ()
    measured: Mapping[str, Any] = field(default_factory=dict)

    @property
    def scores(self) -> FloatArray:
        """Mean reward of each objective, `[M, K]`; each prompt counts as often as it has rewards."""
        made = self.made[..., : len(self.objectives)]
        total = np.where(made > 0, self.rewards * made, 0.0).sum(axis=1)
        return np.where(made.sum(axis=1) > 0, total / np.maximum(made.sum(axis=1), 1), np.nan)

    @property
    def utilities(self) -> FloatArray:
        """What each preference's user gets, `preference . scores`, `[M]`; needs the objectives that it weighs.

        Where users want something else of each prompt, the mean over prompts of what they get there; NaN if a prompt
        has no reward that is wanted of it, as means over its samples do not tell which of these count. NaN for the
        base model, which no preference is of: multiply its `scores` by each.
        """
        if self.prompt_preferences is not None:
            return np.asarray(weighed_sum(self.rewards, self.prompt_preferences).mean(axis=1))
        weighed = self.preferences != 0  # an objective without weight may have no score; NaN stays NaN
        return np.asarray(np.where(weighed, self.preferences * self.scores, 0.0).sum(axis=1))

    @property
    def J(self) -> FloatArray:  # noqa: N802  # as everywhere in the docs
        """`J_k = E r_k - beta KL` for each preference, mean over prompts, `[M, K]`."""
        return np.asarray(self.scores - self.beta * self.kl.mean(axis=1)[:, None])


def write_per_prompt_files(study: StudyRecords, folder: Path) -> list[Path]:
    """Write `per_prompt.parquet` of a study, and `per_prompt-<part>.parquet` of each of its finished parts.

    Returns:
        The files written; none before a cell is finished.
    """
    if not any(cell.state == "done" for cell in study.cells):
        return []
    parts: Any = study.resolved.get("parts") or {}
    written = [write_per_prompt(study, folder / FILE)]
    for name, selected in parts.items():
        pairs = {(task, seed) for task in selected["tasks"] for seed in selected["seeds"]}
        part = part_of(study, pairs)
        path = folder / f"{FILE.removesuffix('.parquet')}-{name}.parquet"
        if all(cell.state == "done" for cell in part.cells):
            written.append(write_per_prompt(part, path))
        else:
            path.unlink(missing_ok=True)
    return written


def part_of(study: StudyRecords, pairs: Collection[tuple[str, int]]) -> StudyRecords:
    """Return the records of some pairs of task and seed."""
    cells = tuple(cell for cell in study.cells if (cell.task, cell.seed) in pairs)
    return replace(
        study,
        cells=cells,
        tasks={name: info for name, info in study.tasks.items() if any(cell.task == name for cell in cells)},
        references={pair: each for pair, each in study.references.items() if pair in pairs},
        truths={pair: each for pair, each in study.truths.items() if pair in pairs},
    )


def write_per_prompt(study: StudyRecords, path: Path) -> Path:
    """Write what every finished cell, the base models and the best policies do on every test prompt.

    One row is one preference on one prompt; what was measured has 32 bits. What holds for all rows of a block is in
    the file's metadata, with the study's tasks, stages, decoding times and environment: JSON, whose `content` is JSON
    again, zlib's and in base64.

    Args:
        study: The study; unfinished cells are left out.
        path: A file ending in `.parquet`.

    Raises:
        RecordError: If the disk is full.
    """
    blocks = blocks_of(study)
    columns: dict[str, list[Any]] = {
        name: [] for name in ("block", "preference", "prompt", "rewards", "audit", "made", "kl", "wanted")
    }
    for number, each in enumerate(blocks):
        count, prompts = each.kl.shape
        columns["block"] += [number] * count * prompts
        columns["preference"] += np.repeat(np.arange(count), prompts).tolist()
        columns["prompt"] += list(each.prompts) * count
        for name, array in (("rewards", each.rewards), ("audit", each.audit_rewards), ("made", each.made)):
            columns[name] += array.reshape(count * prompts, -1).tolist()
        columns["kl"] += each.kl.ravel().tolist()
        by_prompt = each.prompt_preferences
        columns["wanted"] += (
            [None] * (count * prompts) if by_prompt is None else by_prompt.reshape(count * prompts, -1).tolist()
        )
    single, shared = pa.float32(), {"schema_version": SCHEMA, "study": study.name, "content": _packed(study, blocks)}
    schema = pa.schema(
        [
            ("block", pa.int32()), ("preference", pa.int32()), ("prompt", pa.string()), ("rewards", pa.list_(single)),
            ("audit", pa.list_(single)), ("made", pa.list_(pa.int32())), ("kl", single),
            ("wanted", pa.list_(pa.float64())),
        ]
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    # with the schema of Arrow the file would hold its metadata twice
    with pq.ParquetWriter(sink, schema, compression="zstd", compression_level=19, store_schema=False) as file:
        file.write_table(pa.table(columns, schema=schema))
        file.add_key_value_metadata({_METADATA: json.dumps(shared).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, sink.getvalue().to_pybytes())
    return path


def read_per_prompt(path: Path) -> tuple[PerPrompt, ...]:
    """Read what `write_per_prompt` wrote: cells in the order of the study, then base models, then best policies.

    Raises:
        RecordError: If the file is missing, damaged, of another version or no such file.
    """
    return read_with_shared(path)[1]


def read_with_shared(path: Path) -> tuple[dict[str, Any], tuple[PerPrompt, ...]]:
    """Read what `write_per_prompt` wrote, with what the metadata holds beside the blocks, as plain data.

    Raises:
        RecordError: If the file is missing, damaged, of another version or no such file.
    """
    try:
        table = pq.ParquetFile(pa.BufferReader(path.read_bytes())).read(use_threads=False)
        shared = parsed_json(table.schema.metadata[_METADATA])
        if shared["schema_version"] in READ:
            shared |= parsed_json(zlib.decompress(base64.b64decode(shared.pop("content", _NOTHING))))
            owner = table["block"].to_numpy()
            names = [name for name in table.column_names if name not in ("block", "preference")]
            columns = {name: table[name].to_pylist() for name in names}
            blocks = []
            for number, plain in enumerate(shared["blocks"]):
                rows = np.flatnonzero(owner == number)
                blocks.append(_block(plain, {name: [column[row] for row in rows] for name, column in columns.items()}))
            return shared, tuple(blocks)
    except FileNotFoundError as error:
        raise RecordError(f"{path} must exist, got no such file. {AGAIN}") from error
    except (OSError, ValueError, KeyError, TypeError, zlib.error, pa.ArrowException) as error:
        raise RecordError(f"{path} must hold outcomes per prompt, got damaged content ({error}). {AGAIN}") from error
    raise RecordError(
        f"{path} must have schema version {' or '.join(map(str, READ))}, got {shared['schema_version']}. Read it with "
        "the paretune that wrote it."
    )


def blocks_of(study: StudyRecords) -> tuple[PerPrompt, ...]:
    """Return what `write_per_prompt` writes of a study, before it is rounded."""
    return tuple(_blocks(study))


def shared_of(study: StudyRecords) -> dict[str, Any]:
    """Return what holds for a whole study, as plain data: what a file's metadata has beside the blocks."""
    used = {stage.key: vars(stage) for cell in study.cells if cell.state == "done" for stage in cell.stages}
    unfinished = [cell for cell in study.cells if cell.state != "done"]
    named = ("cell", "task", "method", "budget_completions", "seed", "state", "reason")
    return {
        "study": study.name,
        "tasks": {name: task_plain(info) for name, info in study.tasks.items()},
        "environment": study.environment,
        "stages": used,
        "timings": [asdict(timing) for timing in study.timings],
        "unfinished": [{name: getattr(cell, name) for name in named} for cell in unfinished],
    }


def _packed(study: StudyRecords, blocks: Sequence[PerPrompt]) -> str:
    text = to_json(Path(FILE), {**shared_of(study), "blocks": [*map(_plain, blocks)]}, indent=None)
    return base64.b64encode(zlib.compress(text.encode(), level=9)).decode()


def _blocks(study: StudyRecords) -> Iterator[PerPrompt]:
    for cell in study.cells:
        found = _of_cell(study, cell) if cell.state == "done" else None
        if found is not None:
            yield found
    for (name, seed), record in study.references.items():
        if name in study.tasks:
            points = np.full((1, len(record.objectives)), np.nan)
            yield replace(
                _of_records("base", study, name, seed, [record], points),
                tested=_tested(study, "reference", reference_folder(Path(), name, seed)),
            )
    for (name, seed), truth in study.truths.items():
        if name in study.tasks:
            yield _of_truth(study, name, seed, truth)


def _of_truth(study: StudyRecords, task: str, seed: int, truth: TruthRecord) -> PerPrompt:
    info, known = study.tasks[task], study.references.get((task, seed))
    prompts = tuple(map(str, range(truth.kl.shape[1]))) if known is None else _prompts(known)
    unscored = np.full((*truth.kl.shape, len(_names(info, True))), np.nan)
    return PerPrompt(
        "optimum", task, seed, _names(info, False), _names(info, True), truth.beta, truth.preferences, prompts,
        truth.rewards, unscored, np.isfinite(np.concatenate([truth.rewards, unscored], axis=2)).astype(np.int64),
        truth.kl, prompt_preferences=truth.prompt_preferences,
    )  # fmt: skip


def _of_cell(study: StudyRecords, cell: CellRecord) -> PerPrompt | None:
    points = study.tasks[cell.task].preferences
    answers = [(point, found) for point in points if (found := cell.evaluation(point)) is not None]
    if not answers:
        return None
    stages_of = {stage.key: stage for stage in cell.stages}
    stages = stages_of.values()
    costs = {name: float(sum(stage.counts.get(name, 0.0) for stage in stages)) for name in COSTS}
    costs["seconds"] = float(sum(stage.seconds for stage in stages))
    wanted, records = zip(*answers, strict=True)
    by_prompt = [each for record in records if (each := record.prompt_preferences) is not None]
    return replace(
        _of_records("cell", study, cell.task, cell.seed, records, np.stack(wanted)),
        method=cell.method, family=cell.family, budget_completions=cell.budget_completions,
        answers=tuple(record.answer for record in records), policies=sum(stage.adapters for stage in stages),
        costs=costs, prompt_preferences=np.stack(by_prompt) if by_prompt else None,
        cell=cell.cell, feedback=cell.feedback, made_of=cell.made_of,
        tested=_tested(study, "evaluation", evaluations_folder(Path(), cell.cell)),
        stages=tuple(stages_of), measured=cell.measured,
    )  # fmt: skip


def _tested(study: StudyRecords, measurement: str, folder: Path) -> dict[str, Any]:
    """Return what a table of evaluations depends on beside what it is of; nothing where rewards have changed since."""
    name = folder.as_posix()
    for table in study.tables:
        if (table.measurement, table.folder) == (measurement, name) and name not in study.missing:
            return {name: part for name, part in plain_parts(table).items() if name not in ANSWERED}
    return {}


def _of_records(
    kind: Kind, study: StudyRecords, task: str, seed: int, records: Sequence[EvaluationRecord], points: FloatArray
) -> PerPrompt:
    info, truth = study.tasks[task], study.truths.get((task, seed))
    numbers = [_of_record(record, len(info.trained)) for record in records]
    means, made, kl = (np.stack([each[part] for each in numbers]) for part in range(3))
    split = len(info.trained)
    return PerPrompt(
        kind, task, seed, _names(info, False), _names(info, True), info.beta if truth is None else truth.beta, points,
        _prompts(records[0]), means[..., :split], means[..., split:], made.astype(np.int64), kl,
    )  # fmt: skip


def _of_record(record: EvaluationRecord, objectives: int) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean rewards `[P, K + A]`, how many each is over, and KL `[P]`."""
    names = _prompts(record)
    place = {name: index for index, name in enumerate(names)}
    rows = np.array([place[name] for name in record.prompt_ids])
    known = ~np.isnan(record.rewards)
    made, total = np.zeros((len(names), record.rewards.shape[1])), np.zeros((len(names), record.rewards.shape[1]))
    np.add.at(made, rows, known)
    np.add.at(total, rows, np.where(known, record.rewards, 0.0))
    means = np.where(made > 0, total / np.maximum(made, 1), np.nan)
    kl = np.bincount(rows, record.log_probs - record.reference_log_probs) / np.bincount(rows)
    if record.exact_rewards is not None:
        means[:, :objectives], made[:, :objectives] = record.exact_rewards, np.isfinite(record.exact_rewards)
    return means, made, kl if record.exact_kl is None else record.exact_kl


def _prompts(record: EvaluationRecord) -> tuple[str, ...]:
    return tuple(dict.fromkeys(record.prompt_ids))


def _names(info: TaskInfo, audit: bool) -> tuple[str, ...]:
    return tuple(each.name for each in info.objectives if each.audit == audit)


def _plain(block: PerPrompt) -> dict[str, object]:
    arrays = ("prompts", "rewards", "audit_rewards", "made", "kl", "prompt_preferences")
    plain = {name: value for name, value in vars(block).items() if name not in arrays}
    points = [[None if np.isnan(weight) else weight for weight in row] for row in block.preferences.tolist()]
    return {**plain, "preferences": points}


def _block(plain: Mapping[str, Any], columns: Mapping[str, list[Any]]) -> PerPrompt:
    kind = plain["kind"]
    if kind not in get_args(Kind):
        raise ValueError(f"block of kind {kind!r}")
    points = np.asarray([[np.nan if each is None else each for each in row] for row in plain["preferences"]], float)
    count = len(points)

    def shaped(name: str, kinds: Any) -> Any:
        return np.asarray(columns[name], dtype=kinds).reshape(count, len(columns["kl"]) // count, -1)

    wanted = plain.get("prompt_preferences")
    if columns.get("wanted", [None])[0] is not None:
        wanted = shaped("wanted", np.float64)
    same = ("task", "seed", "beta", "method", "family", "budget_completions", "policies", "costs")
    return PerPrompt(
        kind=cast(Kind, kind), objectives=tuple(plain["objectives"]), audit=tuple(plain["audit"]), preferences=points,
        prompts=tuple(columns["prompt"][: len(columns["kl"]) // count]), rewards=shaped("rewards", np.float64),
        audit_rewards=shaped("audit", np.float64), made=shaped("made", np.int64),
        kl=np.asarray(columns["kl"], dtype=np.float64).reshape(count, -1), answers=tuple(plain["answers"]),
        prompt_preferences=None if wanted is None else np.asarray(wanted, np.float64),
        stages=tuple(plain.get("stages", ())), **{name: plain[name] for name in LATER if name in plain},
        **{name: plain[name] for name in same},
    )  # fmt: skip
