"""The app's settings: defaults, unknown members, broken files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anywire.errors import ConfigError, InvalidRequest
from anywire_desktop.app_files import AppFiles


def test_defaults_are_those_of_the_app(tmp_path: Path) -> None:
    settings = AppFiles(tmp_path / "new").read_settings()
    assert {name: settings[name] for name in ("maxTokens", "contextSize", "temperature", "serverPort")} == {
        "maxTokens": 2048,
        "contextSize": 8192,
        "temperature": 0.7,
        "serverPort": 8080,
    }
    assert settings["chatHistoryLimit"] == 50
    assert not (tmp_path / "new").exists(), "reading writes nothing"


def test_what_is_saved_is_read_and_unknown_members_stay(tmp_path: Path) -> None:
    files = AppFiles(tmp_path)
    files.write_settings({"theme": "dark", "myOwn": {"a": [1]}})
    files.write_settings({"maxTokens": 100})
    settings = AppFiles(tmp_path).read_settings()
    assert (settings["theme"], settings["maxTokens"], settings["myOwn"]) == ("dark", 100, {"a": [1]})
    assert json.loads((tmp_path / "config.json").read_text()) == settings
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert files.reset_settings()["theme"] == "system"
    assert AppFiles(tmp_path).read_settings()["maxTokens"] == 2048


def test_wrong_values_are_refused_and_change_nothing(tmp_path: Path) -> None:
    files = AppFiles(tmp_path)
    files.write_settings({"maxTokens": 100})
    with pytest.raises(InvalidRequest, match="maxTokens"):
        files.write_settings({"maxTokens": "many", "theme": "dark"})
    assert files.read_settings()["theme"] == "system"


@pytest.mark.parametrize("content", ["{", "[]", "\xff", '{"maxTokens": "many"}', "[" * 100_000])
def test_a_broken_file_is_told_and_can_be_reset(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    files = AppFiles(tmp_path)
    with pytest.raises(ConfigError, match=r"config\.json"):
        files.read_settings()
    assert files.reset_settings()["maxTokens"] == 2048
    assert files.read_settings()["maxTokens"] == 2048


def test_the_mode_of_a_file_stays_and_a_link_too(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text("{}")
    real.chmod(0o640)
    (tmp_path / "config.json").symlink_to(real)
    AppFiles(tmp_path).write_settings({"theme": "dark"})
    assert (tmp_path / "config.json").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert json.loads(real.read_text())["theme"] == "dark"


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        AppFiles(tmp_path / "file").write_settings({})


def test_models_lie_where_the_settings_say(tmp_path: Path) -> None:
    files = AppFiles(tmp_path)
    assert files.models_folder() == tmp_path / "models"
    files.write_settings({"modelsDirectory": "/elsewhere"})
    assert files.models_folder() == Path("/elsewhere")
