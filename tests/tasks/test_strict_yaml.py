from __future__ import annotations

import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from paretune.core.checks import user_path
from paretune.core.errors import ConfigError
from paretune.core.limits import MAX_NESTING, MAX_YAML_BYTES
from paretune.tasks.strict_yaml import Place, read_value, read_yaml, to_yaml

LAUGHS = 'a: &a ["lol","lol","lol","lol","lol","lol","lol","lol","lol"]\n' + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{{', '.join(f'{key}{name}: *{before}' for key in 'pqrstuvw')}}}\n"
    for before, name in zip("abcdefgh", "bcdefghi")
)

REFUSED = {
    "octal": ("a: 1\nb: 010", "2:4: b must be a plain number, got 010. Write it without the leading 0, or quotes"),
    "octal with a sign": ("a: -07", "1:4: a must be a plain number, got -07"),
    "leading zero of a decimal": ("a: 00.5", "1:4: a must be a plain number"),
    "octal of 1.2": ("a: 0o17", "1:4: a must be a decimal number"),
    "hexadecimal": ("a: 0x1F", "1:4: a must be a decimal number, got 0x1F"),
    "binary": ("a: 0b11", "1:4: a must be a decimal number"),
    "sexagesimal": ("a: 1:30", "1:4: a must be a plain number, got 1:30. Write it without colons"),
    "sexagesimal of three": ("a: [2, 190:20:30.15]", "1:8: a.1 must be a plain number, got 190:20:30.15"),
    "underscores": ("a: 1_000", "1:4: a must be a plain number, got 1_000. Write it without '_'"),
    "underscores in an exponent": ("a: 1.5_0e1_0", "1:4: a must be a plain number"),
    "yes": ("a: {b: yes}", "1:8: a.b must be true, false or text in quotes, got yes. Write true or false"),
    "NO": ("a: NO", "1:4: a must be true, false or text in quotes, got NO"),
    "on in a list": ("- on", "1:3: 0 must be true, false or text in quotes, got on"),
    "Off": ("a: Off", "1:4: a must be true, false or text in quotes, got Off"),
    "infinity": ("a: .inf", "1:4: a must be a finite number, got .inf"),
    "minus infinity": ("a: -.INF", "1:4: a must be a finite number"),
    "not a number": ("a: .NaN", "1:4: a must be a finite number"),
    "beyond a double": ("a: 1e400", "1:4: a must be a number that fits 64 bits, got 1e400"),
    "lost in a double": ("a: -1.5e-400", "1:4: a must be a number that fits 64 bits"),
    "beyond 64 bits": ("a: 9223372036854775808", "1:4: a must be at most 9223372036854775807, got 9223372036854775808"),
    "5,000 digits": (f"a: {'9' * 5000}", "1:4: a must be at most 9223372036854775807, got '999.* \\(5,002 characters"),
    "tag of a number": ("a: !!int abc", "1:4: a must have no tag, got !!int. Remove it: a value is what it looks like"),
    "tag of text": ("a: !!str 5", "1:4: a must have no tag, got !!str"),
    "tag of Python": ("a: !!python/object:os.system x", "1:4: a must have no tag, got !!python/object:os.system"),
    "own tag": ("a: !mine {b: 1}", "1:4: a must have no tag, got !mine"),
    "bare tag": ("a: ! 3", "1:4: a must have no tag, got !"),
    "tag on a key": ("!!str a: 3", "1:1 must have keys that are text, got another kind"),
    "tag of everything": ("!!set {a: 1}", "1:1 must have no tag, got !!set"),
    "key that is a list": ("? [a]\n: b", "1:3 must have keys that are text, got another kind"),
    "key twice": ("a:\n  b: 1\n  b: 2", "3:3: a.b must be given once, got it again after line 2. Remove one"),
    "key twice in two forms": ("a: 1\n'a': 2", "2:1: a must be given once, got it again after line 1"),
    "merged twice": ("a: &a {x: 1}\nb:\n  <<: *a\n  <<: *a", "4:3: b.<< must be given once"),
    "merged with a number": ("a: 3\nb: {<<: 3}", "2:5: b.<< must name keys and values to take over, got another kind"),
    "alias of itself": ("a: &m {x: *m}", "1:11: a.x must name what stands whole above it, got \\*m"),
    "alias of nothing": ("a: *m", "1:4: a must name what stands whole above it, got \\*m"),
    "aliases that grow": (LAUGHS, "must have at most 1,000,000 characters with its aliases written out, got more"),
    "mappings that grow": (MERGES, "must have at most 1,000,000 characters with its aliases written out, got more"),
    "lists 1,500 deep": ("a: " + "[" * 1500, f"1:36 must be nested at most {MAX_NESTING} deep, got more"),
    "mappings 1,500 deep": ("{a: " * 1500, f"must be nested at most {MAX_NESTING} deep"),
    "blocks 1,500 deep": ("- " * 1500, f"must be nested at most {MAX_NESTING} deep"),
    "indented 500 deep": ("".join(" " * n + "a:\n" for n in range(500)), f"must be nested at most {MAX_NESTING} deep"),
    "too large": ("a: " + "x" * MAX_YAML_BYTES, "must be at most 262,144 bytes, the limit of a settings file"),
    "NUL": ('a: "b\\0"', "1:4: a must be text without NUL or half a surrogate pair, got 'b\\\\x00'"),
    "NUL in a key": ('"b\\0": 1', "1:1 must be text without NUL"),
    "half a pair": ('a: "\\ud800"', "1:4: a must be text without NUL or half a surrogate pair, got '\\\\ud800'"),
    "a control character": ("a: 1\nb: \x07", "2:4 must be text without control characters, got \\\\x07. Remove it"),
    "not UTF-8": (b"a: 1\nb: sch\xf6n\n", "2 must be UTF-8 text, got the byte 0xf6"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "1 must be UTF-8 text, got the byte 0xff"),
    "two documents": ("a: 1\n---\nb: 2", "2:1 must hold one document, got another after ---"),
    "open quotes": ("a: 'b", "must be YAML, got an error"),
    "a tab": ("a:\n\tb: 1", "2:1 must be YAML, got an error"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_what_it_looks_like_is_refused_with_line_and_column(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    file = tmp_path / "task.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"^{file}.*{message}") as raised:
        read_yaml(file)
    assert time.perf_counter() - began < 5
    assert len(str(raised.value).splitlines()) == 1
    assert len(str(raised.value)) < 500


READ = {
    "0": 0, "-0": 0, "12": 12, "+12": 12, "-3": -3, "9223372036854775807": 2**63 - 1, "1e3": 1000.0, "1E-2": 0.01,
    ".5": 0.5, "5.": 5.0, "-1.5e+3": -1500.0, "0.0": 0.0, "0e5": 0.0, "true": True, "FALSE": False, "null": None,
    "~": None, "": None, "2024-01-01": "2024-01-01", "2001-12-14 21:59:43": "2001-12-14 21:59:43", "1.2.3": "1.2.3",
    "1e": "1e", "e3": "e3", "12 apples": "12 apples", "'010'": "010", '"yes"': "yes", "'1:30'": "1:30", "y": "y",
    "n": "n", "nan": "nan", "inf": "inf", "yesterday": "yesterday", "rewards:brief": "rewards:brief", "=": "=",
    "a_1": "a_1", "_1": "_1", "[1, '1', true]": [1, "1", True], "{1: 2, no: 3}": {"1": 2, "no": 3},
}  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ.items(), ids=READ.keys())
def test_a_value_is_what_it_looks_like(text: str, value: object) -> None:
    read = read_value(text, "--set a")
    assert (type(read), read) == (type(value), value)


def test_a_refused_value_of_an_option_is_named_by_the_option() -> None:
    with pytest.raises(ConfigError, match=r"^--set a must be a plain number, got 010\. "):
        read_value("010", "--set a")
    with pytest.raises(ConfigError, match=r"^--set a\.b\.1 must be true, false or text in quotes, got yes\. "):
        read_value("{b: [1, yes]}", "--set a")
    with pytest.raises(ConfigError, match=r"^--set a must have at most 262,144 characters, got 300,000"):
        read_value("x" * 300_000, "--set a")


def test_a_mapping_taken_over_gives_way_to_what_stands_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_text("one: &o {a: 1, b: 2}\ntwo: &t {b: 3}\nthree: {<<: [*o, *t], a: 4}\nfour: {'<<': 5}\n")
    data, place = read_yaml(file)
    assert data["three"] == {"a": 4, "b": 2}  # the first named wins, as YAML's merge says
    assert data["four"] == {"<<": 5}
    assert place.at("three", "a") == f"{file}:3:23: three.a"
    assert place.at("three", "b") == f"{file}:3:1: three.b"  # it stands nowhere in there


def test_a_byte_order_mark_and_windows_lines_are_no_content(tmp_path: Path) -> None:
    file = tmp_path / "task.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: x\r\n")
    assert read_yaml(file)[0] == {"a": 1, "b": {"c": "x"}}


def test_settings_are_written_so_that_they_read_the_same() -> None:
    draw = random.Random(0)
    texts = ["yes", "010", "1:30", "1_0", ".inf", "~", "", "a: b", "a #b", "- a", "'", '"', "\x85\u2028\x7f", "\n"]
    texts += [
        "2024-01-01",
        "<<",
        "*a",
        "&a",
        "!a",
        "a:",
        " a ",
        "\ufeff",
        "rewards:brief",
        "./x",
        "null",
        "1e3",
        "é 😀",
    ]

    def some(depth: int) -> Any:
        kind = draw.randrange(7 if depth < 4 else 5)
        if kind == 5:
            return [some(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 6:
            return {draw.choice(texts): some(depth + 1) for _ in range(draw.randrange(3))}
        number = draw.uniform(-1, 1) * 10.0 ** draw.randrange(-30, 30)
        return (None, draw.choice([True, False]), draw.randrange(-9, 10**12), draw.choice(texts), number)[kind]

    for _ in range(300):
        data = {"a": some(0), "b": some(0)}
        text = to_yaml(data)
        assert read_value(text, "text") == data
    assert yaml.safe_load(to_yaml({"a": ["x", 3, "yes"]})) == {"a": ["x", 3, "yes"]}  # for other readers too


def test_what_yaml_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"settings must be numbers, text, lists and mappings, got PosixPath"):
        to_yaml({"a": Path("b")})
    deep: list[Any] = []
    deep.append(deep)
    with pytest.raises(ConfigError, match="settings must be nested at most 32 deep"):
        to_yaml(deep)
    assert to_yaml({"a": [math.inf, -math.inf, math.nan]}) == "a:\n  - .inf\n  - -.inf\n  - .nan\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [("~nobody_of_that_name/x", "must name the home of a user"), ("a\0b", "NUL"), ("a\ud800", "without NUL")],
)
def test_a_path_that_cannot_be_is_refused(tmp_path: Path, path: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Place("task.yaml", tmp_path).resolve(path)
    with pytest.raises(ConfigError, match=message):
        user_path(path)
