from __future__ import annotations

import numpy as np

from paretune.rl.recent import RECENT, Recent


def test_the_last_completions_are_kept_and_what_is_older_is_forgotten() -> None:
    draws = np.random.default_rng(0)
    rewards, kl = draws.random((RECENT + 70, 2)), draws.random(RECENT + 70)
    recent = Recent.none(2)
    for start in range(0, len(kl), 64):
        recent = recent.followed_by(rewards[start : start + 64], kl[start : start + 64])
    found = recent.estimate()
    assert found["counted"] == RECENT
    np.testing.assert_allclose(found["returns"], rewards[70:].mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found["kl"], kl[70:].mean(), rtol=1e-12)


def test_missing_rewards_are_left_out_by_objective_and_their_kl_counts() -> None:
    rewards = np.asarray([[0.5, np.nan], [np.nan, np.nan], [0.25, np.nan]])
    found = Recent.none(2).followed_by(rewards, np.asarray([1.0, 2.0, 6.0])).estimate()
    assert found == {"returns": [0.375, None], "kl": 3.0, "counted": 3}


def test_before_any_completion_nothing_is_known() -> None:
    assert Recent.none(2).estimate() == {"returns": [None, None], "kl": None, "counted": 0}
