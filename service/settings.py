"""The settings of the service. Only this module reads the environment.

Each setting is the variable `ANAMNESIS_<NAME>`, or the key `<name>` of the TOML file that
`ANAMNESIS_CONFIG_FILE` names. The environment comes first. An empty value counts as unset, since
containers get one for `${VAR:-}`. But if a setting that protects the service is empty, the start
fails.
"""

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from service import addresses
from service.addresses import is_loopback
from service.environment import PREFIX, misspelt, settings_in
from service.settings_fields import SettingsFields
from service.settings_file import (
    CONFIG_FILE,
    BadSettings,
    cause,
    content,
    refuse_empty_guard,
    toml_source,
    variable,
)

MOST_SECONDS = 1_000_000  # eleven days; timeouts of the system hold at most 2**31 ms
MOST_OF_ANYTHING = 2**53  # Lua's numbers, which count in the store, are exact up to here

__all__ = ["BadSettings", "Settings", "is_loopback", "variable"]


class Settings(SettingsFields, BaseSettings):
    """How the processes run. How a detector works is in the detector's config."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True, allow_inf_nan=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments come before the environment, and the environment before the TOML file."""
        del dotenv_settings, file_secret_settings
        given = settings_in(os.environ)
        for name, value in given.items():
            refuse_empty_guard(name, value)
        assert isinstance(env_settings, EnvSettingsSource)
        env_settings.env_vars = {
            f"{PREFIX}{name}".lower(): value for name, value in given.items() if value
        }
        toml = toml_source(settings_cls, os.environ.get(CONFIG_FILE))
        return (init_settings, env_settings, *([toml] if toml else []))

    @classmethod
    def misspelt(cls) -> list[str]:
        """Return a message for each variable, and each key of the file, that is not a setting."""
        toml = toml_source(cls, os.environ.get(CONFIG_FILE))
        given = {*settings_in(os.environ), *(toml.toml_data if toml else ())}
        return list(misspelt(given - {"config_file"}, cls.model_fields))

    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Leave out empty values: an empty path would mean the current directory."""
        for name, value in values.items():
            refuse_empty_guard(name, value)
        return {name: value for name, value in values.items() if value != ""}

    @field_validator("*")
    @classmethod
    def _usable(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse numbers that timers, the system or Lua cannot hold, and text that is not UTF-8."""
        most = MOST_SECONDS if (info.field_name or "").endswith("_seconds") else MOST_OF_ANYTHING
        if isinstance(value, (int, float)) and value > most:
            raise ValueError(f"at most {most} is possible")
        if isinstance(value, (str, Path)) and any("\udc80" <= c <= "\udcff" for c in str(value)):
            raise ValueError("it is not UTF-8")
        return value

    def store_url(self) -> str | None:
        """Return the store's address with the names of the files of its password and authorities.

        The address may hold a password. Raises BadSettings if a client could not use it.
        """
        url, files, named = self.redis_url, {}, "redis_url"
        if url is None and self.redis_url_file is not None:
            named = "redis_url_file"
            url = self.text(named)
            if addresses.has_password(url):
                files = {addresses.URL_FILE: self.redis_url_file}
            if addresses.has_sentinel_password(url):
                files[addresses.SENTINEL_FILE] = self.redis_url_file
        if url is None:
            return None
        if self.redis_password_file is not None:
            if not self.text("redis_password_file"):
                name = variable("redis_password_file")
                raise BadSettings(f"{name}: {self.redis_password_file} is empty")
            files[addresses.PASSWORD_FILE] = self.redis_password_file
        try:
            return addresses.with_files(url, files, self.redis_ca_file)
        except ValueError as error:
            raise BadSettings(f"{variable(named)}: {error}") from None

    def text(self, name: str) -> str:
        """Return the text of the file that the setting `name` names. Raises BadSettings."""
        try:
            return self.content(name).decode().strip()
        except UnicodeDecodeError as error:
            raise BadSettings(f"{variable(name)}: {cause(getattr(self, name), error)}") from None

    def content(self, name: str) -> bytes:
        """Return the bytes of the file that the setting `name` names. Raises BadSettings."""
        file: Path = getattr(self, name)
        try:
            return content(file)
        except OSError as error:
            raise BadSettings(f"{variable(name)}: {cause(file, error)}") from None

    def environment(self, **more: str) -> dict[str, str]:
        """Return the environment for a child with these settings and the variables `more`."""
        values = self.model_dump(mode="json", exclude_none=True, exclude={"key"})
        ours = {f"ANAMNESIS_{name}".upper(): str(value) for name, value in values.items()}
        return {**os.environ, **ours, **more}
