from __future__ import annotations

from pathlib import Path

import numpy as np

import micro_task
from paretune.benchmark.measurements.timing import decoded, interleave
from paretune.core.prompt_format import PromptFormat
from paretune.core.protocols import Mixer


def test_decoders_take_turns_after_one_call_to_warm_up_and_rates_are_tokens_per_second() -> None:
    calls: list[str] = []
    now = 0.0

    def decoder(name: str, tokens: int, seconds: float):  # type: ignore[no-untyped-def]
        def decode() -> int:
            nonlocal now
            calls.append(name)
            now += seconds
            return tokens

        return decode

    rates = interleave([decoder("mixed", 100, 2.0), decoder("base", 100, 1.0)], 3, lambda: now)
    assert calls == ["mixed", "base"] * 4
    assert rates == [(50.0, 50.0, 50.0), (100.0, 100.0, 100.0)]


def test_a_gate_that_reads_prompts_reads_them_in_every_timed_repeat(tmp_path: Path) -> None:
    from paretune.models.bank import ExpertBank
    from paretune.models.loading import load_base, unwrap
    from paretune.models.policy import Policy
    from paretune.models.prompt_gate import PromptGate

    base = load_base(str(micro_task.save_model(tmp_path / "model")), device="cpu")
    bank = ExpertBank(base, 2, rank=2)
    gate, even = PromptGate(bank, 2, 0), np.array([[0.5, 0.5]])
    mixer = Mixer(gate=tmp_path / "gate.safetensors")
    policy = Policy(base, bank, PromptFormat("{prompt}"), 4, 2, even, ["combined"], even, mixer, gate)
    passes: list[int] = []
    hook = base.model.base_model.register_forward_pre_hook(lambda module, given: passes.append(1))
    counts = []
    for _ in range(3):
        passes.clear()
        assert decoded(policy, ["a", "b", "a"], 0) == 3 * 2  # three replies of the longest completion
        counts.append(len(passes))
    hook.remove()
    unwrap(base)
    # prompts of one token are read by the base model in one pass, then under the experts; then a pass a token
    assert counts == [counts[0]] * 3
    assert counts[0] == 1 + 2
