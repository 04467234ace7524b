"""``python -m engine config`` prints every setting and where it came from."""

import base64
import json
from pathlib import Path

import pytest

from engine.cli import main
from engine.settings import describe_settings


@pytest.fixture(autouse=True)
def away_from_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)


def test_each_setting_has_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """The table names every setting, and the default as its source."""
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    for row in describe_settings():
        assert row.name in printed
    assert "default" in printed


def test_a_value_names_its_source_and_secrets_are_masked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the environment gives says so; a secret is never printed."""
    monkeypatch.setenv("ENGINE_API_URL", "https://engine.example")
    key = base64.urlsafe_b64encode(b"a canary of thirty-two bytes ...").decode()
    monkeypatch.setenv("ENGINE_SECRET_KEY", key)
    assert main(["config", "--json"]) == 0
    printed = capsys.readouterr().out
    rows = {row["setting"]: row for row in json.loads(printed)}
    assert rows["ENGINE_API_URL"]["value"] == "https://engine.example"
    assert "environment" in rows["ENGINE_API_URL"]["source"]
    assert key not in printed


def test_json_has_types(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value is null and a truth is a truth; a text that says so is a text."""
    monkeypatch.setenv("ENGINE_ALLOW_LOOPBACK_WEBHOOKS", "no")

    def values() -> dict[str, object]:
        assert main(["config", "--json"]) == 0
        rows = json.loads(capsys.readouterr().out)
        return {row["setting"]: row["value"] for row in rows}

    assert values()["ENGINE_API_URL"] is None
    assert values()["ENGINE_SECRET_KEY"] is None
    assert values()["ENGINE_ALLOW_LOOPBACK_WEBHOOKS"] is False
    assert isinstance(values()["ENGINE_HOME"], str)
    monkeypatch.setenv("ENGINE_API_URL", "None")
    assert values()["ENGINE_API_URL"] == "None"


def test_a_bad_setting_is_one_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown variable gives exit code 2 and a line that names it."""
    monkeypatch.setenv("ENGINE_NO_SUCH_THING", "1")
    assert main(["config"]) == 2
    error = capsys.readouterr().err
    assert "ENGINE_NO_SUCH_THING" in error
    assert "Traceback" not in error
