"""What needs an extra says so in one sentence, with the command that installs it."""

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from support import ROOT

from engine import flow
from engine.blocks import MemoryStore, use_store
from engine.blocks.document import read_documents
from engine.blocks.notifications import AppriseNotification, SlackWebhook, Webhook
from engine.blocks.rotation import rotate_secrets
from engine.blocks.system import Secret
from engine.exceptions import MissingExtraError
from engine.settings import temporary_settings

KEY = "A" * 43 + "="
URL = "http://127.0.0.1:9/x"

LIBRARIES: Final = {
    "validate": ["pydantic"],
    "http": ["httpx2", "httpcore2"],
    "secrets": ["cryptography"],
    "notify": ["apprise"],
    "bench": ["matplotlib"],
}


def draw() -> None:
    importlib.import_module("engine.bench.plot").check_can_plot(Path("costs.svg"))


USES: Final[list[tuple[str, str, Callable[[], Any]]]] = [
    ("validate", "validate_parameters=True", lambda: flow(validate_parameters=True)(f)),
    ("http", "sending with SlackWebhook", lambda: SlackWebhook(url=URL).notify("b")),
    ("http", "sending with Webhook", lambda: Webhook(url=URL).notify("b")),
    ("http", "sending with Webhook webhook/w", lambda: Webhook.load("w").call()),
    (
        "notify",
        "sending with AppriseNotification",
        lambda: AppriseNotification(url=URL).notify("b"),
    ),
    (
        "secrets",
        "saving the secrets of block secret/y",
        lambda: Secret(value="v").save("y"),
    ),
    ("secrets", "reading the secrets of block secret/x", lambda: Secret.load("x")),
    ("secrets", "reading the secrets of block secret/x", rotate_secrets),
    (
        "secrets",
        "reading the secrets of block secret/x",
        lambda: read_documents(include_secrets=True),
    ),
    ("bench", "--plot", draw),
]


def f(x: int) -> int:
    return x


def take_away(monkeypatch: pytest.MonkeyPatch, extra: str) -> None:
    """Let the libraries of an extra be missing."""
    for library in LIBRARIES[extra]:
        for name in [name for name in sys.modules if name.startswith(f"{library}.")]:
            monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, library, None)


def test_every_extra_is_here() -> None:
    """One that is added to the project needs its sentence, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"].keys() - {"test", "dev"}
    assert extras == LIBRARIES.keys() == {extra for extra, _, _ in USES}


@pytest.mark.parametrize(("extra", "feature", "use"), USES)
def test_a_missing_extra_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    extra: str,
    feature: str,
    use: Callable[[], Any],
) -> None:
    """It names what was to be done, and the command that makes it possible."""
    with use_store(MemoryStore()), temporary_settings(secret_key=KEY):
        Secret(value="v").save("x")
        if extra == "http":  # which takes the key's library for its URL
            Webhook(url=URL).save("w")
        take_away(monkeypatch, extra)
        with pytest.raises(MissingExtraError) as caught:
            use()
    assert str(caught.value) == f"{feature} needs: pip install 'actor-engine[{extra}]'"


@pytest.mark.parametrize("extra", LIBRARIES)
def test_everything_can_be_imported_without_an_extra(extra: str) -> None:
    """Each module of the library but those that are imported at the use itself."""
    program = (
        "import sys, importlib\n"
        f"for name in {LIBRARIES[extra]!r}: sys.modules[name] = None\n"
        "for module in sys.argv[1:]: importlib.import_module(module)\n"
    )
    subprocess.run(
        [sys.executable, "-W", "error", "-c", program, *modules()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )


def modules() -> list[str]:
    """Return the public modules, and with them all that they import."""
    package = Path(importlib.import_module("engine").__file__ or "").parent
    names = ["blocks", "settings", "results"]
    names += [f"blocks.{path.stem}" for path in (package / "blocks").glob("[!_]*.py")]
    names += [path.stem for path in package.glob("[!_]*.py")]
    return [f"engine.{name}" for name in names if name != "blocks.guarded"]
