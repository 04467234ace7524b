"""What can go wrong with blocks; each error names the block, none shows a secret."""

from __future__ import annotations

from pathlib import Path

import attrs

from engine.exceptions import EngineError


@attrs.define(eq=False)
class BlockError(EngineError):
    """Base of every error about blocks, but for a missing extra.

    That one is `engine.exceptions.MissingExtraError`.
    """


@attrs.define(eq=False)
class BlockNameError(BlockError, ValueError):
    """Something cannot be the name of a block or of a type of blocks."""

    name: str
    what: str

    def __str__(self) -> str:
        return (
            f"{self.name} cannot be {self.what}: it takes 1 to 255 of lowercase"
            " letters, digits and dashes"
        )


@attrs.define(eq=False)
class BlockSlugTakenError(BlockError, ValueError):
    """A class has the slug of a type that comes with the library."""

    class_name: str
    slug: str

    def __str__(self) -> str:
        return (
            f"class {self.class_name} cannot have the slug {self.slug!r}, which is that"
            " of a type of the library: give it another one with _block_type_slug"
        )


@attrs.define(eq=False)
class BlockReferenceError(BlockError, ValueError):
    """A block was asked for without its type, or by another type than its own."""

    reference: str
    problem: str

    def __str__(self) -> str:
        return f"cannot use {self.reference!r}: {self.problem}"


@attrs.define(eq=False)
class BlockNotFoundError(BlockError, ValueError):
    """There is no such block."""

    block: str
    store: str

    def __str__(self) -> str:
        return f"there is no block {self.block} in {self.store}"


@attrs.define(eq=False)
class BlockExistsError(BlockError, ValueError):
    """A block was to be saved under a name that is taken."""

    block: str

    def __str__(self) -> str:
        return (
            f"there is a block {self.block} already: save(..., overwrite=True)"
            " replaces it"
        )


@attrs.define(eq=False)
class UnknownBlockTypeError(BlockError, ValueError):
    """No class that is imported defines the type of a block."""

    block: str
    type_slug: str

    def __str__(self) -> str:
        return (
            f"the type {self.type_slug!r} of block {self.block} is not known: import"
            " the module that defines its class"
        )


@attrs.define(eq=False)
class BlockFieldError(BlockError, ValueError):
    """A field of a block has a value that it cannot take.

    The value is not kept, it may be a secret.
    """

    block: str
    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field} of {self.block} {self.problem}"


@attrs.define(eq=False)
class BlockDataError(BlockError):
    """What is stored for a block cannot be made into one."""

    block: str
    problem: str

    def __str__(self) -> str:
        return f"block {self.block} cannot be read: {self.problem}"


@attrs.define(eq=False)
class BlockKeyError(BlockError):
    """The secrets of a block cannot be encrypted or decrypted with the keys there are.

    Attributes:
        block: The block.
        problem: What is wrong with the keys, and the way out.
    """

    block: str
    problem: str

    def __str__(self) -> str:
        return f"the secrets of block {self.block} are out of reach: {self.problem}"


@attrs.define(eq=False)
class BlockStoreError(BlockError):
    """The file that holds the blocks could not be used."""

    path: Path
    operation: str
    problem: str

    def __str__(self) -> str:
        return f"{self.operation} failed in {self.path}: {self.problem}"


# Without slots, as Python cannot combine theirs with the layout of TimeoutError.
@attrs.define(eq=False, slots=False)
class NotificationError(BlockError):
    """A notification was not delivered.

    Attributes:
        block: The block that was to send it.
        target: Where to, without the secret part of the address.
        problem: What went wrong.
    """

    block: str
    target: str
    problem: str

    def __str__(self) -> str:
        return f"{self.block} could not notify {self.target}: {self.problem}"


@attrs.define(eq=False, slots=False)
class NotificationTimeout(NotificationError, TimeoutError):
    """A notification took too long; it may have been delivered all the same."""


@attrs.define(eq=False)
class NotificationRejected(NotificationError):
    """The receiver answered, and not with a success.

    Attributes:
        status: The HTTP status.
        body: The beginning of what it said, without the secrets of the request.
    """

    status: int
    body: str


@attrs.define(eq=False)
class AddressRefusedError(NotificationError):
    """A notification was to go to an address inside of a private network.

    Attributes:
        address: The address that the receiver's name stands for.
    """

    address: str
