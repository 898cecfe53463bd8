"""Settings: an empty value is unset, unless it protects something."""

import os

import pytest

from service.settings import BadSettings, Settings, variable

GUARDS = (
    "ADMIN_KEY_FILE", "KEY_FILE", "METRICS_KEY_FILE", "REDIS_PASSWORD_FILE", "SIGNING_KEY_FILE",
    "TLS_CERT", "TLS_KEY", "TRUSTED_KEYS_FILE", "WEBHOOK_SECRET_FILE",
)  # fmt: skip


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    """Remove the variables of whoever runs the tests, such as ANAMNESIS_DATA of the benchmarks."""
    for name in [name for name in os.environ if name.startswith("ANAMNESIS_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_counts_as_unset(monkeypatch, name):
    """An empty variable counts as unset; if it protects something, the start is refused."""
    monkeypatch.setenv(f"ANAMNESIS_{name.upper()}", "")
    if name.upper() in GUARDS:
        with pytest.raises(BadSettings, match=f"ANAMNESIS_{name.upper()} is set but empty"):
            Settings()
    else:
        assert Settings() == Settings.model_construct()


@pytest.mark.parametrize("value", ["metrics_dir = ''", "cache_dir = ''\nredis_url = ''"])
def test_an_empty_path_in_the_file_counts_as_unset(monkeypatch, tmp_path, value):
    """An empty path in the file is unset, and not the current directory."""
    (tmp_path / "anamnesis.toml").write_text(value)
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    assert Settings() == Settings.model_construct()


def test_the_file_counts_if_a_variable_is_empty(monkeypatch, tmp_path):
    """If a variable is empty, the file's value counts."""
    (tmp_path / "anamnesis.toml").write_text("port = 8123")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    monkeypatch.setenv("ANAMNESIS_PORT", "")
    assert Settings().port == 8123


def test_an_empty_guard_in_the_file_ends_the_start(monkeypatch, tmp_path):
    """An empty setting that protects something ends the start, in the file too."""
    (tmp_path / "anamnesis.toml").write_text("trusted_keys_file = ''")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    with pytest.raises(ValueError, match="ANAMNESIS_TRUSTED_KEYS_FILE is set but empty"):
        Settings()


LINKS = {
    "ANAMNESIS_PORT": "tcp://10.0.0.7:8000",
    "ANAMNESIS_SERVICE_HOST": "10.0.0.7",
    "ANAMNESIS_SERVICE_PORT": "8000",
    "ANAMNESIS_SERVICE_PORT_HTTP": "8000",
    "ANAMNESIS_PORT_8000_TCP": "tcp://10.0.0.7:8000",
    "ANAMNESIS_PORT_8000_TCP_ADDR": "10.0.0.7",
    "ANAMNESIS_API_SERVICE_HOST": "10.0.0.8",
    "ANAMNESIS_API_PORT": "tcp://10.0.0.8:8000",
}


def test_variables_of_a_kubernetes_service_are_ignored(monkeypatch):
    """Variables of a Kubernetes Service named `anamnesis` are ignored without a message."""
    for name, value in LINKS.items():
        monkeypatch.setenv(name, value)
    assert Settings() == Settings.model_construct()
    assert Settings.misspelt() == []


def test_a_kubernetes_variable_does_not_replace_the_port(monkeypatch, tmp_path):
    """The file's port counts, although the platform uses the variable's name."""
    (tmp_path / "anamnesis.toml").write_text("port = 8123")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    monkeypatch.setenv("ANAMNESIS_PORT", LINKS["ANAMNESIS_PORT"])
    assert Settings().port == 8123


def test_misspelt_names_are_named_with_the_nearest_setting(monkeypatch, tmp_path):
    """A misspelt name in environment or file is reported with the most similar setting."""
    (tmp_path / "anamnesis.toml").write_text("prot = 8123\nport = 8124")
    monkeypatch.setenv("ANAMNESIS_CONFIG_FILE", str(tmp_path / "anamnesis.toml"))
    monkeypatch.setenv("ANAMNESIS_ADMIN_KEYFILE", "secret")
    monkeypatch.setenv("ANAMNESIS_WHATEVER", "secret")
    assert Settings.misspelt() == [
        "ANAMNESIS_ADMIN_KEYFILE is not a setting; perhaps ANAMNESIS_ADMIN_KEY_FILE is meant",
        "ANAMNESIS_PROT is not a setting; perhaps ANAMNESIS_PORT is meant",
        "ANAMNESIS_WHATEVER is not a setting",
    ]
    assert Settings().port == 8124


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_only_a_port_may_have_the_value_of_a_kubernetes_service(monkeypatch, name):
    """Another setting with such a value is refused; its default does not replace it."""
    monkeypatch.setenv(variable(name), "tcp://10.0.0.7:8000")
    if name == "port":
        assert Settings().port == Settings.model_fields["port"].default
        return
    try:
        value = str(getattr(Settings(), name))
    except ValueError as error:
        value = str(error)
    assert "10.0.0.7:8000" in value or name in value


def test_a_path_may_have_a_backslash(monkeypatch):
    """A path may have a backslash and the letters that Python writes for bytes outside UTF-8."""
    monkeypatch.setenv("ANAMNESIS_CACHE_DIR", "/tmp/\\udcff")
    assert str(Settings().cache_dir) == "/tmp/\\udcff"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_text_that_is_not_utf_8_is_refused(monkeypatch, name):
    """Text that is not UTF-8 is refused, because no address and no log could have it."""
    monkeypatch.setenv(variable(name), "\udcff")
    with pytest.raises(ValueError, match=name):
        Settings()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, field in Settings.model_fields.items()
        if field.annotation in (int, float, int | None)
    ],
)
def test_a_number_without_a_sensible_size_is_refused(monkeypatch, name):
    """A number that timers or the store's scripts cannot hold ends the start."""
    monkeypatch.setenv(variable(name), "1" + "0" * 20)
    with pytest.raises(ValueError, match=name):
        Settings()


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
def test_an_infinite_time_is_refused(monkeypatch, value):
    """An infinite number of seconds is refused by the setting's name."""
    monkeypatch.setenv("ANAMNESIS_IDLE_SECONDS", value)
    with pytest.raises(ValueError, match="idle_seconds"):
        Settings()
