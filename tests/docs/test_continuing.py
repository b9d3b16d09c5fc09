"""The code of docs/continuing.md for experts from elsewhere, as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import small_task


@pytest.mark.parametrize(("mixer", "level"), [('Mixer("log_probs")', "log_probs"), ("Mixer()", "adapters")])
def test_adapters_that_peft_wrote_are_served_and_scored(
    tmp_path: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mixer: str,
    level: str,
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from paretune.models.solutions import load_solutions

    page = (root / "docs" / "continuing.md").read_text(encoding="utf-8")
    code = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", page, re.DOTALL))
    base = small_task.write_task(tmp_path / "my_task")
    for name in ("first", "second"):
        config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
        get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(tmp_path / "adapters" / name)
    monkeypatch.chdir(tmp_path)
    exec(code["serve"].replace('Mixer("log_probs")', mixer), {})
    assert load_solutions("mine").mixer.level == level
    exec(code["score"], {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3  # a line for each preference
    rewards = [[float(each) for each in re.findall(r"\d\.\d*", line.split("]")[-2])] for line in lines]
    assert all(abs(sum(each) - 1) < 1e-6 for each in rewards)  # what one objective gives the other takes
