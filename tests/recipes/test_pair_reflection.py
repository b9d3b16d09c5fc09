from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import model_folders
import real_studies

PROMPT = "I know I should quit smoking, but with all this stress at work I can't see how. My kids hate it, too."
REFLECTION = " You want to quit smoking for your kids, but the stress at work makes it hard."


@pytest.fixture(scope="session")
def recipe(root: Path) -> Path:
    return root / "recipes" / "pair_reflection"


def load(file: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def execute(recipe: Path, data: Path, base: Path, judge: Path, output: Path) -> subprocess.CompletedProcess[str]:
    """Run `run.py --tiny` in a process of its own."""
    options = {"--data": data, "--model": base, "--reward-model": judge, "--output": output}
    given = [str(part) for pair in options.items() for part in pair]
    environment = {**os.environ, "PYTHONPATH": str(recipe.parents[1] / "src")}
    return subprocess.run(
        [sys.executable, str(recipe / "run.py"), *given, "--tiny"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def write_data(folder: Path) -> Path:
    """Write made-up rows of PAIR's form that a model of `model_folders` can read."""
    folder.mkdir()
    letters = iter(f"{one} {two}" for one in "abcdef" for two in "abcdef")
    for split, count in {"train": 10, "dev": 3, "test": 9}.items():
        rows = [
            {
                "prompt": f"I feel sad,  {next(letters)}.",
                "topic": "made up",
                "responses": [{"text": f"You feel “sad” {index}.", "level": 2, "kind": "hq1"}],
            }
            for index in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def made_up(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny run on made-up data and models, in this process."""
    folder = tmp_path_factory.mktemp("pair")
    base, judge = model_folders.save_base(folder / "base"), model_folders.save_classifier(folder / "judge")
    data = write_data(folder / "data")
    given = {"--data": data, "--model": base, "--reward-model": judge, "--output": folder / "out"}
    with pytest.MonkeyPatch.context() as patch, real_studies.in_this_process(drawn=("front",)):
        patch.syspath_prepend(recipe)
        patch.setattr(sys, "argv", ["run.py", "--tiny", *(str(part) for pair in given.items() for part in pair)])
        run = load(recipe / "run.py", "pair_run")
        patch.setattr(run, "MAX_PROMPT_TOKENS", 12)
        patch.setattr(run, "TINY_COMPLETION_TOKENS", 6)
        assert run.main() == 0
    return folder / "out"


def test_a_tiny_run_on_made_up_data_finishes_one_method_of_each_family(made_up: Path) -> None:
    from paretune.records.reading import read_study

    study = read_study(made_up / "study")
    assert [(cell.family, cell.state) for cell in study.cells] == [
        ("single-policy", "done"),
        ("multi-policy", "done"),
        ("meta-policy", "done"),
        ("single-policy", "done"),  # the rows that stand in every study
        ("reference", "done"),
    ]
    task = study.tasks["pair"]
    assert [(each.name, each.audit) for each in task.objectives] == [
        ("reflection", False),
        ("empathy", False),
        ("brevity", False),
        ("fluency", True),
    ]
    charged = [sum(stage.counts["completions"] for stage in cell.stages) for cell in study.cells[:-1]]
    assert len(set(charged)) == 1  # equal completions for every method
    assert {str(status) for cell in study.cells for each in cell.evaluations for status in each.statuses.flat} == {"ok"}


def test_prompts_are_evened_out_and_the_replies_of_people_stay_out_of_the_task(made_up: Path) -> None:
    rows = [json.loads(line) for line in (made_up / "task" / "test.jsonl").read_text().splitlines()]
    assert set(rows[0]) == {"prompt_id", "prompt", "topic"}
    assert rows[0]["prompt"].startswith("I feel sad, ")  # one space
    assert len(rows) == 8  # --tiny takes the first
    task = yaml.safe_load((made_up / "task" / "task.yaml").read_text())
    assert "fluency" not in task["objectives"]
    texts = json.loads((made_up / "task" / "fluency_texts.json").read_text())
    assert all("dev" not in text for text in texts["train"])
    assert texts["dev"] == [f'You feel "sad" {index}.' for index in range(3)]


@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")  # these models cannot read the stock reply
def test_the_figures_of_the_readme_are_measured_on_replies_of_each_level_and_on_the_base_model(
    made_up: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--data", str(made_up.parent / "data"), "--task", str(made_up / "task")]
    monkeypatch.setattr(sys, "argv", ["measure.py", *given])
    monkeypatch.setitem(sys.modules, "run", load(recipe / "run.py", "pair_run"))  # the script beside it
    monkeypatch.setattr("paretune.models.loading.default_device", lambda: "cpu")
    load(recipe / "measure.py", "pair_measure").main()
    names, level, other, stock, base, *_ = capsys.readouterr().out.splitlines()
    assert names == "mean of reflection, empathy, brevity, fluency"
    assert level.startswith("replies of level 2 (3): ")
    assert other.startswith("level 2 beside somebody else's prompt (3): ")
    assert stock.startswith("'You want to make a change but you are not sure how.' beside every prompt (3): ")
    assert base.startswith("base model (24): ")  # three prompts, eight samples


def test_the_page_is_written_from_the_records_whatever_they_say(made_up: Path, recipe: Path, tmp_path: Path) -> None:
    summarise = load(recipe / "summarise.py", "pair_summarise")
    from paretune.records.reading import read_study

    study = read_study(made_up / "study")
    page = summarise.page(study, "python run.py", "The command took 1:02 minutes.")
    for part in ("`linear`", "`weight_grid`", "`rewarded_soups`", "fluency (audit)", "no advice"):
        assert part in page
    assert page.count("\n  - base model: “") == summarise.SHOWN
    assert "nan" not in page
    base, methods = summarise.outcomes(study, study.tasks["pair"])
    evaluation = methods[0].records[0]
    expected = float(study.tasks["pair"].preferences[0] @ evaluation.scores)  # one sample a prompt: plain means
    assert methods[0].utility[0].mean() == pytest.approx(expected, abs=1e-12)  # the order of a sum of 24 terms
    assert summarise.verdict(summarise.over_prompts(base.utility - base.utility)) == "cannot be told from"
    command = [sys.executable, str(recipe / "summarise.py"), str(made_up), "--results", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(recipe.parents[1] / "src")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert {file.name for file in tmp_path.iterdir()} == {"pair_reflection.md", "pair_reflection_front.png"}


def test_a_verdict_needs_the_whole_interval_on_one_side(recipe: Path) -> None:
    summarise = load(recipe / "summarise.py", "pair_summarise")
    from paretune.statistics.intervals import Interval

    assert summarise.verdict(Interval(0.2, 0.1, 0.3, 9)) == "is above"
    assert summarise.verdict(Interval(-0.2, -0.3, -0.1, 9)) == "is below"
    assert summarise.verdict(Interval(0.2, -0.1, 0.5, 9)) == "cannot be told from"
    assert summarise.verdict(Interval(0.2, None, None, 1)) == "cannot be compared with"


def test_prompts_about_violence_or_sex_are_not_shown(recipe: Path) -> None:
    summarise = load(recipe / "summarise.py", "pair_summarise")
    hidden = ["I have raped", "HIV don't kill you", "what the b***ch did", "that I am depressed", "with a condom?"]
    assert all(summarise.NOT_SHOWN.search(text) for text in hidden)
    assert not summarise.NOT_SHOWN.search("I start a diet every day but once I get hungry, I lose my discipline.")


@pytest.mark.slow
def test_a_tiny_run_on_the_real_prompts_and_models(recipe: Path, shared: Path, tmp_path: Path) -> None:
    models = shared / "models"
    done = execute(
        recipe, shared / "data" / "pair", models / "counsel-5m", models / "reflection-rm", tmp_path / "out"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout


def test_all_real_prompts_fit(recipe: Path, shared: Path) -> None:
    from transformers import AutoTokenizer

    run = load(recipe / "run.py", "pair_run")
    tokenizer = AutoTokenizer.from_pretrained(shared / "models" / "counsel-5m")
    rows = [row for name in run.SPLITS.values() for row in run.read_rows(shared / "data" / "pair" / f"{name}.jsonl")]
    lengths = [len(tokenizer(run.TEMPLATE.format(prompt=row["prompt"]))["input_ids"]) for row in rows]
    assert len(rows) == 318
    assert max(lengths) == 210 <= run.MAX_PROMPT_TOKENS


@pytest.mark.parametrize(
    ("option", "got"),
    [("--data", "no dev.jsonl in it"), ("--model", "no such folder"), ("--reward-model", "no config.json in it")],
)
def test_what_is_missing_is_one_clear_error(
    recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    option: str,
    got: str,
) -> None:
    run = load(recipe / "run.py", "pair_run")
    folders = {
        "--data": write_data(tmp_path / "data"),
        "--model": tmp_path / "base",
        "--reward-model": tmp_path / "judge",
    }
    for name in ("base", "judge"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    if option == "--data":
        (tmp_path / "data" / "dev.jsonl").unlink()
    elif option == "--model":
        folders["--model"] = tmp_path / "nowhere"
    else:
        (tmp_path / "judge" / "config.json").unlink()
    given = [str(part) for pair in folders.items() for part in pair]
    monkeypatch.setattr(sys, "argv", ["run.py", *given, "--output", str(tmp_path / "out")])
    assert run.main() == 2
    told = capsys.readouterr().err
    assert told.startswith(f"pair_reflection: {option} must be the folder of ")
    assert str(folders[option]) in told
    assert got in told
    assert "README.md says where to get it" in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_line_is_named(recipe: Path, tmp_path: Path) -> None:
    from paretune.core.errors import ConfigError

    run = load(recipe / "run.py", "pair_run")
    file = tmp_path / "train.jsonl"
    file.write_text('{"prompt": "a", "responses": []}\n{"prompt": "b"}\n')
    with pytest.raises(ConfigError, match=r"train\.jsonl:2 must be a JSON object with a prompt and responses"):
        run.read_rows(file)


@pytest.fixture
def rewards(recipe: Path, tmp_path: Path) -> ModuleType:
    """The recipe's rewards beside a small text to learn fluency from."""
    (tmp_path / "rewards.py").write_text((recipe / "rewards.py").read_text(encoding="utf-8"), encoding="utf-8")
    good = [f"You want to {what} but it is hard for you." for what in ("quit", "run", "eat less", "sleep", "rest")]
    other = [f"It sounds like you are worried about {what}." for what in ("work", "your kids", "the pain", "money")]
    text = {
        "train": [*good, *other],
        "dev": ["You want to run but it is hard.", "You are worried about your kids."] * 5,
    }
    (tmp_path / "fluency_texts.json").write_text(json.dumps(text), encoding="utf-8")
    return load(tmp_path / "rewards.py", "pair_rewards")


@pytest.mark.parametrize("name", ["empathy", "brevity", "fluency"])
def test_rewards_lie_in_their_range_whatever_the_text(rewards: ModuleType, name: str) -> None:
    texts = ["", " ", "...", "\n", "🙂", "12 %", "A", "you " * 300, "YOU FEEL", "“Feel”", "Zürich, 我很难过", "don’t"]
    scores = getattr(rewards, name)([PROMPT] * len(texts), texts, topic=["x"] * len(texts))
    assert all(0.0 <= score <= 1.0 for score in scores)
    assert getattr(rewards, name)([], []) == []


@pytest.mark.parametrize("name", ["empathy", "brevity"])
@pytest.mark.parametrize(
    "reply",
    [
        "",
        " ",
        " ...",
        " " + PROMPT,
        " " + PROMPT.replace("stress", "pressure"),  # a copy with one word changed
        " sad sad sad sad sad sad",
        " worried anxious sad afraid hope",
        " worried, stressed, kids, smoking, hate, work, hard",
    ],
)
def test_silence_copies_and_keywords_win_next_to_nothing(rewards: ModuleType, name: str, reply: str) -> None:
    honest = getattr(rewards, name)([PROMPT], [REFLECTION])[0]
    score = getattr(rewards, name)([PROMPT], [reply])[0]
    assert score <= 0.25
    assert score < honest / 2


def test_empathy_rises_from_mention_to_the_clients_own_matter(rewards: ModuleType) -> None:
    ladder = [
        " I went to the shop this morning.",
        " You should just stop, it is hard but you want it.",  # advice
        " That is hard.",
        " You feel it is hard.",
        " You feel stress at work is making it hard to quit smoking.",
    ]
    scores = rewards.empathy([PROMPT] * len(ladder), ladder)
    assert scores == sorted(scores)
    # nobody's .4 x ungrounded .3; the client's 1 x .3; the client's, with two of his words: 1
    assert scores[2:] == pytest.approx([0.12, 0.3, 1.0])
    assert scores[1] < 0.1


def test_saying_a_good_sentence_twice_costs(rewards: ModuleType) -> None:
    once, twice = " You want to quit smoking.", " You want to quit smoking. You want to quit smoking."
    # 5 different words of 10, and a share of .7 is what a sentence may need: .5 / .7; 10 words are (30 - 10) / 22 brief
    assert rewards.empathy([PROMPT] * 2, [once, twice]) == pytest.approx([1.0, 0.5 / 0.7])
    assert rewards.brevity([PROMPT] * 2, [once, twice]) == pytest.approx([1.0, 20 / 22 * 0.5 / 0.7])


def test_a_question_takes_half_of_a_reflections_empathy(rewards: ModuleType) -> None:
    told, asked = rewards.empathy([PROMPT] * 2, [" You want to quit smoking.", " You want to quit smoking?"])
    assert asked == pytest.approx(told / 2)


def test_the_right_reply_to_another_client_has_less_empathy(rewards: ModuleType) -> None:
    mine, others = rewards.empathy([PROMPT, "My sister never calls me back."], [REFLECTION] * 2)
    assert mine == pytest.approx(1.0)
    assert others == pytest.approx(0.3)  # none of this client's words


def test_brevity_falls_in_a_straight_line(rewards: ModuleType) -> None:
    reply = "you feel that the work is so hard for them and we all know it can not go on as it was".split()
    texts = [" ".join(reply[:words]) for words in (8, 19)]
    # (30 - 19) / (30 - 8) = 0.5
    assert rewards.brevity(["Something else."] * 2, texts) == pytest.approx([1.0, 0.5])
    assert rewards.brevity(["Something else."], ["you do it"]) == pytest.approx([0.6])  # three of five different words


def test_fluency_knows_order_from_disorder_and_repetition(rewards: ModuleType) -> None:
    good, shuffled, again, none = rewards.fluency(
        [PROMPT] * 4,
        ["You want to rest but it is hard.", "hard to it but You is rest want.", "You want to rest. " * 6, "..."],
    )
    assert good > 0.5 > shuffled
    assert again < good / 2
    assert none == 0.0


def test_the_trigram_model_is_a_distribution_over_words(rewards: ModuleType) -> None:
    model = rewards.NGrams(["a b", "a c"])
    # after "a": b and c once each, 2 kinds of 2; the rest goes to lower orders, so each has between 1/4 and 1/2
    history = ("<s>", "a")
    chances = {
        item: model._phrases._probability(item, history, model._spell) for item in ("a", "b", "c", "</s>", "dog")
    }
    assert 0.25 < chances["b"] == chances["c"] < 0.5
    assert 0 < chances["dog"] < chances["a"] < chances["b"]
    assert sum(chances.values()) < 1  # what is left belongs to all other words


def test_a_people_written_reflection_beats_advice_on_real_text(rewards: ModuleType, shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data" / "pair" / "dev.jsonl").read_text().splitlines()]
    by_level: dict[int, list[tuple[str, str]]] = {}
    for row in rows:
        for reply in row["responses"]:
            by_level.setdefault(reply["level"], []).append((row["prompt"], reply["text"]))
    means = {
        level: sum(rewards.empathy(*map(list, zip(*pairs, strict=True)))) / len(pairs)
        for level, pairs in by_level.items()
    }
    assert means[0] + 0.1 < means[1] < means[2]


def test_rows_of_the_meta_policy_family_learn_alike_on_two_seeds(recipe: Path) -> None:
    study = load(recipe / "run.py", "pair_run").study_file(False, True)
    assert study["seeds"] == [0, 1]
    assert list(study["methods"]) == ["linear", "rewarded_soups", "mod", "mixture_of_experts", "one_policy"]
    linear = {**study["methods"]["linear"]}
    assert linear.pop("completions_each") == 3000
    assert all(row == linear for name, row in study["methods"].items() if name != "linear")


def test_the_sweep_tries_every_rate_for_each_row_that_trains_policies_of_its_own(recipe: Path) -> None:
    run = load(recipe / "run.py", "pair_run")
    study = run.study_file(False, True)
    sweep = run.swept(study)
    assert sweep["tune"] == {"learning_rate": [3e-4, 1e-3, 3e-3], "instances": 1}
    assert {*sweep["methods"], "mod"} == {*study["methods"]}  # mod has the experts of soups
    for name, settings in sweep["methods"].items():
        assert settings == {key: value for key, value in study["methods"][name].items() if key != "learning_rate"}
    assert sweep["budget"] == study["budget"]
