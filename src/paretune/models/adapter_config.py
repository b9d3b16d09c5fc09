"""`adapter_config.json` of PEFT: every field of it is understood, or the adapter is refused by the field's name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from paretune.core.errors import AdapterError
from paretune.core.limits import MAX_PATTERN
from paretune.core.text_files import parsed_json
from paretune.core.user_calls import shown
from paretune.models.path_patterns import PathPattern

CONFIG: Final = "adapter_config.json"
ALL_LINEAR: Final = "all-linear"  # PEFT's word for every linear layer but the output head
PATTERN: Final = f"a regular expression of at most {MAX_PATTERN:,} characters without references to groups"
BLOCKS_NAME: Final = re.compile(r"[\w.]+")  # PEFT reads it as a pattern, and so is it read here
LARGEST_ALPHA: Final = 1e30  # beyond, products with fp32 factors overflow


def _flag(value: object) -> bool:
    return value is None or isinstance(value, bool)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(low: float, high: float) -> Callable[[object], bool]:
    """Tell numbers of a range from others, and from NaN."""
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and low <= value <= high


def _text(value: object) -> bool:
    return value is None or isinstance(value, str)


def _names(value: object) -> bool:
    """Whether a value is a list of names or a pattern that can be matched."""
    if isinstance(value, str):
        try:
            PathPattern(value)
        except AdapterError:
            return False
        return bool(value)
    return isinstance(value, list) and bool(value) and all(isinstance(each, str) and each for each in value)


def _block_names(value: object) -> bool:
    names = [value] if isinstance(value, str) else value
    return isinstance(names, list) and all(isinstance(each, str) and BLOCKS_NAME.fullmatch(each) for each in names)


def _off(value: object) -> bool:
    return value is None or value is False or (isinstance(value, (str, list, dict)) and not value)


Rule = tuple[Callable[[Any], bool], str]
NEEDED: Final[dict[str, Rule]] = {
    "peft_type": (lambda value: value == "LORA", "LORA"),
    "r": (lambda value: _whole(value) and 1 <= value < 2**31, "a whole number from 1 on"),
    "lora_alpha": (_number(-LARGEST_ALPHA, LARGEST_ALPHA), "a finite number"),
    "target_modules": (_names, f"a list of layer names, {PATTERN} or {ALL_LINEAR}"),
}
UNDERSTOOD: Final[dict[str, Rule]] = {
    **NEEDED,
    "task_type": (lambda value: value in (None, "CAUSAL_LM"), "CAUSAL_LM or null"),
    "bias": (lambda value: value == "none", "none: biases are not trained here"),
    "init_lora_weights": (
        lambda value: value is True or value is False or value in ("gaussian", "orthogonal"),
        "true, false, gaussian or orthogonal: others start from a changed base model",
    ),
    "use_rslora": (_flag, "true or false"),
    "exclude_modules": (lambda value: _off(value) or _names(value), f"null, layer names or {PATTERN}"),
    "layers_to_transform": (
        lambda value: value is None or all(map(_whole, value if isinstance(value, list) else [value])),
        "null, a whole number or a list of them",
    ),
    "layers_pattern": (
        lambda value: _off(value) or _block_names(value),
        "null, a name or a list of names: letters, digits, _ and dots",
    ),
    "revision": (lambda value: value in (None, "main"), "null or main: the base model is read at its main revision"),
    # what does not change what a trained adapter computes
    "base_model_name_or_path": (_text, "a name or null"),
    "peft_version": (_text, "a text or null"),
    "auto_mapping": (lambda value: value is None or isinstance(value, dict), "keys and values, or null"),
    "inference_mode": (_flag, "true or false"),
    "fan_in_fan_out": (_flag, "true or false"),  # PEFT takes what fits the layer's class, whatever it says
    "lora_dropout": (_number(0, 1), "a number from 0 to 1"),  # only while PEFT trains
    "qalora_group_size": (_whole, "a whole number"),  # of no effect without use_qalora
    "megatron_core": (_text, "a text or null"),  # of no effect without megatron_config
}
"""Fields that are read, or that change nothing, with what each must be. Any other field must be off: null, false or
empty. So must those of PEFT that change the formula `y = W x + s B A x`, and those that it may still invent."""


@dataclass(frozen=True)
class AdapterConfig:
    """What a folder says of its adapter.

    Attributes:
        rank: Rank r of each pair of factors.
        scale: What a product B A is multiplied by.
        base: Name of its base model; None where it does not say.
        targets: Names of the layers that are adapted, a pattern of their whole paths, or `ALL_LINEAR`.
        excluded: The same of layers that are not, though they are targets.
        blocks: Numbers of the blocks that are adapted; empty for all.
        blocks_names: What the list of blocks is called; empty for any name.
    """

    rank: int
    scale: float
    base: str | None
    targets: str | tuple[str, ...]
    excluded: str | tuple[str, ...] = ()
    blocks: tuple[int, ...] = ()
    blocks_names: tuple[str, ...] = ()

    def adapted(self, modules: Sequence[str], linear: Sequence[str]) -> set[str]:
        """Return the paths of the layers that PEFT adapts.

        Args:
            modules: Paths of all modules of the base model.
            linear: Paths of its linear layers but the output head.

        Raises:
            AdapterError: If a pattern takes too many steps.

        Source:
            `check_target_module_exists` of PEFT 0.21.
        """
        if isinstance(self.targets, str) and self.targets.lower() == ALL_LINEAR:
            chosen = set(linear)
        else:
            fits = _fitting(self.targets)
            chosen = {path for path in modules if fits(path) and self._in_blocks(path)}
        left_out = _fitting(self.excluded)
        return {path for path in chosen if not (self.excluded and left_out(path))}

    def _in_blocks(self, path: str) -> bool:
        if not self.blocks or path in self.targets:  # a whole path is adapted wherever it lies
            return True
        names = self.blocks_names or (r"[^.]*",)
        start = r".*?\." if not self.blocks_names else r"(?:^|.*?\.)"
        found = (re.match(rf"{start}{name}\.(?P<number>\d+)\.", path) for name in names)
        number = next((int(each["number"]) for each in found if each is not None), None)
        return number in self.blocks


def _fitting(names: str | tuple[str, ...]) -> Callable[[str], bool]:
    """Return what tells whether a path is one of a list of names, or fits a pattern."""
    if isinstance(names, str):
        return PathPattern(names).fits
    return lambda path: any(path == name or path.endswith(f".{name}") for name in names)


def read_config(folder: Path) -> AdapterConfig:
    """Read `adapter_config.json`.

    Raises:
        AdapterError: If it cannot be read, or a field has a value that is not understood.
    """
    try:
        config = parsed_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:  # no JSON, and no UTF-8, are both a ValueError
        raise AdapterError(f"adapter '{folder}' must be readable, got: {error}. Copy or train it again.") from error
    if not isinstance(config, dict):
        raise AdapterError(
            f"adapter '{folder}' must be readable, got: {CONFIG} without keys and values. Copy it again."
        )
    _check(config, folder)
    rank, blocks = config["r"], config.get("layers_to_transform")
    pattern = config.get("layers_pattern") or ()
    return AdapterConfig(
        rank,
        config["lora_alpha"] / (math.sqrt(rank) if config.get("use_rslora") else rank),
        config.get("base_model_name_or_path"),
        _frozen(config["target_modules"]),
        _frozen(config.get("exclude_modules") or ()),
        () if blocks is None else tuple(blocks) if isinstance(blocks, list) else (blocks,),
        (pattern,) if isinstance(pattern, str) else tuple(pattern),
    )


def _frozen(names: str | Sequence[str]) -> str | tuple[str, ...]:
    return names if isinstance(names, str) else tuple(names)


def _check(config: Mapping[str, Any], folder: Path) -> None:
    for name in NEEDED:
        if name not in config:
            raise AdapterError(f"{name} of adapter '{folder}' must be in its {CONFIG}, got nothing. Copy it again.")
    for name, value in config.items():
        allowed, rule = UNDERSTOOD.get(name, (_off, "off (null, false or empty): only plain LoRA is computed here"))
        if not allowed(value):
            raise AdapterError(
                f"{name} of adapter '{folder}' must be {rule}, got {shown(value)}. Train it without, or merge it into "
                "its base model with PEFT's merge_and_unload."
            )
    listed = not isinstance(config["target_modules"], str)
    blocks, pattern = config.get("layers_to_transform"), config.get("layers_pattern")
    if (blocks is not None and not listed) or (pattern and not blocks and blocks != 0):
        raise AdapterError(
            f"layers_to_transform of adapter '{folder}' must come with a list of target_modules, and layers_pattern "
            f"with it, got {shown(config['target_modules'])}, {shown(blocks)} and {shown(pattern)}. Correct "
            "it: PEFT refuses it too."
        )
