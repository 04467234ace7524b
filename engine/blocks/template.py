"""Filling a message into a JSON value."""

from __future__ import annotations

import re
from typing import Any, Final

from engine.settings.shapes import is_dict, is_list, is_tuple

_PLACE: Final = re.compile(r"\{(body|subject)\}")


def fill(template: Any, *, body: str, subject: str | None) -> Any:
    """Return *template* with ``{body}`` and ``{subject}`` replaced in its strings.

    In one pass: a message that contains ``{subject}`` itself stays as it is. Not by
    ``str.format``: a template could read attributes of Python objects with it, and
    would have to double every other brace.

    Args:
        template: A JSON value; its keys stay as they are.
        body: The message.
        subject: Its heading. None leaves the place empty; a string that is nothing but
            the place becomes None.
    """
    if isinstance(template, str):
        if template == "{subject}":
            return subject
        values = {"body": body, "subject": subject or ""}
        return _PLACE.sub(lambda found: values[found[1]], template)
    if is_list(template) or is_tuple(template):
        return [fill(item, body=body, subject=subject) for item in template]
    if is_dict(template):
        return {
            key: fill(item, body=body, subject=subject)
            for key, item in template.items()
        }
    return template
