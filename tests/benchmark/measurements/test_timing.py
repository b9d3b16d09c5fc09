from __future__ import annotations

from paretune.benchmark.measurements.timing import interleave


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
