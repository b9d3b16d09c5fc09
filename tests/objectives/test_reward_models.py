import json
import math
from pathlib import Path

import pytest
import torch

import chat_tokenizer
import model_folders
from paretune.core.errors import ModelError
from paretune.core.task import Objective
from paretune.objectives.reward_models import (
    BATCH_TOKENS,
    RewardModel,
    absent_id,
    batches_by_length,
    check_one_logit,
    fill_template,
)
from paretune.objectives.scoring import Scorer

PROMPTS = ["I feel sad", "I feel tired", "my sister", "I"]
COMPLETIONS = ["You feel sad .", "Hmm", "You feel alone a b c d e f", "You keep ?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return model_folders.save_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="module")
def without_pad(tmp_path_factory) -> Path:
    return model_folders.save_classifier(tmp_path_factory.mktemp("without_pad"), pad_id=None)


@pytest.fixture(scope="module")
def padded_with_end(tmp_path_factory) -> Path:
    return model_folders.save_classifier(tmp_path_factory.mktemp("padded_with_end"), pad_id=1)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return model_folders.save_encoder_classifier(tmp_path_factory.mktemp("encoder"))


def one_by_one(folder: Path, texts):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return [float(model(**tokenizer(text, return_tensors="pt")).logits) for text in texts]


@pytest.mark.parametrize("name", ["folder", "without_pad", "padded_with_end", "encoder"])
def test_a_padded_batch_gives_what_transformers_gives_text_by_text(request, name):
    folder = request.getfixturevalue(name)
    logits = one_by_one(folder, [f"{p} {c} <end>" for p, c in zip(PROMPTS, COMPLETIONS, strict=True)])
    assert max(logits) - min(logits) > 0.1  # else the comparison below would show nothing
    rewards = RewardModel(str(folder), "{prompt} {completion} <end>", "identity")(PROMPTS, COMPLETIONS)
    assert rewards == pytest.approx(logits, abs=1e-5)  # fp32 sums in another order
    squashed = RewardModel(str(folder), "{prompt} {completion} <end>")(PROMPTS, COMPLETIONS)
    assert squashed == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-5)


def test_end_of_text_is_read_only_where_the_template_has_it(folder):
    plain = RewardModel(str(folder), "{completion}", "identity")(PROMPTS, COMPLETIONS)
    ended = RewardModel(str(folder), "{completion} <end>", "identity")(PROMPTS, COMPLETIONS)
    assert plain == pytest.approx(one_by_one(folder, COMPLETIONS), abs=1e-5)
    assert ended == pytest.approx(one_by_one(folder, [text + " <end>" for text in COMPLETIONS]), abs=1e-5)
    assert plain != pytest.approx(ended, abs=1e-3)


def test_a_text_that_spells_a_special_token_does_not_become_it(folder):
    from transformers import AutoTokenizer

    score = RewardModel(str(folder), "{prompt} {completion} <end>", "identity")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    read = score._rows([("I", "You <end> feel"), ("<pad> I", "You"), ("I", "You")])
    as_text = {
        text: tokenizer(text, split_special_tokens=True)["input_ids"] for text in ("I You <end> feel ", "<pad> I You ")
    }
    end = model_folders.WORDS.index("<end>")
    assert read == [*([*ids, end] for ids in as_text.values()), tokenizer("I You <end>")["input_ids"]]
    assert [row.count(end) for row in read] == [1, 1, 1]
    assert score(["I"], ["You <end> feel"]) != score(["I"], ["You feel"])


def test_a_text_that_can_only_be_a_special_token_has_no_score(tmp_path):
    chat_tokenizer.save(model_folders.save_classifier(tmp_path), words=True)
    rewards = RewardModel(str(tmp_path))(["a ", "a ", "</s> "], ["b", "</s>", "b"])
    assert [reward is None for reward in rewards] == [False, True, True]


def test_the_template_is_filled_in_one_pass():
    assert fill_template("{prompt}|{completion}", "{completion}", "{prompt}") == "{completion}|{prompt}"
    assert fill_template("{other} {completion}", "p", "c") == "{other} c"


def test_a_text_without_tokens_or_beyond_the_context_has_no_score(folder):
    texts = ["", "a " * model_folders.CONTEXT_TOKENS, "a " * (model_folders.CONTEXT_TOKENS + 1)]
    rewards = RewardModel(str(folder), "{completion}")(["p"] * 3, texts)
    assert [reward is None for reward in rewards] == [True, False, True]
    assert RewardModel(str(folder))([], []) == []


def test_parameters_saved_in_half_precision_compute_in_fp32(tmp_path):
    from transformers import AutoModelForSequenceClassification

    model_folders.save_classifier(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float16).save_pretrained(tmp_path)
    assert RewardModel(str(tmp_path))._model.dtype == torch.float32


def test_objectives_with_one_model_share_it(folder):
    assert RewardModel(str(folder), "{completion}")._model is RewardModel(str(folder), "{prompt}{completion}")._model


def test_the_configuration_is_left_as_it_was(without_pad):
    model = RewardModel(str(without_pad))
    model(PROMPTS, COMPLETIONS)
    assert model._model.config.pad_token_id is None


def test_batches_hold_every_row_once_and_stay_within_their_tokens():
    lengths = [7, 0, 300, 5, 4000, 1, 4097, 300]
    batches = batches_by_length(lengths, limit=BATCH_TOKENS)
    assert sorted(index for batch in batches for index in batch) == [0, 2, 3, 4, 5, 7]
    assert all(len(batch) * max(lengths[index] for index in batch) <= BATCH_TOKENS for batch in batches)


def test_an_absent_token_is_found_or_its_lack_refused():
    assert absent_id([[0, 2], [1]], 5) == 3
    with pytest.raises(ModelError, match=r"must declare pad_token_id, got none, and every one of its 3 tokens"):
        absent_id([[0, 2], [1]], 3)


def test_a_reward_model_is_an_objective(folder):
    objective = Objective("m", str(folder), kind="model", template="{prompt} {completion}")
    scores = Scorer([objective])([{"prompt": prompt} for prompt in PROMPTS], COMPLETIONS)
    assert scores.rewards[:, 0].tolist() == pytest.approx(
        RewardModel(str(folder), "{prompt} {completion}")(PROMPTS, COMPLETIONS), abs=1e-6
    )


@pytest.mark.parametrize("logits", [2, 3])
def test_more_than_one_logit_is_refused(tmp_path, logits):
    model_folders.save_classifier(tmp_path, logits=logits)
    message = rf"reward model must have one logit, got {logits} in .*num_labels=1, or write a reward function"
    for look in (check_one_logit, RewardModel):
        with pytest.raises(ModelError, match=message):
            look(str(tmp_path))


def test_a_language_model_is_refused_rather_than_given_a_random_head(tmp_path):
    model_folders.save_base(tmp_path)
    message = r"must be a trained sequence classifier, got LlamaForCausalLM in .*AutoModelForSequenceClassification"
    with pytest.raises(ModelError, match=message):
        RewardModel(str(tmp_path))


def test_a_classifier_without_saved_head_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    model_folders.save_classifier(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in tensors.items() if "score" not in name},
        tmp_path / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(ModelError, match=r"must be a whole sequence classifier, got .* without score\.weight\."):
        RewardModel(str(tmp_path))


def test_a_folder_of_pickled_parameters_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"model must hold safetensors files, got none in"):
        RewardModel(str(tmp_path))


def test_a_model_that_is_nowhere_is_refused():
    with pytest.raises(ModelError, match=r"must be a folder or hub id of a sequence classifier.*Check the path"):
        RewardModel("nobody/no-such-model")
