"""What `import engine` gives, beside what the other tests use."""

from importlib import metadata

import pytest

import engine
from engine import exceptions, task


def test_the_version_is_the_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked up when somebody asks."""
    monkeypatch.setattr(metadata, "version", {"actor-engine": "1.2.3"}.get)
    assert engine.__version__ == "1.2.3"


def test_a_bare_checkout_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number is made up for it."""

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    with pytest.raises(AttributeError, match="it is not installed"):
        _ = engine.__version__


def test_other_names_are_none_of_ours() -> None:
    """As Python says it of any module."""
    with pytest.raises(AttributeError, match="module 'engine' has no attribute 'flwo'"):
        _ = engine.flwo  # type: ignore[attr-defined]


def test_the_errors_of_options_are_among_the_others() -> None:
    """Whoever wants to catch them need not know where they are raised."""
    with pytest.raises(exceptions.InvalidOptionError):
        task(retries=-1)(print)
    with pytest.raises(exceptions.InvalidOptionType):
        task(retries="2")(print)  # type: ignore[call-overload]
