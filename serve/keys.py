"""The keys of clients and administrators, from a file or the environment: compared in constant time, never logged."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.core.errors import ConfigError

USER_KEY = "ARC_BENCH_API_KEY"
ADMIN_KEY = "ARC_BENCH_ADMIN_KEY"


@dataclass(frozen=True, slots=True, repr=False)
class Keys:
    """The user's and the administrator's key; None where a kind needs none. Neither opens what is the other's."""

    user: str | None
    admin: str | None

    @staticmethod
    def from_environment(env: Mapping[str, str]) -> Keys:
        """Read ARC_BENCH_API_KEY and ARC_BENCH_ADMIN_KEY, or the files that the same names with _FILE point to.

        Raises:
            ConfigError: a key file cannot be read, or a key is empty, short (under 8) or not printable ASCII.
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

    def opens(self, admin: bool, shown: str | None) -> bool:
        """Whether the key shown opens an administrator's or a user's route.

        With a user key but no administrator's key, the administrator's routes stay shut.
        """
        if self.user is None and self.admin is None:
            return True
        wanted = self.admin if admin else self.user
        if wanted is None:
            return not admin
        return shown is not None and hmac.compare_digest(shown.encode(), wanted.encode())


def bearer(header: str | None) -> str | None:
    """The key in an ``Authorization: Bearer KEY`` header."""
    scheme, _, key = (header or "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" and key.strip() else None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _key(env: Mapping[str, str], name: str) -> str | None:
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
    """The key of this process's own environment, for the clients that need to show one."""
    return _key(os.environ, name)
