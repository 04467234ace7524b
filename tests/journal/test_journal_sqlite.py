"""The file of a journal: whose it is, and what is no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import Engine, flow
from engine.journal import JournalError, SQLiteJournal

pytestmark = pytest.mark.anyio


@flow
async def log_in(password: str) -> str:
    return password


@pytest.fixture
def _mask_of_most_systems() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Return who may do what with each file of a folder."""
    return {
        file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in folder.iterdir()
    }


@pytest.mark.skipif(os.name != "posix", reason="elsewhere files have no modes")
@pytest.mark.usefixtures("_mask_of_most_systems")
async def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """The arguments of runs are in it, and in what SQLite puts beside it."""
    path = tmp_path / "journal.db"
    async with Engine(journal=f"sqlite:///{path}") as engine:
        assert await engine.run(log_in, "secret") == "secret"
        names = ["journal.db", "journal.db-shm", "journal.db-wal", "journal.db.lock"]
        assert modes(tmp_path) == dict.fromkeys(names, "0o600")
    path.chmod(0o640)
    async with Engine(journal=f"sqlite:///{path}") as engine:
        assert await engine.run(log_in, "secret") == "secret"
    assert modes(tmp_path)["journal.db"] == "0o640", "what the owner has set stays"


async def test_a_file_that_cannot_be_made_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says which, and lets go of the lock."""

    def refuse(path: Path) -> None:
        raise PermissionError(f"not allowed: {path}")

    path = tmp_path / "journal.db"
    with monkeypatch.context() as patch:
        patch.setattr("engine.journal.sqlite.create_empty", refuse)
        with pytest.raises(JournalError, match=r"not allowed: .*journal\.db"):
            async with Engine(journal=SQLiteJournal(path)):
                pass
    async with Engine(journal=SQLiteJournal(path)) as engine:
        assert await engine.run(log_in, "secret") == "secret"


@pytest.mark.parametrize("path", ["", ":memory:"])
def test_what_dies_with_the_process_is_no_journal(path: str) -> None:
    """SQLite would take it, and nothing would be left to recover."""
    with pytest.raises(ValueError, match=r"path must be a file, .* got '"):
        SQLiteJournal(path)
    with pytest.raises(ValueError, match="journal"):
        Engine(journal=f"sqlite:///{path}")
