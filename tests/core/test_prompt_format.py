from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import chat_tokenizer
import micro_task
from chat_tokenizer import BEGIN, END, TEMPLATE, TURN
from paretune.core.errors import ModelError, ShapeError
from paretune.core.prompt_format import PromptEncoder, PromptFormat
from paretune.tasks import tokenizers
from paretune.tasks.checks import plain_encoder


def tokenizer_in(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def both_encoders(folder: Path) -> tuple[PromptEncoder, PromptEncoder]:
    """What reads prompts once the model is loaded, and what reads them in a plan."""
    alone = plain_encoder(str(folder))
    assert isinstance(alone, PromptEncoder)
    return PromptEncoder.of(tokenizer_in(folder)), alone


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> PromptEncoder:
    return PromptEncoder.of(tokenizer_in(chat_tokenizer.save(tmp_path_factory.mktemp("begin"))))


def as_bytes(text: str) -> list[int]:
    """Ids of a text of plain bytes: the 256 letters of the byte-level alphabet follow the special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = {letter: index for index, letter in enumerate(sorted(ByteLevel.alphabet()), len(chat_tokenizer.SPECIAL))}
    ((pieces, _),) = ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return [letters[letter] for letter in pieces]


@pytest.mark.parametrize("adds", chat_tokenizer.ADDS)
@pytest.mark.parametrize("config", [{}, {"add_bos_token": True}, {"add_bos_token": False, "add_eos_token": True}])
def test_an_input_is_what_its_tokenizer_makes_up_to_the_end_of_the_prompt(
    tmp_path: Path, adds: str, config: dict[str, bool]
) -> None:
    tokenizer = tokenizer_in(chat_tokenizer.save_model(tmp_path, adds, **config))
    whole, bare = tokenizer("a b")["input_ids"], tokenizer("a b", add_special_tokens=False)["input_ids"]
    begins, ends = [BEGIN] if adds in ("begin", "both") else [], [END] if adds in ("end", "both") else []
    for encoder in both_encoders(tmp_path):
        assert list(encoder.ids("a b", PromptFormat())) == [*begins, *bare]  # an end would end what is to go on
        assert list(encoder.ids("a b", PromptFormat(add_special_tokens=False))) == bare
        assert list(encoder.ids("a b", PromptFormat(add_special_tokens=True))) == [*begins, *bare, *ends] == whole


def test_a_token_without_an_embedding_is_named_and_never_looked_up(tmp_path: Path) -> None:
    tokenizer = tokenizer_in(chat_tokenizer.save(tmp_path))
    rows = max(as_bytes("a b")) + 1
    encoder = PromptEncoder.of(tokenizer, rows=rows)
    assert list(encoder.ids("a b", PromptFormat(add_special_tokens=False))) == as_bytes("a b")
    tokenizer.add_tokens(["cuddle"])  # as a tokenizer_config.json does that names a token of its own
    with pytest.raises(
        ModelError, match=rf"for each token .*, got {rows} of them and 'cuddle' as token {len(tokenizer) - 1} "
    ):
        PromptEncoder.of(tokenizer, rows=rows).ids("a cuddle", PromptFormat())


@pytest.mark.parametrize("template", ["<s>{prompt}", "<s><|turn|>user {prompt}<|turn|>"])
def test_a_template_that_begins_with_the_token_does_not_get_it_twice(encoder: PromptEncoder, template: str) -> None:
    ids = encoder.ids("hello", PromptFormat(template))
    assert ids[0] == BEGIN
    assert ids.count(BEGIN) == 1
    assert encoder.ids("hello", PromptFormat(template, add_special_tokens=True))[:2] == (BEGIN, BEGIN)  # as was asked


@pytest.mark.parametrize("prompt", ["</s>", "a</s> b", "<s>", "<|turn|>system", "x</s></s><|turn|>", "</s"])
def test_the_text_of_a_special_token_in_a_prompt_stays_text(encoder: PromptEncoder, prompt: str) -> None:
    ids = list(encoder.ids(prompt, PromptFormat(TEMPLATE)))
    assert ids == [BEGIN, TURN, *as_bytes("user " + prompt), TURN, *as_bytes("reply")]
    assert list(encoder.ids(prompt, PromptFormat())) == [BEGIN, *as_bytes(prompt)]


@given(st.lists(st.sampled_from(["</s>", "<s>", "<|turn|>", "<|", "tu", "a", " ", "ü", "\n"]), min_size=1).map("".join))
def test_no_prompt_makes_a_special_token_and_none_loses_a_letter(encoder: PromptEncoder, prompt: str) -> None:
    ids = list(encoder.ids(prompt, PromptFormat(TEMPLATE)))
    assert [each for each in ids if each < len(chat_tokenizer.SPECIAL)] == [BEGIN, TURN, TURN]
    assert ids == [BEGIN, TURN, *as_bytes("user " + prompt), TURN, *as_bytes("reply")]


def test_a_task_can_say_that_special_tokens_in_its_prompts_are_meant(encoder: PromptEncoder) -> None:
    rendered = "<s><|turn|>user hello<|turn|>reply"
    ids = encoder.ids(rendered, PromptFormat(special_tokens_in_prompts=True))
    assert list(ids) == [BEGIN, TURN, *as_bytes("user hello"), TURN, *as_bytes("reply")]


def test_a_special_token_that_cannot_be_text_is_refused(tmp_path: Path) -> None:
    for encoder in both_encoders(chat_tokenizer.save_model(tmp_path, words=True)):
        assert encoder.ids("a b", PromptFormat(TEMPLATE.replace("|>", "|> ")))[0] == BEGIN
        with pytest.raises(
            ModelError, match=r"prompt must hold no special token .*, got '</s>' in 'a </s> b'\. Remove"
        ):
            encoder.ids("a </s> b", PromptFormat())


def test_what_a_tokenizer_does_not_know_is_no_special_token(tmp_path: Path) -> None:
    for encoder in both_encoders(chat_tokenizer.save_model(tmp_path, words=True)):
        assert encoder.ids("a zzz", PromptFormat()) == (BEGIN, 6, chat_tokenizer.UNKNOWN)


def test_the_plan_reads_prompts_as_the_loaded_model_does(tmp_path: Path) -> None:
    loaded, alone = both_encoders(chat_tokenizer.save_model(tmp_path))
    for prompt in ("a", "a</s>b", "<|turn|>", "ü\n\x1b[31m"):
        for template in ("{prompt}", TEMPLATE, "<s>{prompt} {prompt}"):
            assert loaded.ids(prompt, PromptFormat(template)) == alone.ids(prompt, PromptFormat(template))
    assert loaded.special == alone.special
    assert loaded.piece(BEGIN) == alone.piece(BEGIN) == "<s>"


REBUILT = [
    ("LlamaTokenizer", {"add_bos_token": True}), ("LlamaTokenizerFast", {"add_bos_token": True, "add_eos_token": True}),
    ("GemmaTokenizer", {"add_bos_token": True}), ("Qwen2Tokenizer", {}), ("GPT2Tokenizer", {"add_bos_token": True}),
    ("GPTNeoXTokenizer", {"add_eos_token": True}), ("CohereTokenizer", {}), ("TokenizersBackend", {}),
    ("PreTrainedTokenizerFast", {"add_bos_token": True, "add_eos_token": True}),
    ("TokenizersBackend", {"split_special_tokens": True}), ("TokenizersBackend", {"eos_token": "ab"}),
    ("TokenizersBackend", {"extra_special_tokens": {"mark": "b"}}),
    ("TokenizersBackend", {"extra_special_tokens": ["c"]}),
]  # fmt: skip


def rebuilt(folder: Path, kind: str, **config: Any) -> Path:
    """Save a BPE tokenizer of which most classes of transformers keep no more than the vocabulary."""
    letters = [*chat_tokenizer.SPECIAL, *"abcd: ", "\u2581", "ab"]
    micro_task.save_model(folder, vocab_size=32, eos_token_id=END)
    content = json.loads((chat_tokenizer.save(folder) / "tokenizer.json").read_text())
    content |= {"pre_tokenizer": None, "post_processor": None, "decoder": None}
    content["model"] |= {"vocab": {each: index for index, each in enumerate(letters)}, "merges": [["a", "b"]]}
    content["model"]["unk_token"] = "<unk>"
    (folder / "tokenizer.json").write_text(json.dumps(content))
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": kind, **config}))
    return folder


def read_with(make: Callable[[], PromptEncoder | None]) -> list[object]:
    """What an encoder makes of some prompts, or what it refuses them with."""
    found: list[object] = []
    for prompt in ("abab", "a </s>b", "c"):
        for template in ("{prompt}", "<s>{prompt}<|turn|>"):
            try:
                encoder = make()
                assert encoder is not None
                found.append((encoder.ids(prompt, PromptFormat(template)), encoder.special))
            except ModelError as error:
                found.append(str(error))
    return found


@pytest.mark.parametrize(("kind", "config"), REBUILT)
def test_the_plan_reads_what_a_class_of_transformers_makes_of_the_file(
    tmp_path: Path, kind: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    folder = rebuilt(tmp_path / "model", kind, **config)
    loaded = read_with(lambda: PromptEncoder.of(tokenizer_in(folder), (END,), 32))
    assert read_with(lambda: plain_encoder(str(folder))) == loaded
    tokenizers._made.cache_clear()
    assert read_with(lambda: plain_encoder(str(folder))) == loaded  # from the cache


@pytest.mark.slow
def test_another_process_makes_a_tokenizer_where_torch_is_not_imported(tmp_path: Path) -> None:
    folder = rebuilt(tmp_path / "model", "LlamaTokenizer", add_bos_token=True)
    code = (
        "import sys; from paretune.tasks.checks import plain_encoder; from paretune.core.prompt_format import *\n"
        "print(plain_encoder(sys.argv[1]).ids('abab', PromptFormat()), 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PARETUNE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    expected = PromptEncoder.of(tokenizer_in(folder)).ids("abab", PromptFormat())
    assert done.stdout == f"{expected} False\n"


def test_a_tokenizer_that_draws_at_random_is_refused(tmp_path: Path) -> None:
    folder = rebuilt(tmp_path / "model", "TokenizersBackend")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for make in (lambda: plain_encoder(str(folder)), lambda: PromptEncoder.of(tokenizer_in(folder))):
        with pytest.raises(ModelError, match=r"must read a text the same way .*, got dropout 0\.5 .* null there"):
            make()


def test_a_special_token_with_the_id_of_another_is_refused(tmp_path: Path) -> None:
    folder = rebuilt(tmp_path / "model", "TokenizersBackend", pad_token="<new>")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["ab"] += 1  # a gap: a token that is added gets the first free number of tokens
    (folder / "tokenizer.json").write_text(json.dumps(content))
    for make in (lambda: plain_encoder(str(folder)), lambda: PromptEncoder.of(tokenizer_in(folder))):
        with pytest.raises(ModelError, match=r"an id of its own for each .*, got \d+ for '.*' and for 'ab'\."):
            make()


def test_special_tokens_that_no_text_of_a_prompt_spells_are_named() -> None:
    encoder = PromptEncoder(lambda text, add=False, as_text=False: [1] * len(text), {"</s>": 1}, dict, lambda _: "</s>")
    with pytest.raises(ModelError, match=r"got '</s>, </s>' in 'hm'\."):
        encoder.ids("hm", PromptFormat())


def test_a_tokenizer_that_changes_a_text_when_it_adds_tokens_is_refused() -> None:
    def tokenize(text: str, add: bool = False, as_text: bool = False) -> list[int]:
        return [9, 8, 7] if add else [1, 2]

    encoder = PromptEncoder(tokenize, {}, dict, str)
    with pytest.raises(ModelError, match="tokenizer must add its special tokens before or behind a text"):
        encoder.ids("a", PromptFormat())
    assert encoder.ids("a", PromptFormat(add_special_tokens=False)) == (1, 2)


def test_a_value_that_spells_a_field_is_not_filled(encoder: PromptEncoder) -> None:
    values = {"prompt": "{completion}</s>", "completion": "{prompt}"}
    ids = encoder.fill("{prompt}<|turn|>{completion}", values, adds=False)
    assert ids == [*as_bytes("{completion}</s>"), TURN, *as_bytes("{prompt}")]


def test_what_is_no_text_is_refused(encoder: PromptEncoder) -> None:
    with pytest.raises(ShapeError, match=r"prompt must be a text, got None\. Write a str"):
        encoder.ids(None, PromptFormat())  # type: ignore[arg-type]
