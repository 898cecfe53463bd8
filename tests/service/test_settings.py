"""Settings: what is empty is unset, unless it guards something."""

import pytest

from service.settings import BadSettings, Settings

GUARDS = (
    "ADMIN_KEY_FILE", "KEY_FILE", "METRICS_KEY_FILE", "REDIS_PASSWORD_FILE", "SIGNING_KEY_FILE",
    "TLS_CERT", "TLS_KEY", "TRUSTED_KEYS_FILE",
)  # fmt: skip


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_is_an_unset_one(monkeypatch, name):
    """As compose gives it for `${VAR:-}`; one that guards a door ends the start by name."""
    monkeypatch.setenv(f"ANAMNESIS_{name.upper()}", "")
    if name.upper() in GUARDS:
        with pytest.raises(BadSettings, match=f"ANAMNESIS_{name.upper()} is set but empty"):
            Settings()
    else:
        assert Settings() == Settings.model_construct()


@pytest.mark.parametrize("value", ["metrics_dir = ''", "cache_dir = ''\nredis_url = ''"])
def test_an_empty_key_of_the_file_is_an_unset_one(monkeypatch, tmp_path, value):
    """An empty path is not the current directory."""
    (tmp_path / "anamnesis.toml").write_text(value)
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    assert Settings() == Settings.model_construct()


def test_an_empty_variable_leaves_the_file_its_say(monkeypatch, tmp_path):
    """What is unset in the environment is taken from the file."""
    (tmp_path / "anamnesis.toml").write_text("port = 8123")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    monkeypatch.setenv("ANAMNESIS_PORT", "")
    assert Settings().port == 8123


def test_an_empty_guard_in_the_file_ends_the_start(monkeypatch, tmp_path):
    """Wherever it stands."""
    (tmp_path / "anamnesis.toml").write_text("trusted_keys_file = ''")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    with pytest.raises(ValueError, match="ANAMNESIS_TRUSTED_KEYS_FILE is set but empty"):
        Settings()
