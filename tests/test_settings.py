"""Settings: each source over the weaker ones, and errors that name the source."""

import json
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextvars import copy_context
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.exceptions import EngineError
from engine.settings import (
    ENGINE_ALLOW_LOOPBACK_WEBHOOKS,
    ENGINE_API_URL,
    ENGINE_HOME,
    ENGINE_SECRET_KEY,
    IllTypedSettingError,
    NoHomeError,
    SecretStr,
    SettingsError,
    SettingsFileError,
    UnknownSettingError,
    describe_settings,
    get_current_settings,
    temporary_settings,
)
from engine.settings import home as home_module
from engine.settings import sources as sources_module

KEY = "A" * 43 + "="
OTHER_KEY = "B" * 42 + "A="
CANARY = "canary-4711"


@pytest.fixture(autouse=True)
def _clean_sources(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable, and a working directory without a file; its root is tmp_path."""
    for variable in [name for name in os.environ if name.startswith("ENGINE_")]:
        monkeypatch.delenv(variable)
    (tmp_path / ".git").mkdir()
    work = tmp_path / "a" / "b"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


# defaults


def test_without_any_source_the_defaults_are_in_force() -> None:
    settings = get_current_settings()
    assert settings.api.url is None
    assert settings.allow_loopback_webhooks is True
    assert settings.secret_key is None
    assert settings.home.name == "actor-engine"


def test_settings_are_frozen() -> None:
    with pytest.raises(AttributeError):
        get_current_settings().home = Path("/")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("platform", "variable", "value", "expected"),
    [
        ("linux", "XDG_DATA_HOME", "/data", "/data/actor-engine"),
        ("linux", "XDG_DATA_HOME", "", "/home/u/.local/share/actor-engine"),
        ("linux", "XDG_DATA_HOME", "relative", "/home/u/.local/share/actor-engine"),
        ("freebsd14", "XDG_DATA_HOME", "/data", "/data/actor-engine"),
        (
            "darwin", "XDG_DATA_HOME", "/data",
            "/home/u/Library/Application Support/actor-engine",
        ),
        ("win32", "LOCALAPPDATA", "/local", "/local/actor-engine"),
        ("win32", "LOCALAPPDATA", "", "/home/u/AppData/Local/actor-engine"),
    ],
)  # fmt: skip
def test_home_follows_the_convention_of_the_platform(
    monkeypatch: pytest.MonkeyPatch,
    platform: str,
    variable: str,
    value: str,
    expected: str,
) -> None:
    monkeypatch.setattr(home_module.sys, "platform", platform)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/u"))
    assert get_current_settings().home == Path(expected)


def test_without_a_home_directory_the_error_names_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def no_home() -> Path:
        raise RuntimeError("no home")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    with pytest.raises(NoHomeError, match="set ENGINE_HOME"):
        get_current_settings()
    monkeypatch.setenv("ENGINE_HOME", str(tmp_path))
    assert get_current_settings().home == tmp_path


def test_looking_at_settings_creates_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ENGINE_HOME", str(tmp_path / "home"))
    get_current_settings()
    list(describe_settings())
    assert not (tmp_path / "home").exists()


# environment


def test_variables_set_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_API_URL", " https://example.com/api ")
    monkeypatch.setenv("ENGINE_ALLOW_LOOPBACK_WEBHOOKS", "No")
    monkeypatch.setenv("ENGINE_HOME", "/srv/engine")
    monkeypatch.setenv("ENGINE_SECRET_KEY", f"{KEY},{OTHER_KEY}")
    settings = get_current_settings()
    assert settings.api.url == "https://example.com/api"
    assert settings.allow_loopback_webhooks is False
    assert settings.home == Path("/srv/engine")
    assert settings.secret_key == SecretStr(f"{KEY},{OTHER_KEY}")


def test_a_change_of_a_variable_is_seen_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_API_URL", "one")
    assert ENGINE_API_URL.value() == "one"
    monkeypatch.setenv("ENGINE_API_URL", "two")
    assert ENGINE_API_URL.value() == "two"


def test_an_empty_variable_counts_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_API_URL", "")
    monkeypatch.setenv("ENGINE_HOME", "")
    assert get_current_settings().api.url is None


def test_a_relative_home_starts_at_the_working_directory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_HOME", "state")
    assert get_current_settings().home == Path.cwd() / "state"


def test_a_tilde_is_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/u")
    monkeypatch.setenv("ENGINE_HOME", "~/state")
    assert get_current_settings().home == Path("/home/u/state")


def test_an_unknown_variable_is_an_error_that_guesses_and_hides_its_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_SECRET_KEYS", CANARY)
    with pytest.raises(UnknownSettingError) as caught:
        get_current_settings()
    assert str(caught.value) == (
        "there is no setting ENGINE_SECRET_KEYS (from the environment variable"
        " ENGINE_SECRET_KEYS), did you mean ENGINE_SECRET_KEY?"
    )


def test_an_unknown_variable_like_nothing_gets_no_guess(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_QWXZQW", "1")
    with pytest.raises(UnknownSettingError) as caught:
        get_current_settings()
    assert caught.value.similar is None
    assert "did you mean" not in str(caught.value)


def test_overrides_of_the_runtime_are_no_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE__RUNTIME__FLOW_RUN__NAME", "x")
    get_current_settings()


def test_an_ill_typed_variable_is_an_error_with_value_and_source(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_ALLOW_LOOPBACK_WEBHOOKS", "maybe")
    with pytest.raises(IllTypedSettingError) as caught:
        get_current_settings()
    assert str(caught.value) == (
        "ENGINE_ALLOW_LOOPBACK_WEBHOOKS must be true or false, got 'maybe' (from the"
        " environment variable ENGINE_ALLOW_LOOPBACK_WEBHOOKS)"
    )


@pytest.mark.parametrize(
    "value", ["a\nb", " ", "\x1b[31m"], ids=["two lines", "blank", "escape"]
)
def test_a_url_is_one_line_of_text(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("ENGINE_API_URL", value)
    with pytest.raises(IllTypedSettingError, match="one line of text"):
        get_current_settings()


def test_a_long_wrong_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGINE_ALLOW_LOOPBACK_WEBHOOKS", "x" * 1000)
    with pytest.raises(IllTypedSettingError) as caught:
        get_current_settings()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [CANARY, f"{KEY},{CANARY}", ",", "ä" * 44, KEY[:-1]])
def test_a_wrong_secret_is_masked_in_the_error_and_its_traceback(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("ENGINE_SECRET_KEY", value)
    with pytest.raises(IllTypedSettingError) as caught:
        get_current_settings()
    trace = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    text = "".join(trace.format()) + str(caught.value) + repr(caught.value)
    # This test's own frame holds the value, in the one line of its locals.
    ours = [line for line in text.splitlines() if not line.startswith("    value =")]
    assert value == "," or value not in "\n".join(ours)
    assert "**********" in str(caught.value)


# files


def test_the_nearest_file_above_the_working_directory_is_read(tmp_path: Path) -> None:
    write(tmp_path / "engine.toml", '[api]\nurl = "far"')
    assert get_current_settings().api.url == "far"
    write(tmp_path / "a" / "engine.toml", "allow_loopback_webhooks = false")
    settings = get_current_settings()
    assert settings.api.url is None
    assert settings.allow_loopback_webhooks is False


def test_a_table_in_pyproject_is_read(tmp_path: Path) -> None:
    write(tmp_path / "a" / "pyproject.toml", '[tool.engine.api]\nurl = "project"')
    assert get_current_settings().api.url == "project"


def test_engine_toml_wins_over_pyproject_beside_it(tmp_path: Path) -> None:
    write(tmp_path / "pyproject.toml", '[tool.engine.api]\nurl = "project"')
    write(tmp_path / "engine.toml", '[api]\nurl = "own"')
    assert get_current_settings().api.url == "own"


@pytest.mark.parametrize("text", ["", "[tool.other]\nx = 1", "tool = 3"])
def test_a_pyproject_without_the_table_does_not_end_the_search(
    tmp_path: Path, text: str
) -> None:
    write(tmp_path / "a" / "pyproject.toml", text)
    write(tmp_path / "engine.toml", '[api]\nurl = "far"')
    assert get_current_settings().api.url == "far"


def test_the_search_ends_at_the_root_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "a" / ".git").mkdir()
    write(tmp_path / "engine.toml", '[api]\nurl = "outside"')
    assert get_current_settings().api.url is None


def test_the_search_ends_at_the_root_of_the_file_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/")
    assert get_current_settings().api.url is None


def test_a_removed_working_directory_has_no_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert get_current_settings().api.url is None
    monkeypatch.setenv("ENGINE_HOME", "relative")
    with pytest.raises(IllTypedSettingError):
        get_current_settings()


def test_a_change_of_the_file_is_seen(tmp_path: Path) -> None:
    write(tmp_path / "engine.toml", '[api]\nurl = "one"')
    assert get_current_settings().api.url == "one"
    write(tmp_path / "engine.toml", '[api]\nurl = "three"')
    assert get_current_settings().api.url == "three"


def test_a_change_is_seen_that_leaves_size_and_time_as_they_were(
    tmp_path: Path,
) -> None:
    """The clock of a file system may tick a few hundred times a second only."""
    path = write(tmp_path / "engine.toml", '[api]\nurl = "one"')
    assert get_current_settings().api.url == "one"
    before = path.stat()
    write(path, '[api]\nurl = "two"')
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert get_current_settings().api.url == "two"


def test_a_file_that_has_settled_is_parsed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "engine.toml", '[api]\nurl = "one"')
    os.utime(path, (0, 0))
    assert get_current_settings().api.url == "one"
    monkeypatch.delattr(sources_module.tomllib, "loads")
    assert get_current_settings().api.url == "one"


def test_a_relative_path_in_a_file_starts_at_the_file(tmp_path: Path) -> None:
    write(tmp_path / "engine.toml", 'home = "state"')
    assert get_current_settings().home == tmp_path / "state"


def test_a_variable_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write(tmp_path / "engine.toml", '[api]\nurl = "file"')
    monkeypatch.setenv("ENGINE_API_URL", "variable")
    assert get_current_settings().api.url == "variable"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("nonsense = 1", "nonsense"),
        ("[api]\nnonsense = 1", "api.nonsense"),
        ('api_url = "x"', "api_url"),
        ("api = 1", "api"),
        ("[home]\nx = 1", "HOME"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_file(
    tmp_path: Path, text: str, name: str
) -> None:
    path = write(tmp_path / "engine.toml", text)
    with pytest.raises(SettingsError, match=name) as caught:
        get_current_settings()
    assert str(path) in str(caught.value)


def test_an_ill_typed_key_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "engine.toml", "allow_loopback_webhooks = 1")
    with pytest.raises(IllTypedSettingError) as caught:
        get_current_settings()
    assert caught.value.source == str(path)
    assert caught.value.value == "1"


def test_a_secret_in_a_file_is_masked(tmp_path: Path) -> None:
    write(tmp_path / "engine.toml", f'secret_key = "{KEY}"')
    assert KEY not in repr(get_current_settings())
    write(tmp_path / "engine.toml", f'secret_key = ["{CANARY}"]')
    with pytest.raises(IllTypedSettingError) as caught:
        get_current_settings()
    assert CANARY not in str(caught.value)


# In parts, so that the source lines that a traceback shows do not hold it.
SPLIT_CANARY = "canary" + "4711"


@pytest.mark.parametrize("file", ["engine.toml", "pyproject.toml"])
@pytest.mark.parametrize(
    "text",
    [
        "secret_key = '{key}'\nnonsense = 1",
        "secret_key = '{key}'\nallow_loopback_webhooks = 3",
        "secret_key = '{canary}'",
        "secret_key = ['{canary}']",
        "secret_key = {{a = '{canary}'}}",
        "secret_key = '{canary}",
        "secret_key = '{canary}' '{canary}'",
    ],
)
def test_a_secret_in_a_file_is_in_no_traceback_either(
    tmp_path: Path, file: str, text: str
) -> None:
    # A valid key, so that it is another line of the file that is wrong.
    key = SPLIT_CANARY.ljust(43, "A") + "="
    table = "[tool.engine]\n" if file == "pyproject.toml" else ""
    write(tmp_path / file, table + text.format(key=key, canary=SPLIT_CANARY))
    error = error_of(get_current_settings)
    assert SPLIT_CANARY not in everything_about(error)


@pytest.mark.parametrize("kind", [str, str.encode, lambda text: [text]])
def test_a_wrong_temporary_secret_is_in_no_traceback(
    kind: Callable[[str], object],
) -> None:
    given = {"by name": kind(SPLIT_CANARY), "by setting": kind(SPLIT_CANARY)}

    def by_name() -> None:
        with temporary_settings(secret_key=given["by name"]):
            pass

    def by_setting() -> None:
        with temporary_settings({ENGINE_SECRET_KEY: given.pop("by setting")}):
            pass

    for use in (by_name, by_setting):
        error = error_of(use)
        given.clear()  # ours, which the frames above would show
        assert isinstance(error, IllTypedSettingError)
        assert SPLIT_CANARY not in everything_about(error)
        given["by setting"] = kind(SPLIT_CANARY)


def error_of(use: Callable[[], object]) -> SettingsError:
    try:
        use()
    except SettingsError as error:
        return error
    raise AssertionError("there was no error")


def everything_about(error: BaseException) -> str:
    """Return all that a traceback can show: chain, locals, fields."""
    trace = traceback.TracebackException.from_exception(error, capture_locals=True)
    return f"{''.join(trace.format())} {error!r} {error.args}"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("engine.toml", b"= 1"),
        ("engine.toml", b"\xff"),
        ("pyproject.toml", b"[tool"),
        ("pyproject.toml", b"[tool]\nengine = 1"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SettingsFileError) as caught:
        get_current_settings()
    assert str(tmp_path / name) in str(caught.value)


def test_a_file_that_cannot_be_opened_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "engine.toml").mkdir()
    with pytest.raises(SettingsFileError, match=r"engine\.toml"):
        get_current_settings()


# temporary settings


def test_temporary_settings_win_over_everything_and_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_API_URL", "variable")
    with temporary_settings(api_url="temporary") as settings:
        assert settings.api.url == "temporary"
        assert get_current_settings().api.url == "temporary"
        with temporary_settings(api_url=None, allow_loopback_webhooks=False):
            assert get_current_settings().api.url is None
        assert get_current_settings().allow_loopback_webhooks is True
    assert get_current_settings().api.url == "variable"


def test_temporary_settings_take_the_setting_or_its_variable_as_key() -> None:
    with temporary_settings({ENGINE_API_URL: "x", "ENGINE_HOME": "/h"}) as settings:
        assert (settings.api.url, settings.home) == ("x", Path("/h"))


def test_temporary_settings_end_with_an_exception() -> None:
    with pytest.raises(KeyError), temporary_settings(api_url="x"):
        raise KeyError
    assert get_current_settings().api.url is None


def test_a_wrong_temporary_setting_names_its_source() -> None:
    with (
        pytest.raises(IllTypedSettingError, match=r"from temporary_settings\(\)"),
        temporary_settings(home=3),
    ):
        pass
    with (
        pytest.raises(UnknownSettingError, match="did you mean ENGINE_API_URL"),
        temporary_settings(api_urls="x"),
    ):
        pass


def test_a_setting_that_needs_a_value_cannot_be_none() -> None:
    with pytest.raises(IllTypedSettingError), temporary_settings(home=None):
        pass


async def test_concurrent_tasks_do_not_see_each_others_settings() -> None:
    seen: dict[str, str | None] = {}
    both_inside = anyio.Event()

    async def look(name: str) -> None:
        with temporary_settings(api_url=name):
            if len(seen) == 1:
                both_inside.set()
            seen[name] = None
            await both_inside.wait()
            seen[name] = get_current_settings().api.url

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(look, "one")
        tasks.start_soon(look, "two")
    assert seen == {"one": "one", "two": "two"}


async def test_a_worker_thread_sees_its_callers_settings() -> None:
    with temporary_settings(api_url="x"):
        assert await anyio.to_thread.run_sync(ENGINE_API_URL.value) == "x"


def test_only_a_thread_with_a_copied_context_sees_them() -> None:
    seen: list[str | None] = []

    def look() -> None:
        seen.append(ENGINE_API_URL.value())

    with temporary_settings(api_url="x"):
        context = copy_context()
        for target in (look, lambda: context.run(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, "x"]


# the objects


def test_a_setting_reads_well_in_an_f_string() -> None:
    with temporary_settings(api_url="x.org"):
        assert f"https://{ENGINE_API_URL}/runs" == "https://x.org/runs"
        assert f"{ENGINE_API_URL:>7}" == "  x.org"
    assert f"{ENGINE_API_URL}" == "None"
    assert repr(ENGINE_API_URL) == "<Setting ENGINE_API_URL>"


def test_each_setting_gives_its_value() -> None:
    with temporary_settings(secret_key=KEY, home="/h"):
        assert ENGINE_HOME.value() == Path("/h")
        assert ENGINE_ALLOW_LOOPBACK_WEBHOOKS.value() is True
        secret = ENGINE_SECRET_KEY.value()
        assert secret is not None
        assert secret.get_secret_value() == KEY
        assert f"{ENGINE_SECRET_KEY}" == "**********"


def test_describing_names_every_value_and_its_source(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write(tmp_path / "engine.toml", "allow_loopback_webhooks = false")
    monkeypatch.setenv("ENGINE_HOME", "/h")
    with temporary_settings(secret_key=KEY):
        rows = [tuple(row) for row in describe_settings()]
    assert rows == [
        ("ENGINE_API_URL", "None", "default"),
        ("ENGINE_HOME", "/h", "the environment variable ENGINE_HOME"),
        ("ENGINE_ALLOW_LOOPBACK_WEBHOOKS", "False", str(path)),
        ("ENGINE_SECRET_KEY", "**********", "temporary_settings()"),
    ]


def test_a_path_is_described_without_what_would_move_a_cursor() -> None:
    with temporary_settings(home="/h\x1b[31m"):
        rows = {row.name: row.value for row in describe_settings()}
    assert rows["ENGINE_HOME"] == repr("/h\x1b[31m")


def test_errors_survive_pickling() -> None:
    for error in (
        UnknownSettingError("a", "b", "c"),
        IllTypedSettingError("a", "b", "c", "d"),
        SettingsFileError(Path("a"), "b"),
        NoHomeError(),
    ):
        copied = pickle.loads(pickle.dumps(error))
        assert str(copied) == str(error)
        assert isinstance(copied, EngineError)


def test_importing_the_engine_imports_no_settings() -> None:
    code = (
        "import sys, engine;"
        "print([name for name in sys.modules"
        " if name.startswith(('engine.settings', 'engine.blocks'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


# secrets


def test_a_secret_shows_itself_nowhere() -> None:
    secret = SecretStr(CANARY)
    assert CANARY not in f"{secret} {secret!r} {[secret]} {secret:>40}"
    assert secret.get_secret_value() == CANARY


def test_secrets_compare_by_their_text() -> None:
    assert SecretStr("a") == SecretStr("a")
    assert SecretStr("a") != SecretStr("b")
    assert SecretStr("a") != "a"
    assert len({SecretStr("a"), SecretStr("a")}) == 1
    assert SecretStr("\ud800") == SecretStr("\ud800")


def test_an_empty_secret_is_false_and_not_masked() -> None:
    assert not SecretStr("")
    assert (str(SecretStr("")), bool(SecretStr("x"))) == ("", True)


def test_a_secret_can_be_made_of_another_kind_of_secret() -> None:
    class Foreign:
        def get_secret_value(self) -> str:
            return "x"

    assert SecretStr(Foreign()) == SecretStr(SecretStr("x")) == SecretStr("x")


def test_a_secret_of_something_else_is_an_error_that_does_not_show_it() -> None:
    with pytest.raises(TypeError, match=r"a secret is a str, not bytes$"):
        SecretStr(CANARY.encode())


# fuzz

VARIABLES = st.sampled_from(
    ["API_URL", "HOME", "ALLOW_LOOPBACK_WEBHOOKS", "SECRET_KEY", "X", ""]
)


def outcome(use: Callable[[], object]) -> str | None:
    """Return what the error said; None if there was none."""
    try:
        use()
    except SettingsError as error:
        return str(error)
    return None


class Odd:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise LookupError


TEXTS = st.text().filter(lambda text: "\0" not in text)


@given(suffix=VARIABLES, value=TEXTS)
def test_any_variable_gives_settings_or_a_clear_error(suffix: str, value: str) -> None:
    variable = f"ENGINE_{suffix}"
    try:
        os.environ[variable] = value
    except UnicodeEncodeError:
        return  # the platform has no such variables
    try:
        said = outcome(get_current_settings)
    finally:
        del os.environ[variable]
    assert said is None or variable in said


@given(
    name=st.sampled_from(["api_url", "home", "secret_key", "allow_loopback_webhooks"]),
    value=st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
        st.lists(st.text()), st.just(Path("x")), st.builds(SecretStr, st.text()),
        st.builds(Odd),
    ),
)  # fmt: skip
def test_any_temporary_value_gives_settings_or_a_clear_error(
    name: str, value: object
) -> None:
    def use() -> None:
        with temporary_settings({f"ENGINE_{name.upper()}": value}):
            list(describe_settings())

    said = outcome(use)
    assert said is None or f"ENGINE_{name.upper()} must be" in said


@given(content=st.one_of(st.binary(), st.text().map(str.encode)))
def test_any_file_gives_settings_or_a_clear_error(content: bytes) -> None:
    # In the working directory that the fixture has made, for all examples.
    path = Path.cwd() / "engine.toml"
    path.write_bytes(content)
    said = outcome(get_current_settings)
    assert said is None or str(path) in said


TOML_VALUES = st.recursive(
    st.booleans() | st.integers() | st.text() | st.just(KEY) | st.floats(),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=3,
).map(json.dumps)
TOML_KEYS = st.sampled_from(
    ["home", "secret_key", "allow_loopback_webhooks", "api_url", "url", "x", '"a.b"']
)


@given(lines=st.lists(st.tuples(TOML_KEYS, TOML_VALUES)), group=st.integers(0, 8))
def test_any_table_gives_settings_or_a_clear_error(
    lines: list[tuple[str, str]], group: int
) -> None:
    path = Path.cwd() / "engine.toml"
    text = [f"{key} = {value}" for key, value in dict(lines).items()]
    text.insert(group, "[api]")
    path.write_text("\n".join(text), "utf-8")
    said = outcome(get_current_settings)
    assert said is None or str(path) in said
