"""Reads the TOML file of the settings, and reports settings that are not valid."""

import errno
import os
import tomllib
from pathlib import Path

from pydantic_settings import BaseSettings, TomlConfigSettingsSource

from service.environment import PREFIX

CONFIG_FILE = f"{PREFIX}CONFIG_FILE"
# If one of these were empty and ignored, the service would be less protected than intended.
_GUARDS = (
    "admin_key_file", "key_file", "metrics_key_file", "redis_password_file", "signing_key_file",
    "tls_cert", "tls_key", "trusted_keys_file", "webhook_secret_file",
)  # fmt: skip


_MOST_BYTES = 2**20  # of a file with keys or certificates


class BadSettings(ValueError):  # noqa: N818 - it states what is wrong
    """A setting is not valid. The message names the setting and never its value."""


def variable(name: str) -> str:
    """Return the name of the environment variable of the setting `name`."""
    return f"{PREFIX}{name.upper()}"


def toml_source(settings: type[BaseSettings], named: str | None) -> TomlConfigSettingsSource | None:
    """Return the settings file, if one is named. Raises BadSettings if it cannot be read."""
    if not named:
        return None
    file = Path(named)
    try:
        if not file.is_file():
            raise BadSettings(f"{CONFIG_FILE}: there is no file {file}")
        return TomlConfigSettingsSource(settings, file)
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{CONFIG_FILE}: {cause(file, error)}") from None
    except tomllib.TOMLDecodeError as error:
        raise BadSettings(f"{CONFIG_FILE}: {file} is not TOML: {error}") from None


def refuse_empty_guard(name: str, value: object) -> None:
    """Raise BadSettings if a setting that protects the service is set but empty."""
    if name in _GUARDS and isinstance(value, str) and not value.strip():
        raise BadSettings(f"{variable(name)} is set but empty: name a file, or do not set it")


def content(file: Path) -> bytes:
    """Return the bytes of a file that a setting names, at most 1 MiB. Raises OSError.

    A named pipe without a writer counts as empty, because waiting for a writer may never end.
    """
    handle = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "rb") as opened:
        data = opened.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(errno.EFBIG, "it has more than 1 MiB")
    return data


def cause(file: Path, error: OSError | UnicodeDecodeError) -> str:
    """Return why a file cannot be used, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        return f"{file} is not text"
    return f"{file} cannot be read: {error.strerror}"
