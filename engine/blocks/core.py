"""Block: a named, typed piece of configuration that is kept between runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs

from engine.blocks import storage
from engine.blocks._bridge import do
from engine.blocks.current import current_store
from engine.blocks.exceptions import BlockReferenceError
from engine.blocks.fields import all_fields, prepare, seal_fields, secret_fields
from engine.blocks.names import Reference, check_name
from engine.blocks.registry import find_class, register
from engine.settings.secret import MASK
from engine.states import safe_repr

if TYPE_CHECKING:
    from collections.abc import Generator


class Block:
    """Base of all blocks; a subclass with annotated fields is a new type of block.

    ::

        class Database(Block):
            host: str
            port: int = 5432
            password: SecretStr

        Database(host="db", password="…").save("main")
        Database.load("main").password.get_secret_value()

    Subclasses are made attrs classes, their fields keyword-only. One that is decorated
    with ``@attrs.define(...)`` keeps what that says, and type checkers then know its
    arguments. Fields may hold what JSON does, `SecretStr`, datetimes, dates, `Decimal`
    and `UUID`; fields with ``init=False`` are not stored. A field annotated with
    `SecretStr` takes plain strings too, is masked in ``repr``, and is encrypted where
    it is stored.

    The type's slug, ``database`` here, is made of the class's name unless
    ``_block_type_slug`` gives it.

    `save`, `load`, `delete` and `names` wait for a file. Sync code gets their result.
    Code on a running event loop, asyncio or trio, gets an awaitable for it and the
    waiting is done in a worker thread: ``await Database.load("main")``.
    """

    _block_type_slug: ClassVar[str | None] = None
    _slug: ClassVar[str]
    _reference: Reference | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # attrs looks for fields in parents that are attrs classes already.
        for parent in cls.__bases__:
            prepare(parent, Block)
        cls._slug = register(cls, vars(cls).get("_block_type_slug"))

    @classmethod
    def __attrs_init_subclass__(cls) -> None:
        # attrs' own repr would show a secret that was assigned as a plain string.
        if attrs.inspect(cls).added_repr:
            cls.__repr__ = Block.__repr__  # type: ignore[method-assign]

    def __new__(cls, *_args: Any, **_fields: Any) -> Self:
        """Refuse `Block` itself, and make an attrs class of the others."""
        if cls is Block:
            raise TypeError("Block is the base of blocks: make a subclass with fields")
        prepare(cls, Block)
        return super().__new__(cls)

    def __attrs_post_init__(self) -> None:
        """Wrap plain strings in secret fields; a subclass's own one calls this."""
        seal_fields(self)

    if TYPE_CHECKING:
        # What `load` returns is a block, and in async code what gives one.
        def __await__(self) -> Generator[Any, Any, Self]: ...

    def __repr__(self) -> str:
        secrets = secret_fields(type(self))
        shown = ", ".join(
            f"{field.name}={_shown(self, field.name, field.name in secrets)}"
            for field in all_fields(type(self))
            if field.repr
        )
        return f"{type(self).__name__}({shown})"

    @classmethod
    def get_block_type_slug(cls) -> str:
        """Return what the type is called in references such as ``database/main``."""
        return cls._slug

    def save(self, name: str, overwrite: bool = False) -> Any:
        """Keep this block under a name.

        In async code the awaitable, once awaited, does not give way to a cancellation
        until the file is written, which takes at most 10 s: afterwards one knows that
        nothing will be written any more.

        Args:
            name: Lowercase letters, digits and dashes.
            overwrite: Whether to replace the block of this type that has the name; the
                id stays the same.

        Returns:
            The id, a `UUID`; in async code an awaitable for it.

        Raises:
            BlockNameError: That is no name.
            BlockExistsError: The name is taken and *overwrite* is false.
            BlockFieldError: A field holds what cannot be stored.
            MissingExtraError: There are secrets, which are never stored unencrypted,
                and the extra ``secrets`` is not installed.
            BlockKeyError: The key for the secrets cannot be had.
            BlockStoreError: The store cannot be used.
        """
        reference = Reference(self._slug, check_name(name))

        def work() -> Any:
            block_id = storage.save(self, reference, overwrite=overwrite)
            _remember(self, reference)
            return block_id

        return do(f"{type(self).__name__}.save({name!r})", work, abandon=False)

    @classmethod
    def load(cls, name: str) -> Self:
        """Return the block that was saved under a name.

        Args:
            name: As in ``Database.load("main")``, or with the type in front as in
                ``Block.load("database/main")``.

        Returns:
            The block; in async code an awaitable for it.

        Raises:
            BlockNameError: That is no name.
            BlockNotFoundError: There is no such block.
            UnknownBlockTypeError: No class of that type is imported.
            BlockReferenceError: The type is missing, or is not a kind of this class.
            BlockDataError: What is stored is damaged, or lacks a field.
            MissingExtraError: There are secrets and the extra ``secrets`` is not
                installed.
            BlockKeyError: The secrets do not decrypt.
            BlockStoreError: The store cannot be used.
        """
        reference = cls._refer(name)

        def work() -> Any:
            kind = cls._kind_of(reference)
            prepare(kind, Block)
            block = storage.make(kind, reference)
            _remember(block, reference)
            return block

        loaded: Self = do(f"{cls.__name__}.load({name!r})", work, abandon=True)
        return loaded

    @classmethod
    def delete(cls, name: str) -> Any:
        """Remove the block that was saved under a name.

        Neither its class nor a key is needed: a damaged block can be removed too.

        Args:
            name: As for `load`.

        Returns:
            None; in async code an awaitable, as for `save`.

        Raises:
            BlockNameError: That is no name.
            BlockNotFoundError: There is no such block.
            BlockReferenceError: The type is missing.
            BlockStoreError: The store cannot be used.
        """
        work = partial(storage.delete, cls._refer(name))
        return do(f"{cls.__name__}.delete({name!r})", work, abandon=False)

    @classmethod
    def names(cls) -> Any:
        """Return the names of the saved blocks of this type, of all types on `Block`.

        Returns:
            A sorted list of references, such as ``database/main``, that `load` takes;
            in async code an awaitable for it.

        Raises:
            BlockStoreError: The store cannot be used.
        """

        def work() -> list[str]:
            return [str(one) for one in current_store().references(cls._slug_or_none())]

        return do(f"{cls.__name__}.names()", work, abandon=True)

    @classmethod
    def _slug_or_none(cls) -> str | None:
        return None if cls is Block else cls._slug

    @classmethod
    def _refer(cls, name: object) -> Reference:
        """Return the reference that a user's argument stands for."""
        text = name if isinstance(name, str) else check_name(name)
        slug, slash, bare = text.partition("/")
        if slash:
            return Reference(check_name(slug, "the slug of a type"), check_name(bare))
        check_name(text)
        if cls is Block:
            raise BlockReferenceError(
                text, "Block stands for every type: say which, as in 'string/name'"
            )
        return Reference(cls._slug, text)

    @classmethod
    def _kind_of(cls, reference: Reference) -> type[Self]:
        """Return the class of a block: this one, or one that is a kind of it."""
        if reference.type_slug == cls._slug_or_none():
            return cls
        found = find_class(reference)
        if not issubclass(found, cls):
            raise BlockReferenceError(
                str(reference), f"its class {found.__name__} is no {cls.__name__}"
            )
        return found


def _shown(block: Block, name: str, is_secret: bool) -> str:
    value = getattr(block, name, attrs.NOTHING)
    return repr(MASK) if is_secret and value is not None else safe_repr(value)


def _remember(block: Block, reference: Reference) -> None:
    """Note what the block is called, for its errors; it may be frozen."""
    object.__setattr__(block, "_reference", reference)
