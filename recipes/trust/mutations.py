"""Mutations of what users write: of trees of keys and values, of the text that holds them, and of its bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

DEEP = 1500


class Raw(str):
    """Text that stands in a file as it is."""

    __slots__ = ()


class Pairs(list[list[Any]]):
    """A mapping as [key, value] pairs, which may repeat a key."""


def pairs(value: Any) -> Any:
    """Return a tree in which mappings are pairs."""
    if isinstance(value, dict):
        return Pairs([[key, pairs(item)] for key, item in value.items()])
    return [pairs(item) for item in value] if isinstance(value, list) else value


NUMBERS = (
    *("0", "-1", "1", "2", "3", "1.5", "-0.0", "1e-320", "0.1", "1e-2", "1e2", "2147483648", "9223372036854775807"),
    *("9223372036854775808", "18446744073709551616", "1000000000000000000", "1e18", "1e20", "1e308", "1e400", "-1e400"),
    *("1000", "100000", "NaN", "Infinity", "-Infinity", "9" * 5000, "1" + "0" * 400, "0.1" + "0" * 5000 + "1"),
)
YAML_TOKENS = (
    *(".nan", ".inf", "-.inf", "0o17", "017", "0x1F", "0b11", "1_000", "190:20:30", "1:30", "yes", "no", "on", "off"),
    *(
        "!!int abc",
        "!!float x",
        "!!bool 2",
        "!!timestamp x",
        "!!binary '@'",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!null x",
    ),
    *("!!python/object/apply:os.system ['true']", "!x y", "!!str", "!!map []", "!!seq {}", "2001-02-30", "2001-01-01"),
    *("~", "=", "<<", "*a", "&a [*a]", "&a {b: *a}", "|\n x", "? [a]\n: b", "? {a: b}\n: c", "'", '"', "@", "`", "%"),
    *("{<<: 1}", "{<<: [1]}", "{<<: {a: 1}}", "{[1]: 2}", "{null: 1}", "{1: 2, 1: 3}", "{true: 1}", "{1.0: 2, 1: 3}"),
    *("2001-01-01T25:61:61Z", "!!int ''", "!!int 0x", "!!float ''", "\t", "- a", "---", "...", "# only a comment"),
    *("!!int 9:99:" + "9" * 400, "+", "-", ".", "!!float .", "!!int -", "!!timestamp 2001-99-99", "!!merge x"),
)
TEXTS = (
    *("", " ", "\n", "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "\x07", "\x7f", "\u202eabc", "\ufeff", "\ud800", "\udcff"),
    *("\U0010ffff", "é" * 300, "a" * 300, "a" * 100_000, "~", "~nobody", "~nobody/x", "../x", "./", ".", "..", "/"),
    *(
        "/dev/null",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/environ",
        "a/" * 3000,
        "x" * 256 + ".jsonl",
        "train.jsonl",
    ),
    *(
        "module:Class",
        ":",
        "a:b:c",
        "hub:",
        "hub:a:b:c:d",
        "hub:no/such",
        "os:getcwd",
        "sys:exit",
        "json:loads",
        "a.b:c",
    ),
    *("builtins:int", "builtins:print", "builtins:quit", "paretune:run", "paretune.cli.main:main", ":x", "x:", ".x:y"),
    *(
        "{prompt}",
        "{prompt",
        "{}",
        "{0}",
        "{prompt!r}",
        "{prompt.__class__}",
        "{prompt:>1000000000}",
        "{x}",
        "%s%n",
        "$HOME",
    ),
    *("=1+1", "@x", "-x", "linear", "counselling", "controlled", "controlled-rho-9-l999", "controlled-rho-nan", "auto"),
    *("None", "true", "NaN", "1", "1e3", "[1, 2]", "<b>&amp;", "a,b", "a;b", '"', "'", "\\", "\\x", "\r", "task.yaml"),
)
KEYS = (
    "",
    " ",
    "name",
    "model",
    "__class__",
    "__init__",
    "a.b",
    "a/b",
    "\x00",
    "\x1b[2J",
    "\ud800",
    "a" * 300,
    "0",
    "..",
)


def nasty(random: Random, yaml: bool) -> Any:
    """Draw a value that somebody may not have thought of."""
    kinds: list[Callable[[], Any]] = [
        lambda: Raw(random.choice(NUMBERS)),
        lambda: Raw(random.choice(NUMBERS)),
        lambda: random.choice(TEXTS),
        lambda: random.choice(TEXTS),
        lambda: random.choice((None, True, False)),
        lambda: random.choice(([], Pairs(), [[]], [None], [1, 2], Pairs([["a", 1]]), [True, 1.0, "x"], [[1], [2]])),
        lambda: bomb(random, yaml),
    ]
    if yaml:
        kinds += [lambda: Raw(random.choice(YAML_TOKENS)), lambda: Raw(random.choice(YAML_TOKENS))]
    return random.choice(kinds)()


def bomb(random: Random, yaml: bool) -> Raw:
    """Make a value that is small to write and large or deep to read."""
    deep = random.choice((100, DEEP, 20 * DEEP))
    kinds = ["[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "[" * deep, "[" + "1," * 100_000 + "1]"]
    if yaml:
        level, aliases = random.choice((5, 9, 30)), random.choice((2, 9))
        laughs = ["&l0 [x, x]", *(f"&l{i} [{', '.join([f'*l{i - 1}'] * aliases)}]" for i in range(1, level))]
        merges = ["&m0 {a: 1}", *(f"&m{i} {{<<: [{', '.join([f'*m{i - 1}'] * aliases)}]}}" for i in range(1, level))]
        kinds += [f"[{', '.join(laughs)}]", f"[{', '.join(merges)}]", "{? " * deep, "!!set " * deep + "{}"]
        kinds.append("{" + ", ".join(f"k{i}: 1" for i in range(5000)) + "}")
    return Raw(random.choice(kinds))


def mutate_tree(tree: Any, random: Random, yaml: bool, notes: list[str]) -> Any:
    """Change one to three places of a tree."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return nasty(random, yaml)
        holder, index = random.choice(places)
        in_mapping = isinstance(holder, Pairs)
        acts = ["replace"] * 6 + ["delete", "duplicate", "wrap", "swap", "many"] + ["rename", "add"] * in_mapping
        act = random.choice(acts)
        notes.append(f"{act} {holder[index][0] if in_mapping else index!r}"[:60])
        value = holder[index][1] if in_mapping else holder[index]
        if act == "delete":
            del holder[index]
            continue
        if act == "duplicate":
            holder.insert(index, list(holder[index]) if in_mapping else holder[index])
            continue
        if act == "rename":
            others = [key for key, _ in holder] + [str(holder[index][0]) + "x", Raw("[1]"), Raw("null"), Raw("1.5")]
            holder[index][0] = random.choice([*KEYS, *others])
            continue
        if act == "add":
            holder.append([random.choice(KEYS), nasty(random, yaml)])
            continue
        if act == "replace":
            value = nasty(random, yaml)
        elif act == "wrap":
            value = random.choice(([value], Pairs([["a", value]]), [[value, value]]))
        elif act == "swap":
            other, at = random.choice(places)
            value = pairs(json.loads(emit(other[at][1] if isinstance(other, Pairs) else other[at], False, True)))
        elif act == "many":
            count = random.choice((100, 5000))
            several = isinstance(value, Pairs) and value
            value = Pairs([[f"k{i}", value[0][1]] for i in range(count)]) if several else [value] * count
        if in_mapping:
            holder[index][1] = value
        else:
            holder[index] = value
    return tree


def _places(tree: Any) -> Any:
    """Yield each place of a tree as what holds it and its index there."""
    if isinstance(tree, list):
        for index, item in enumerate(tree):
            yield tree, index
            yield from _places(item[1] if isinstance(tree, Pairs) else item)


def emit(value: Any, ascii_only: bool, plain: bool = False) -> str:
    """Write a tree as JSON, which YAML reads too; `plain` quotes raw texts, so that the result is always JSON."""
    if isinstance(value, Raw):
        return json.dumps(str(value)[:1000]) if plain else str(value)
    if isinstance(value, Pairs):
        keys = (key if isinstance(key, str) else str(key) for key, _ in value)
        items = (item for _, item in value)
        inside = (f"{emit(key, ascii_only, plain)}: {emit(item, ascii_only, plain)}" for key, item in zip(keys, items))
        return "{" + ", ".join(inside) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(emit(item, ascii_only, plain) for item in value) + "]"
    return json.dumps(value, ensure_ascii=ascii_only)


def emit_yaml(tree: Any, random: Random) -> str:
    """Write a tree as YAML whose first levels are in blocks, as people write it."""
    ascii_only = random.random() < 0.5

    def block(value: Any, indent: str, levels: int) -> str:
        if isinstance(value, Pairs) and value and levels:
            lines = (f"{indent}{_key(key, ascii_only)}:{block(item, indent + '  ', levels - 1)}" for key, item in value)
            return ("\n" if indent else "") + "\n".join(lines)
        return " " * bool(indent) + emit(value, ascii_only)

    return block(tree, "", random.choice((0, 1, 1, 2, 3))) + "\n"


def _key(key: Any, ascii_only: bool) -> str:
    return key if isinstance(key, str) and key.isidentifier() else emit(key, ascii_only)


def encode(text: str) -> bytes:
    """Return the bytes of a text, half of a character included."""
    half = "surrogateescape" if any("\udc80" <= sign <= "\udcff" for sign in text) else "surrogatepass"
    try:
        return text.encode("utf-8", half)
    except UnicodeEncodeError:  # halves of both sorts
        return text.encode("utf-8", "surrogatepass")


def mutate_bytes(data: bytes, random: Random, notes: list[str]) -> bytes:
    """Change a file's bytes in one way."""
    made: dict[str, Callable[[], bytes]] = {
        "flip a bit": lambda: _at(data, random, lambda byte: bytes([byte[0] ^ 1 << random.randrange(8)])),
        "flip bytes": lambda: b"".join(bytes([random.randrange(256)]) if random.random() < 0.02 else data[i : i + 1]
                                       for i in range(len(data))),
        "cut": lambda: data[: random.randrange(len(data) + 1)],
        "cut the beginning": lambda: data[random.randrange(len(data) + 1) :],
        "empty": lambda: b"",
        "insert": lambda: _at(data, random, lambda byte: byte + random.choice(JUNK)),
        "begin with": lambda: random.choice(JUNK) + data,
        "end with": lambda: data + random.choice(JUNK),
        "double": lambda: data + data,
        "double a line": lambda: _lines(data, random, lambda lines, at: lines.insert(at, lines[at])),
        "drop a line": lambda: _lines(data, random, lambda lines, at: lines.pop(at)),
        "indent a line": lambda: _lines(data, random, lambda lines, at: lines.insert(at, b"  " + lines.pop(at))),
        "swap lines": lambda: _lines(data, random, lambda lines, at: lines.append(lines.pop(at))),
        "windows": lambda: data.replace(b"\n", b"\r\n"),
        "old mac": lambda: data.replace(b"\n", b"\r"),
        "one line": lambda: data.replace(b"\n", b" "),
        "utf-16": lambda: data.decode("utf-8", "replace").encode("utf-16"),
        "utf-32": lambda: data.decode("utf-8", "replace").encode("utf-32-le"),
        "latin-1": lambda: data.replace(b"a", b"\xe4"),
        "random": lambda: random.randbytes(random.choice((1, 10, 1000, 100_000))),
    }  # fmt: skip
    name = random.choice(sorted(made))
    notes.append(name)
    return made[name]() if data or name in ("random", "begin with") else JUNK[1]


JUNK = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xed\xa0\x80",
        b"\x1b[31m",
        b"\n\n",
        b"\t",
        b'"',
        b"'",
        b"{",
        b"}",
        b"[",
        b"]",
    ),
    *(
        b":",
        b",",
        b"\r",
        b"\x85",
        b"\xe2\x80\xa8",
        b"- ",
        b"#",
        b"&a ",
        b"*a ",
        b"!!",
        b"---\n",
        b"...\n",
        b"\xf4\x90\x80\x80",
    ),
    *(b"%YAML 9.9\n---\n", b"%TAG ! x\n", b"\x08", b"\x7f", b"\xc2\x80", b"; ", b"PAR1", b"a" * 70_000, b" " * 70_000),
)


def _at(data: bytes, random: Random, change: Callable[[bytes], bytes]) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + change(data[at : at + 1]) + data[at + 1 :]


def _lines(data: bytes, random: Random, change: Callable[[list[bytes], int], object]) -> bytes:
    lines = data.split(b"\n")
    change(lines, random.randrange(len(lines)))
    return b"\n".join(lines)
