"""Private files and folders, made when they are first needed."""

import os
import stat
from pathlib import Path

import pytest

from engine import files


def test_folders_that_are_missing_are_made_for_their_owner_only(tmp_path: Path) -> None:
    """Those that are there already stay as they are."""
    (tmp_path / "there").mkdir(0o755)
    for _ in range(2):
        files.make_folder(tmp_path / "there" / "a" / "b")
    found = [tmp_path / "there", *(tmp_path / "there").rglob("*")]
    if os.name == "posix":
        modes = [oct(stat.S_IMODE(folder.stat().st_mode)) for folder in found]
        assert modes == ["0o755", "0o700", "0o700"]


def test_a_file_in_the_place_of_a_folder_is_an_error(tmp_path: Path) -> None:
    """Also where it is in the place of a folder above."""
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OSError, match="file"):
            files.make_folder(folder)


def test_a_root_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a drive of Windows may not be."""

    def missing(path: Path, *_: object, **__: object) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "mkdir", missing)
    with pytest.raises(FileNotFoundError):
        files.make_folder(Path("/a/b"))


def test_what_is_replaced_is_never_seen_in_part(tmp_path: Path) -> None:
    """What cannot be replaced stays, and no draft beside it."""
    path = tmp_path / "folder" / "file"
    files.replace_whole(path, b"one")
    files.replace_whole(path, b"two")
    assert path.read_bytes() == b"two"
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="file"):
        files.replace_whole(path, b"three")
    assert list(path.parent.iterdir()) == [path]


def test_what_came_first_is_kept(tmp_path: Path) -> None:
    """Whoever comes second finds it and leaves no draft."""
    path = tmp_path / "deep" / "key"
    files.create_whole(path, b"first")
    files.create_whole(path, b"second")
    assert path.read_bytes() == b"first"
    assert [one.name for one in path.parent.iterdir()] == ["key"]
    assert not files.is_draft("key")


def test_a_file_that_is_there_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing it again would drop every lock that this process has on it."""
    path = tmp_path / "deep" / "file"
    files.create_empty(path)
    path.write_bytes(b"content")
    monkeypatch.setattr(os, "close", None)
    files.create_empty(path)
    assert path.read_bytes() == b"content"
