"""Which class a type's slug stands for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

import structlog

from engine.blocks.exceptions import BlockSlugTakenError, UnknownBlockTypeError
from engine.blocks.names import Reference, check_name, make_slug

if TYPE_CHECKING:
    from engine.blocks.core import Block

log = structlog.get_logger("engine")

BUILT_IN: Final = {
    "string": "engine.blocks.system",
    "secret": "engine.blocks.system",
    "json": "engine.blocks.system",
    "date-time": "engine.blocks.system",
    "slack-webhook": "engine.blocks.notifications",
    "webhook": "engine.blocks.notifications",
    "apprise-notification": "engine.blocks.notifications",
}
"""The module of each type that comes with the library, imported when one is loaded."""

_classes: dict[str, type[Block]] = {}


def register(cls: type[Block], slug: str | None) -> str:
    """Let a slug stand for *cls*; return it.

    The last class of a slug wins, so that a module can be reloaded and a notebook's
    cell run again. Where it was another class, that is logged.

    Args:
        cls: A new class of blocks.
        slug: Its slug; None makes one of its name.

    Raises:
        BlockNameError: That is no slug.
        BlockSlugTakenError: It is the slug of a type that comes with the library.
    """
    name = cls.__name__
    slug = make_slug(name) if slug is None else check_name(slug, f"the slug of {name}")
    if slug in BUILT_IN and cls.__module__ != BUILT_IN[slug]:
        raise BlockSlugTakenError(name, slug)
    before = _classes.get(slug)
    if before is not None and _origin(before) != _origin(cls):
        log.warning(
            "block_type_replaced", slug=slug, before=_origin(before), now=_origin(cls)
        )
    _classes[slug] = cls
    return slug


def find_class(reference: Reference) -> type[Any]:
    """Return the class of a block's type.

    Raises:
        UnknownBlockTypeError: No class that is imported has this slug.
    """
    slug = reference.type_slug
    if slug not in _classes and slug in BUILT_IN:
        importlib.import_module(BUILT_IN[slug])
    if slug not in _classes:
        raise UnknownBlockTypeError(str(reference), slug)
    return _classes[slug]


def _origin(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
