"""The README's code runs and prints what it says; the map of the project is whole."""

import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)

text = README.read_text("utf-8")
blocks = [
    pytest.param(
        match[1], match[2], id=f"line-{text.count(chr(10), 0, match.start()) + 1}"
    )
    for match in BLOCK.finditer(text)
]


@pytest.mark.parametrize(("code", "output"), blocks)
def test_block_runs(
    code: str, output: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each block is a whole program; a block of text right after it is its output."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(code, README.name, "exec"), names)
    if output is not None:
        assert capsys.readouterr().out == output
    for name, test in names.items():
        if name.startswith("test_"):
            test()


def test_every_block_was_found() -> None:
    """No block hides from the test above behind some other spelling."""
    fences = re.findall(r"^ *```+ *(?:py|python).*$", text, re.MULTILINE)
    assert len(fences) == len(blocks) > 5
    assert set(fences) == {"```python"}


def test_links_lead_somewhere() -> None:
    """Every relative link is to a file of this repository."""
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_contributing_knows_every_folder() -> None:
    """The map of the project has all of its folders."""
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for path in (ROOT / "engine").iterdir():
        if any(path.glob("*.py")):
            is_there = re.search(rf"`(engine/)?{path.name}/`", page)
            assert is_there, f"CONTRIBUTING.md does not say what {path.name}/ is"
    for target in re.findall(r"`make (\w+)`", page):
        assert f"\n{target}:" in (ROOT / "Makefile").read_text("utf-8")
