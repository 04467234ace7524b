"""A home of its own for each test, and a receiver of webhooks."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from webhook_receiver import Receiver


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ENGINE_HOME, which does not exist yet; no other setting is set."""
    for variable in [name for name in os.environ if name.startswith("ENGINE_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "engine-home"
    monkeypatch.setenv("ENGINE_HOME", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    # A short poll: closing waits for the server to notice.
    thread = threading.Thread(target=receiver.server.serve_forever, args=(0.01,))
    thread.start()
    yield receiver
    receiver.closing.set()
    receiver.server.shutdown()
    receiver.server.server_close()
    thread.join()
