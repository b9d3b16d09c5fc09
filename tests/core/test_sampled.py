from __future__ import annotations

import threading

from paretune.core.sampled import counting_samples, note_sampled


def test_completions_are_counted_in_the_innermost_block_and_nowhere_else() -> None:
    note_sampled(1)
    with counting_samples() as outer:
        note_sampled(2)
        with counting_samples() as inner:
            note_sampled(4)
        note_sampled(8)
    note_sampled(16)
    assert (outer.completions, inner.completions) == (10, 4)


def test_what_another_thread_samples_is_not_counted() -> None:
    with counting_samples() as sampled:
        other = threading.Thread(target=note_sampled, args=(3,))
        other.start()
        other.join()
    assert sampled.completions == 0
