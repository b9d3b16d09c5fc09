import json
import re
import sys
from dataclasses import replace

import datasets
import pyarrow
import pyarrow.parquet
import pytest
import yaml

import model_folders
from paretune.core.errors import ConfigError, ModelError, TaskError, UnknownNameError
from paretune.core.prompt_format import PromptEncoder
from paretune.objectives.scoring import Scorer
from paretune.tasks import load_task
from paretune.tasks.checks import check_context, check_prompts, model_context

TEXTS = {"train": ["I feel sad", "my sister"], "development": ["I feel alone"], "test": ["I feel tired"]}
FILES = {"train": "train.jsonl", "development": "dev.jsonl", "test": "test.jsonl"}
REWARDS = "def brief(completions, **columns):\n    return [1.0] * len(completions)\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    model_folders.save_base(folder / "base")
    model_folders.save_classifier(folder / "judge")
    return folder


@pytest.fixture
def folder(tmp_path, models):
    """A task folder with everything but the task file."""
    for name in ("base", "judge"):
        (tmp_path / name).symlink_to(models / name)
    (tmp_path / "rewards.py").write_text(REWARDS)
    for split, texts in TEXTS.items():
        jsonl(tmp_path / FILES[split], [{"prompt": text} for text in texts])
    return tmp_path


def jsonl(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def definition(**changes):
    """The content of a task file; a key whose change is ... is left out."""
    keys = {
        "model": "./base",
        "prompts": dict(FILES),
        "template": "Client : {prompt} Counselor :",
        "max_prompt_tokens": 12,
        "max_completion_tokens": 8,
        "objectives": {"brief": {"reward": "rewards:brief", "pass": 0.5}, "empathy": {"reward": "empathy"}},
    }
    return {key: value for key, value in {**keys, **changes}.items() if value is not ...}


def load(folder, **changes):
    (folder / "task.yaml").write_text(yaml.safe_dump(definition(**changes), sort_keys=False))
    return load_task(folder / "task.yaml")


def objective(**changes):
    return {"objectives": {"brief": {"reward": "rewards:brief", **changes}}}


def prompts(**changes):
    return {"prompts": {key: value for key, value in {**FILES, **changes}.items() if value is not ...}}


def encoder(folder):
    from transformers import AutoTokenizer

    return PromptEncoder.of(AutoTokenizer.from_pretrained(folder / "base"))


def test_every_key_reaches_the_task(folder):
    task = load(
        folder,
        name="mine",
        beta="1e-2",  # written without quotes: a number in YAML 1.2, which YAML 1.1 reads as text
        objectives={
            "brief": {"reward": "rewards:brief", "range": [-1, 1], "pass": 0.5, "version": 3},
            "judged": {"reward": {"model": "judge", "template": "{prompt}: {completion}", "transform": "sigmoid"}},
        },
        audit={"empathy": {"reward": "empathy"}},
        reference_point=[-1, 0],
        judged_on="J",
        learner={"learning_rate": "1e-4"},  # YAML reads 1e-4 as text
    )
    brief, judged = task.objectives
    assert task.judged_on == "J"
    assert (task.name, task.source, task.beta) == ("mine", str(folder / "task.yaml"), 0.01)
    assert (task.model, task.template) == (str((folder / "base").resolve()), "Client : {prompt} Counselor :")
    assert (task.max_prompt_tokens, task.max_completion_tokens) == (12, 8)
    assert (task.reference_point, task.learner) == ((-1.0, 0.0), {"learning_rate": 1e-4})
    assert (brief.range, brief.pass_threshold, brief.version) == ((-1.0, 1.0), 0.5, 3)
    assert (brief.kind, brief.reward, brief.import_path) == ("function", "rewards:brief", str(folder))
    assert brief.source_digest
    assert (judged.kind, judged.reward, judged.import_path) == ("model", str((folder / "judge").resolve()), None)
    assert (judged.template, judged.transform) == ("{prompt}: {completion}", "sigmoid")
    assert judged.source_digest
    assert [item.name for item in task.audit] == ["empathy"]
    assert task.splits["train"] == (
        {"prompt": "I feel sad", "prompt_id": "train-0"},
        {"prompt": "my sister", "prompt_id": "train-1"},
    )


def test_defaults_fill_what_a_short_task_file_leaves_out(folder):
    task = load(
        folder,
        template=...,
        objectives={"brief": {"reward": "rewards:brief", "range": [-2, 0]}, "judged": {"reward": "./judge"}},
        max_prompt_tokens=...,
        max_completion_tokens=...,
        model="nobody/some-model",  # a hub id: no folder whose context would be too short for the defaults
    )
    assert (task.name, task.model) == (folder.name, "nobody/some-model")
    assert (task.template, task.beta, task.judged_on) == ("{prompt}", 0.05, "utility")
    assert (task.max_prompt_tokens, task.max_completion_tokens) == (256, 64)
    assert task.reference_point == (-2.0, 0.0)  # the lower ends
    assert task.learner == {}
    assert task.objectives[1].template == "{prompt}{completion}"


def test_loading_a_task_imports_neither_torch_nor_the_users_rewards(folder):
    import subprocess

    (folder / "rewards.py").write_text(REWARDS + "raise SystemExit('imported')\n")
    (folder / "task.yaml").write_text(yaml.safe_dump(definition()))
    code = "import sys, paretune.tasks as t; t.load_task(sys.argv[1]); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_keys_follow_content_and_not_place(folder):
    task = load(folder)
    before = task.training_key()
    assert load(folder, name="other", audit={"fluency": {"reward": "fluency"}}).training_key() == before
    (folder / "rewards.py").write_text(REWARDS + "# a comment\n")
    assert load(folder).training_key() == before
    (folder / "rewards.py").write_text(REWARDS + "more = 1\n")
    assert load(folder).training_key() != before
    (folder / "rewards.py").write_text(REWARDS)
    assert load(folder, beta=0.1).training_key() != before
    jsonl(folder / "test.jsonl", [{"prompt": "Hmm"}])
    changed = load(folder)
    assert changed.training_key() == before
    assert changed.evaluation_key() != task.evaluation_key()


def test_a_changed_model_file_changes_the_key(folder, tmp_path_factory):
    before = load(folder).model_digest
    (folder / "base").unlink()
    model_folders.save_base(folder / "base")
    assert load(folder).model_digest == before  # the same content, elsewhere
    config = json.loads((folder / "base" / "config.json").read_text())
    (folder / "base" / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.1}))
    assert load(folder).model_digest != before


@pytest.mark.parametrize("ending", ["jsonl", "csv", "tsv", "parquet"])
def test_all_formats_give_the_same_rows(folder, ending):
    rows = [{"prompt": 'He said, "no"', "topic": "work"}, {"prompt": "Zwei\nZeilen – 😞", "topic": "sleep"}]
    file = folder / f"train.{ending}"
    if ending == "jsonl":
        jsonl(file, rows)
    elif ending == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    else:
        mark = "," if ending == "csv" else "\t"
        cells = [["prompt", "topic"], *([row["prompt"], row["topic"]] for row in rows)]
        quoted = [mark.join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells]
        file.write_text("\ufeff" + "\n".join(quoted) + "\n", encoding="utf-8")  # as spreadsheets write it
    assert load(folder, **prompts(train=file.name)).splits["train"] == tuple(
        {**row, "prompt_id": f"train-{index}"} for index, row in enumerate(rows)
    )


def test_a_prompt_column_of_another_name_and_given_ids(folder):
    for split in FILES:
        jsonl(
            folder / FILES[split], [{"source": text, "prompt_id": n, "level": n} for n, text in enumerate(TEXTS[split])]
        )
    task = load(folder, **prompts(column="source"))
    assert task.splits["train"][1] == {"prompt": "my sister", "prompt_id": "1", "level": 1}


def test_cells_become_plain_data(folder):
    import datetime

    day = datetime.date(2024, 2, 29)
    table = pyarrow.Table.from_pylist([{"prompt": "a", "day": day, "score": float("nan"), "tags": [{"x": 1}]}])
    pyarrow.parquet.write_table(table, folder / "train.parquet")
    task = load(folder, **prompts(train="train.parquet"))
    (row,) = task.splits["train"]
    assert row == {"prompt": "a", "prompt_id": "train-0", "day": "2024-02-29", "score": None, "tags": [{"x": 1}]}
    assert task.training_key()["train"]


def test_blank_lines_are_no_rows(folder):
    (folder / "train.jsonl").write_text('\n{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert len(load(folder).splits["train"]) == 2


def test_a_data_set_is_loaded_through_the_datasets_library(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = folder / "data"
    data.mkdir()
    jsonl(data / "train.jsonl", [{"prompt": "I feel sad", "topic": "x"}])
    jsonl(data / "validation.jsonl", [{"prompt": "Hmm", "topic": "y"}])
    datasets.disable_progress_bars()
    task = load(folder, **prompts(train="hub:data:train", development="hub:./data"))
    assert task.splits["train"] == ({"prompt": "I feel sad", "topic": "x", "prompt_id": "train-0"},)
    assert task.splits["development"][0]["prompt"] == "Hmm"  # without a split: its name at the hub, validation
    with pytest.raises(TaskError, match=r"prompts\.test must be a data set that can be loaded, got 'hub:data:no'"):
        load(folder, **prompts(test="hub:data:no"))
    with pytest.raises(TaskError, match=r"must be written as hub:owner/name\[:config\]\[:split\], got 'hub:a:b:c:d'"):
        load(folder, **prompts(test="hub:a:b:c:d"))


def test_test_prompts_seen_before_need_to_be_allowed(folder):
    for other, name in (("train", "train.jsonl"), ("development", "dev.jsonl")):
        jsonl(folder / "test.jsonl", [{"prompt": TEXTS[other][0]}, {"prompt": "new"}])
        message = (
            rf"prompts\.test must have no prompt of {other}, got 1, the first 'test-0' \(in {other}: '{other}-0'\)"
        )
        with pytest.raises(TaskError, match=message + r".*allow it with prompts\.allow_overlap: true"):
            load(folder)
        assert len(load(folder, **prompts(allow_overlap=True)).splits["test"]) == 2
        jsonl(folder / name, [{"prompt": "another"}])


BAD_KEYS = {
    "unknown key": (
        {"betta": 0.1},
        UnknownNameError,
        r"task\.yaml:\d+:1: betta must be one of the keys .*audit, .*, got 'betta'\. Did you mean 'beta'\? Write "
        r"`beta: 0\.1`\.$",
    ),
    "unknown key in place of a needed one": ({"modle": "x", "model": ...}, UnknownNameError, r"Did you mean 'model'\?"),
    "unknown key of an objective": (
        objective(rang=[0, 1]),
        UnknownNameError,
        r"task\.yaml:\d+:5: objectives\.brief\.rang must be one of the keys pass, range, reward, version, got 'rang'\."
        r" Did you mean 'range'\? Write `range: \[0, 1\]`\.$",
    ),
    "unknown key of prompts": (prompts(dev="x"), UnknownNameError, r"prompts\.dev must be one of the keys"),
    "unknown key of a reward model": (
        objective(reward={"model": "judge", "transfrom": "identity"}),
        UnknownNameError,
        r"objectives\.brief\.reward\.transfrom must be .*Did you mean 'transform'\?",
    ),
    "no model": ({"model": ...}, ConfigError, r"model must be given, got nothing\. Write a model folder or a hub id\."),
    "no development prompts": (
        prompts(development=...),
        ConfigError,
        r"prompts\.development must be given, got nothing\. Set some training prompts aside in a file of their own",
    ),
    "no test prompts": (prompts(test=...), ConfigError, r"prompts\.test must be given, got nothing\. Set some prompts"),
    "no reward": ({"objectives": {"brief": {}}}, ConfigError, r"brief\.reward must be given, .*Write module:function"),
    "no objective": ({"objectives": {}}, ConfigError, r"objectives must name at least one objective, got none"),
    "objective without keys": (
        {"objectives": {"brief": None}},
        ConfigError,
        r"objectives\.brief must hold keys and values, got None",
    ),
    "number as text": ({"beta": "much"}, ConfigError, r"task\.yaml:\d+:1: beta must be a valid number.*got 'much'"),
    "tokens in quotes": (
        {"max_prompt_tokens": "192"},
        ConfigError,
        r"max_prompt_tokens must be a whole number, got '192'",
    ),
    "tokens with a point": ({"max_prompt_tokens": 192.0}, ConfigError, r"max_prompt_tokens must be a whole number"),
    "tokens as yes": ({"max_prompt_tokens": True}, ConfigError, r"max_prompt_tokens must be a whole number, got True"),
    "judged on something else": (
        {"judged_on": "reward"},
        ConfigError,
        r"judged_on must be .*'J' or 'utility', got 'reward'",
    ),
    "beta in quotes": ({"beta": "0.1"}, ConfigError, r"beta must be a valid number, got '0\.1'"),
    "range in quotes": (objective(range=["0", 1]), ConfigError, r"brief\.range\.0 must be a valid number, got '0'"),
    "pass in quotes": (objective(**{"pass": "0.5"}), ConfigError, r"brief\.pass must be a valid number, got '0\.5'"),
    "reference point in quotes": (
        {"reference_point": ["0"]},
        ConfigError,
        r"reference_point\.0 must be a valid number",
    ),
    "negative beta": ({"beta": -1}, ConfigError, r"beta must be greater than or equal to 0, got -1"),
    "infinite beta": (
        {"beta": float("inf")},
        ConfigError,
        r"task\.yaml:\d+:7: beta must be a finite number, got \.inf",
    ),
    "huge beta": (
        {"beta": 1e308},
        ConfigError,
        r"task\.yaml:\d+:1: beta must be less than or equal to 1000000, got 1e\+308",
    ),
    "huge range": (
        objective(range=[-1e308, 1e308]),
        ConfigError,
        r"task\.yaml:\d+:\d+: objectives\.brief\.range\.0 must be greater than or equal to -1000000000, got -1e\+308",
    ),
    "narrow range": (
        objective(range=[0, 1e-320]),
        ConfigError,
        r"brief\.range must be \[lowest, highest\] with 1e-09 or",
    ),
    "huge pass": (
        objective(**{"pass": 1e308}),
        ConfigError,
        r"brief\.pass must be less than or equal to 1000000000, got",
    ),
    "huge reference": (
        {"reference_point": [-1e308, 0]},
        ConfigError,
        r"reference_point\.0 must be greater than .* -1000000000",
    ),
    "no tokens": ({"max_completion_tokens": 0}, ConfigError, r"max_completion_tokens must be greater than 0, got 0"),
    "template": ({"template": "Client:"}, ConfigError, r"template must contain \{prompt\}, got 'Client:'"),
    "empty range": (
        objective(range=[1, 1]),
        ConfigError,
        r"brief\.range must be \[lowest, highest\] with lowest below highest, got \[1, 1\]",
    ),
    "range of one": (objective(range=[0]), ConfigError, r"range\.1 must be given, got nothing\. Write the lowest"),
    "pass outside": (objective(**{"pass": 2}), ConfigError, r"pass must lie in the range \[0, 1\], got 2"),
    "objective name": (
        {"objectives": {"a=b": {"reward": "rewards:brief"}}},
        ConfigError,
        r"objectives\.a=b must be letters, digits, _ and -, a letter first, got 'a=b'\. Rename it\.",
    ),
    "audit of the same name": (
        {"audit": {"brief": {"reward": "rewards:brief"}}},
        ConfigError,
        r"audit\.brief must be scored in evaluation only, got an objective of the same name",
    ),
    "reference point": (
        {"reference_point": [0]},
        ConfigError,
        r"reference_point must have one number per objective \(2\), got 1",
    ),
    "unknown learner setting": (
        {"learner": {"lerning_rate": 0.1}},
        ConfigError,
        r"^[^:]*task\.yaml:\d+:3: learner.lerning_rate must be one of the settings of the learner, got .*"
        r"'learning_rate'\? Write `learning_rate: 0\.1`\. It has",
    ),
    "learner out of range": (
        {"learner": {"epochs": 0}},
        ConfigError,
        r"task\.yaml:\d+:\d+: learner\.epochs must be at least 1",
    ),
    "learner in quotes": ({"learner": {"learning_rate": "a"}}, ConfigError, r"learner\.learning_rate must be .* 'a'"),
    "unknown objective": (
        objective(reward="emphaty"),
        UnknownNameError,
        r"brief\.reward must be module:function, a model folder, or one of brevity, .*got 'emphaty'\. Did you mean "
        r"'empathy'\?",
    ),
    "unknown function": (
        objective(reward="rewards:breef"),
        UnknownNameError,
        r"brief\.reward: name of 'rewards:breef' must be defined in its module, got 'breef'\. Did you mean 'brief'\?",
    ),
    "unknown module": (
        objective(reward="reward_s:brief"),
        TaskError,
        r"brief\.reward: module of 'reward_s:brief' must lie in the task's folder or be installed",
    ),
    "reward template": (
        objective(reward={"model": "judge", "template": "{prompt}"}),
        ConfigError,
        r"reward\.template must contain \{completion\}",
    ),
    "logit without range": (
        objective(reward={"model": "judge", "transform": "identity"}),
        ConfigError,
        r"brief\.range must be given with transform: identity, got nothing",
    ),
    "transform": (
        objective(reward={"model": "judge", "transform": "tanh"}),
        ConfigError,
        r"transform must be 'sigmoid' or 'identity', got 'tanh'",
    ),
    "reward model that is a language model": (
        objective(reward={"model": "base"}),
        ModelError,
        r"reward\.model: reward model must be a trained sequence classifier, got LlamaForCausalLM",
    ),
    "missing model folder": (
        {"model": "./bass"},
        ModelError,
        r"model must be a model folder that exists, or a hub id, got './bass' \(.*\)\. Check the path\.",
    ),
    "folder without model": ({"model": "."}, ModelError, r"model: model must be a folder with a config\.json"),
    "missing file": (
        prompts(train="trian.jsonl"),
        TaskError,
        r"prompts\.train must be a file that exists, got 'trian\.jsonl' \(/.*\)\. Check the path\.",
    ),
    "unknown format": (prompts(train="rewards.py"), TaskError, r"must end in one of \.jsonl, .*, got 'rewards\.py'"),
    "missing column": (
        prompts(column="promt"),
        TaskError,
        r"train\.jsonl:1: columns must include 'promt', got prompt\. Did you mean 'prompt'\?",
    ),
    "beyond the context": (
        {"max_prompt_tokens": 20},
        TaskError,
        r"must be at most the model's context of 24 tokens, got 20 \+ 8 = 28\. Lower one",
    ),
}


@pytest.mark.parametrize(("changes", "error", "message"), BAD_KEYS.values(), ids=BAD_KEYS.keys())
def test_a_broken_task_file_says_where_what_and_how(folder, changes, error, message):
    with pytest.raises(error, match=message):
        load(folder, **changes)


BAD_ROWS = {
    "empty file": ("", r"prompts\.train must hold at least one prompt, got none in 'train\.jsonl'\. Add prompts"),
    "empty prompt": ('{"prompt": "a"}\n{"prompt": " "}\n', r"train\.jsonl:2: prompt must not be empty, got ' '"),
    "messages": ('{"prompt": [{"role": "user"}]}\n', r"train\.jsonl:1: prompt must be text, got list .* one text"),
    "no prompt": ('{"prompt": null}\n', r"train\.jsonl:1: prompt must be text, got NoneType"),
    "no JSON": ('{"prompt": "a"}\n{"prompt"\n', r"train\.jsonl:2 must be one JSON object a line, got an error"),
    "no object": ('["a"]\n', r"train\.jsonl:1 must be one JSON object a line, got list"),
    "one id twice": (
        '{"prompt": "a", "prompt_id": 1}\n{"prompt": "b", "prompt_id": "1"}\n',
        r"train\.jsonl:2: prompt_id must be unique in its split, got '1' as in .*train\.jsonl:1",
    ),
    "no id": ('{"prompt": "a", "prompt_id": null}\n', r"prompt_id must be text or a whole number, got None"),
    "infinity": (
        '{"prompt": "a", "score": Infinity}\n',
        r"train\.jsonl:1 must be one JSON object a line, got an error: Infinity, which is no finite number",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_broken_row_is_named_by_file_and_line(folder, text, message):
    (folder / "train.jsonl").write_text(text)
    with pytest.raises(TaskError, match=message):
        load(folder)


BAD_TABLES = {
    "too many cells": ("prompt,topic\na,b\nc,d,e\n", r"train\.csv:3 must have 2 cells as the first line, got 3"),
    "too few cells": ("prompt,topic\na\n", r"train\.csv:2 must have 2 cells as the first line, got 1"),
    "open quote": ('prompt,topic\n"a,b\n', r"train\.csv:2 must be a row with closed quotes"),
    "one column twice": (
        "prompt,prompt\na,b\n",
        r"train\.csv:1: columns must have different names, got 'prompt' twice",
    ),
    "no rows": ("prompt,topic\n", r"must hold at least one prompt, got none in 'train\.csv'"),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_broken_table_is_named_by_file_and_line(folder, text, message):
    (folder / "train.csv").write_text(text)
    with pytest.raises(TaskError, match=message):
        load(folder, **prompts(train="train.csv"))


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv"])
def test_text_in_another_encoding_is_refused(folder, name):
    first = "prompt" if name.endswith("csv") else '{"prompt": "a"}'
    (folder / name).write_bytes(f"{first}\nschön\n".encode("latin-1"))
    with pytest.raises(TaskError, match=rf"{name}:2 must be UTF-8 text, got the byte 0xf6 .*Save the file as UTF-8"):
        load(folder, **prompts(train=name))


def test_a_broken_parquet_file_is_refused(folder):
    (folder / "train.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(TaskError, match=r"train\.parquet must be a Parquet file, got an error"):
        load(folder, **prompts(train="train.parquet"))


def test_a_column_that_the_prompt_would_replace_is_refused(folder):
    jsonl(folder / "train.jsonl", [{"source": "a", "prompt": "b"}])
    with pytest.raises(TaskError, match=r"columns must not include both 'prompt' and the prompt column 'source'"):
        load(folder, **prompts(column="source"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: a\nbeta: 1\nmodel: b\n", r"task\.yaml:3:1: model must be given once, got it again after line 1"),
        (
            "objectives:\n  brief: {reward: a}\n  brief: {reward: b}\n",
            r"task\.yaml:3:3: objectives\.brief must be given once, got it again after line 2\. Remove one\.",
        ),
        ("model: [a\n", r"task\.yaml:2:1 must be YAML, got an error"),
        ("model: &m {x: *m}\n", r"task\.yaml:1:15: model\.x must name what stands whole above it, got \*m"),
        ("- a\n", r"task\.yaml must hold keys and values, got list"),
        ("", r"task\.yaml must hold keys and values, got an empty file"),
        ("model: !!python/object:os.system x\n", r"task\.yaml:1:8: model must have no tag, got !!python"),
    ],
)
def test_broken_yaml_is_named_by_line(folder, text, message):
    (folder / "task.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_task(folder)


def test_a_line_in_a_message_is_the_line_of_the_key(folder):
    text = yaml.safe_dump(definition(beta="much"), sort_keys=False)
    line = text.splitlines().index("beta: much") + 1
    (folder / "task.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"task\.yaml:{line}:1: beta "):
        load_task(folder)


def test_aliases_in_yaml_are_no_duplicates(folder):
    text = yaml.safe_dump(definition(objectives=...), sort_keys=False)
    text += "objectives:\n  one: &o {reward: 'rewards:brief'}\n  two: *o\n  three:\n    <<: *o\n    version: 2\n"
    (folder / "task.yaml").write_text(text)
    assert [item.version for item in load_task(folder).objectives] == [1, 1, 2]


def test_pickled_parameters_are_refused(folder):
    (folder / "base").unlink()
    (folder / "base").mkdir()
    (folder / "base" / "config.json").write_text("{}")
    (folder / "base" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"task\.yaml:\d+:1: model: model must hold safetensors files, got none"):
        load(folder)


def test_prompts_of_allowed_length_pass(folder):
    check_prompts(load(folder), encoder(folder))


def test_a_prompt_longer_than_allowed_is_named_and_not_cut(folder):
    # "Client : ... Counselor :" adds four tokens to the words of the prompt
    jsonl(folder / "dev.jsonl", [{"prompt": "a b c d e f a b"}, {"prompt": "a b c d e f a b c"}, {"prompt": "a " * 10}])
    message = (
        r"development prompt 'development-1' of task '.*' must have at most 12 tokens, template included, got 13 and 1 "
        r"more\. Shorten or remove it, or raise max_prompt_tokens \(the longest development prompt has 14\)\."
    )
    with pytest.raises(TaskError, match=message):
        check_prompts(load(folder), encoder(folder))


def test_a_prompt_of_a_tasks_own_code_with_half_a_surrogate_pair_is_refused(folder):
    task = load(folder)
    splits = {**task.splits, "test": ({"prompt": "a \ud83d", "prompt_id": "t"},)}
    message = r"test prompt 't' of task '.*' must be text without half a surrogate pair, .*got 'a \\ud83d'"
    with pytest.raises(TaskError, match=message):
        check_prompts(replace(task, splits=splits), encoder(folder))


def test_a_context_given_by_a_loaded_model_counts(folder):
    task = load(folder)
    assert model_context(task.model) == model_folders.CONTEXT_TOKENS
    check_context(task, 20)
    with pytest.raises(TaskError, match=r"the model's context of 19 tokens, got 12 \+ 8 = 20"):
        check_prompts(task, encoder(folder), context_tokens=19)


@pytest.mark.parametrize(
    ("config", "limit"),
    [({"n_positions": 8}, 8), ({"text_config": {"max_position_embeddings": 9}}, 9), ({}, None)],
)
def test_the_context_is_read_from_the_configuration(tmp_path, config, limit):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert model_context(str(tmp_path)) == limit


def test_a_hub_id_has_no_context_to_read():
    assert model_context("nobody/some-model") is None


READS = "from pathlib import Path\n\ndef brief(completions, **columns):\n" + (
    "    list(map(Path.read_text, Path(__file__).parent.glob('words*')))\n    return [1.0] * len(completions)\n"
)


def test_files_that_rewards_are_declared_to_read_are_part_of_their_key(folder):
    (folder / "rewards.py").write_text(READS)
    (folder / "words.json").write_text("[]")
    (folder / "base.json").write_text("[]")
    declared = {"depends": ["words*.json"]}
    task = load(folder, **declared)
    rows, texts = [{"prompt": "I feel sad"}], ["I"]
    assert Scorer(task.objectives)(rows, texts).rewards[0, 0] == 1.0
    with pytest.raises(TaskError, match=r"file 'words\.json' that rewards:brief reads must be named in depends"):
        Scorer(load(folder).objectives)(rows, texts)
    before = [each.key() for each in task.objectives]
    (folder / "base.json").write_text("[1]")
    assert [each.key() for each in load(folder, **declared).objectives] == before
    (folder / "words2.json").write_text("[1]")
    now = [each.key() for each in load(folder, **declared).objectives]
    assert (now[0] != before[0], now[1] != before[1]) == (True, False)  # the second is none of the user's


def test_a_reward_may_read_the_base_model_which_the_key_covers_anyway(folder):
    text = READS.replace("glob('words*')", "glob('base/*.json')")
    (folder / "rewards.py").write_text(text)
    assert Scorer(load(folder).objectives)([{"prompt": "I"}], ["I"]).statuses[0, 0] == "ok"


@pytest.mark.parametrize("path", ["wrods.json", "no/*.txt", ""])
def test_what_depends_names_must_be_there(folder, path):
    with pytest.raises(
        TaskError, match=rf"task\.yaml:\d+:\d+: depends\.0 must name a file, .* got '{re.escape(path)}'"
    ):
        load(folder, depends=[path])


@pytest.mark.parametrize(
    ("depends", "message"),
    [
        (["/"], r"depends\.0 '/': .* must be at most [\d,]+, got more, the last in '/"),
        (["rewards.py", "~nobodyx"], r"depends\.1 '~nobodyx': .* must name the home of a user"),
    ],
)
def test_what_depends_cannot_name_is_refused_by_its_entry(folder, monkeypatch, depends, message):
    monkeypatch.setattr("paretune.core.file_lists.MAX_READ_FILES", 1000)  # any machine has more
    with pytest.raises(TaskError, match=rf"task\.yaml:\d+:\d+: {message}"):
        load(folder, depends=depends)
