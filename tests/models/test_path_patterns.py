from __future__ import annotations

import random
import re
import time

import pytest

from paretune.core.errors import AdapterError
from paretune.models.path_patterns import PathPattern

PATHS = ["", "layers.0.q_proj", "lm_head", "A.b_1.ab", "a\n", "bab\n", "aabba"]  # short: `re` itself has to end
PARTS = [
    "a", "b", ".", r"\.", r"\d", r"\w", "[ab_.]", "[^a]", "_proj", "q", "layers", "^", "$", r"\b", r"\B", "(?i:A)",
    r"\Z",
    "(?=a)", "(?!b)", "(?<=a)", "(?<!m)", "(?<=ab)", "(?:)", "(?s:.)", "(?!)",
]  # fmt: skip
REPEATS = ["*", "+", "?", "*?", "+?", "??", "{0}", "{2}", "{1,3}", "{2,}?"]
LONG = (
    r"(?:.*?(?:vision|language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:k_proj|v_proj|q_proj|"
    r"out_proj|fc1|fc2|o_proj|gate_proj|down_proj|up_proj).*?)|(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|"
    r"mlp|feed_forward|ffn|dense)\.(?:(?:k_proj|v_proj|q_proj|out_proj|fc1|fc2|o_proj|gate_proj|down_proj|up_proj)))"
)  # as a tool for finetuning writes it


def a_pattern(draw: random.Random, depth: int) -> str:
    kind = draw.randrange(4) if depth else 0
    if kind == 0:
        return draw.choice(PARTS)
    inner = [a_pattern(draw, depth - 1) for _ in range(draw.randint(1, 3))]
    if kind == 1:
        return "".join(inner)
    return f"({'|'.join(inner)}){draw.choice(REPEATS) if kind == 2 else ''}"


def test_it_fits_what_re_fits() -> None:
    draw, fitted = random.Random(0), 0
    for _ in range(3000):
        text = a_pattern(draw, depth=2)
        pattern = PathPattern(text)
        for path in PATHS:
            wanted = re.fullmatch(text, path) is not None
            assert pattern.fits(path) == wanted, (text, path)
            fitted += wanted
    assert fitted > 1000  # else little was tried


@pytest.mark.parametrize(
    "text",
    ["(([a-z_.0-9])+)+!", "(.*)*!", "(.|.|.)*!", ".*.*.*.*.*.*.*.*.*.*.*!", "((a?){999}){999}b",
     "(?:a{1,60000}){1,60000}",
     "(((([a-z.]{0,99}){99}){99}){99})!", "(\\b|[a-z.]|[a-z]){4000000}!", LONG],
)  # fmt: skip
def test_patterns_that_run_on_in_other_ways_are_answered(text: str) -> None:
    pattern, start = PathPattern(text), time.process_time()
    for number in range(100):
        pattern.fits(f"model.layers.{number}.self_attn." + "a" * 30)
    assert time.process_time() - start < 5


def test_the_pattern_of_a_tool_fits_all_layers_of_a_large_model_in_its_steps() -> None:
    pattern = PathPattern(LONG)
    kinds = [
        "self_attn.q_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.down_proj",
        "input_layernorm",
        "mlp",
        "self_attn",
    ]
    fitting = [pattern.fits(f"model.layers.{number}.{kind}") for number in range(200) for kind in kinds]
    assert sum(fitting) == 800
    assert pattern.fits("model.language_model.layers.3.self_attn.q_proj")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(", "must be readable, got '\\('"),
        ("x" * 5001, "must have at most 5,000 characters, got 5,001"),
        ("(" * 2400 + ")" * 2400, "must be readable"),
        (r"(a)\1", "must have no groupref"),
        ("(?>a)", "must have no atomic_group"),
        ("a++", "must have no possessive_repeat"),
        ("(a)?(?(1)b|c)", "must have no groupref_exists"),
    ],
)
def test_what_cannot_be_followed_is_refused(text: str, message: str) -> None:
    with pytest.raises(AdapterError, match=f"a pattern of layers {message}"):
        PathPattern(text)
