"""Where keys come from, and which addresses need one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.core.errors import ConfigError
from serve.keys import Keys, is_loopback


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("secret-from-file\n")
    keys = Keys.from_environment({"ARC_BENCH_API_KEY": "secret-one", "ARC_BENCH_ADMIN_KEY_FILE": str(path)})
    assert (keys.user, keys.admin) == ("secret-one", "secret-from-file")
    assert "secret" not in repr(keys)
    assert Keys.from_environment({"ARC_BENCH_API_KEY": "8-chars!"}).user == "8-chars!"
    for bad in (
        {"ARC_BENCH_API_KEY": ""},
        {"ARC_BENCH_API_KEY": "short"},
        {"ARC_BENCH_API_KEY": "7-chars"},
        {"ARC_BENCH_API_KEY": "with space"},
        {"ARC_BENCH_API_KEY": "long-enough", "ARC_BENCH_API_KEY_FILE": str(path)},
        {"ARC_BENCH_API_KEY_FILE": str(tmp_path / "nowhere")},
    ):
        with pytest.raises(ConfigError) as caught:
            Keys.from_environment(bad)
        assert "long-enough" not in str(caught.value)


def test_only_loopback_needs_no_key() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "127.8.8.8"):
        assert is_loopback(host)
        Keys(None, None).check_bind(host)
    for host in ("0.0.0.0", "", "::", "192.168.0.1", "example.org"):
        assert not is_loopback(host)
        with pytest.raises(ConfigError, match="ARC_BENCH_API_KEY"):
            Keys(None, None).check_bind(host)
        Keys("long-enough", None).check_bind(host)
