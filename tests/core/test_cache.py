from __future__ import annotations

from pathlib import Path

import pytest

from paretune.core.cache import cache_folder
from paretune.core.errors import ConfigError


def test_the_cache_lies_where_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    for name in ("PARETUNE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder("speed") == Path("/home/me/.cache/paretune/speed")
    monkeypatch.setenv("XDG_CACHE_HOME", "/data/cache")
    assert cache_folder("speed") == Path("/data/cache/paretune/speed")
    monkeypatch.setenv("PARETUNE_CACHE", "~/mine")
    assert cache_folder("speed") == Path("/home/me/mine/speed")


@pytest.mark.parametrize("variable", ["PARETUNE_CACHE", "XDG_CACHE_HOME"])
def test_the_home_of_nobody_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("PARETUNE_CACHE", raising=False)
    monkeypatch.setenv(variable, "~nobodyx/y")
    with pytest.raises(ConfigError, match="must name the home of a user, got '~nobodyx/y"):
        cache_folder("speed")
