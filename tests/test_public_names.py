"""What `import engine` gives, beside what the other tests use."""

import pytest

from engine import exceptions, task


def test_the_errors_of_options_are_among_the_others() -> None:
    """Whoever wants to catch them need not know where they are raised."""
    with pytest.raises(exceptions.InvalidOptionError):
        task(retries=-1)(print)
    with pytest.raises(exceptions.InvalidOptionType):
        task(retries="2")(print)  # type: ignore[call-overload]
