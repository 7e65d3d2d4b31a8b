"""The user's and the administrator's key, from the environment or a file: compared in constant time, never logged."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from harness.core.errors import ConfigError

USER_KEY = "ARC_BENCH_API_KEY"
ADMIN_KEY = "ARC_BENCH_ADMIN_KEY"


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The user's and the administrator's key; None if it is not set. Neither key opens the other's routes."""

    user: str | None
    admin: str | None

    @staticmethod
    def from_environment(env: Mapping[str, str]) -> Keys:
        """Read ARC_BENCH_API_KEY and ARC_BENCH_ADMIN_KEY, or the files named by these variables with _FILE appended.

        Raises:
            ConfigError: a key file cannot be read, or a key is shorter than 8 characters, not printable ASCII or has
                spaces.
        """
        return Keys(_key(env, USER_KEY), _key(env, ADMIN_KEY))

    def check_bind(self, host: str) -> None:
        """Refuse to listen beyond this machine without a key.

        Raises:
            ConfigError: ``host`` is not a loopback address and there is no user key.
        """
        if self.user is None and not is_loopback(host):
            raise ConfigError(
                f"--host {host}: a server that other machines can reach needs a key; set {USER_KEY} (and {ADMIN_KEY} "
                f"to change adapters from there) or {USER_KEY}_FILE, or leave --host out to listen on this machine only"
            )

    def opens(self, admin: bool, key: str | None) -> bool:
        """Return whether a key opens the administrator's (``admin``) or the user's routes.

        If only the user key is set, no key opens the administrator's routes.
        """
        if self.user is None and self.admin is None:
            return True
        expected = self.admin if admin else self.user
        if expected is None:
            return not admin
        return key is not None and hmac.compare_digest(key.encode(), expected.encode())


def bearer(header: str | None) -> str | None:
    """Return the key in an ``Authorization: Bearer KEY`` header, None without one."""
    scheme, _, key = (header or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


@lru_cache(maxsize=16)  # every request is checked, mostly with the same name
def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(env: Mapping[str, str], name: str) -> str | None:
    """Return the key in variable ``name`` or in the file that ``name``_FILE names; None if neither is set."""
    key = env.get(name)
    if path := env.get(f"{name}_FILE"):
        if key:
            raise ConfigError(f"{name} and {name}_FILE are both set; keep one")
        try:
            key = Path(path).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise ConfigError(f"{name}_FILE={path}: cannot be read as text: {type(error).__name__}") from error
    if key is None:
        return None
    if len(key) < 8 or not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigError(f"{name}: a key has at least 8 printable ASCII characters and no space")
    return key


def key_from_environment(name: str) -> str | None:
    """Return a key from this process's environment, for clients that send it; None if it is not set.

    Raises:
        ConfigError: as ``Keys.from_environment``.
    """
    return _key(os.environ, name)
