"""Making something that can be kept of a task's result, and the result again.

* ``copy`` keeps a deep copy and gives deep copies out: what one caller does to its
  result, no other sees. For the memory of the process only.
* ``json`` keeps text. What JSON does not tell apart is tagged, so that a result comes
  back as it was or is refused: see `engine.results.exact_json`.
* ``pickle`` keeps almost anything, and reading it can run any code. So it is used only
  by tasks that ask for it by name, and only on what was signed with the keys of this
  ``ENGINE_HOME``: whoever can merely write files there cannot make a task read them.
"""

from __future__ import annotations

import copy
import hashlib
import hmac
import io
import pickle
from collections.abc import Callable
from typing import Any, Final, Literal, Protocol

from engine.checks import with_article
from engine.results import exact_json
from engine.results.exceptions import (
    ResultKeyError,
    UnreadableResultError,
    UnstorableResultError,
)
from engine.settings.secret import SecretStr
from engine.states import safe_text

SerializerName = Literal["json", "pickle"]

SIGNATURE_BYTES: Final = hashlib.sha256().digest_size


class Serializer(Protocol):
    """Makes payloads of values, and values of payloads."""

    @property
    def name(self) -> str:
        """What it is called in records."""
        ...

    def dump(self, value: Any, key: str, task: str) -> Any:
        """Return the payload of a value.

        Args:
            value: The result.
            key: The key it is kept under.
            task: The task's name, for errors.

        Raises:
            UnstorableResultError: There is something in it that cannot be kept.
        """
        ...

    def load(self, payload: Any, key: str) -> Any:
        """Return the value of a payload.

        Raises:
            UnreadableResultError: It is not one, or not one for this key.
        """
        ...


class CopySerializer:
    """Deep copies."""

    name = "copy"

    def dump(self, value: Any, key: str, task: str) -> Any:
        """Return a copy; see `Serializer.dump`."""
        try:
            return copy.deepcopy(value)
        except Exception as error:
            # An object of the user's, with a __deepcopy__ or __reduce__ of its own.
            cause: Exception = error
        a_kind = with_article(type(value).__name__)
        problem = f"{a_kind} that cannot be copied: {safe_text(cause)}"
        way_out = "return plain data, or take the caching options away"
        raise UnstorableResultError(task, "", problem, way_out) from cause

    def load(self, payload: Any, key: str) -> Any:
        """Return a copy; see `Serializer.load`."""
        return copy.deepcopy(payload)


class JsonSerializer:
    """JSON text with tags."""

    name = "json"

    def dump(self, value: Any, key: str, task: str) -> bytes:
        """Return JSON text; see `Serializer.dump`."""
        try:
            return exact_json.dump(value)
        except exact_json.NotJsonError as error:
            found = error
        way_out = "return plain data, or say result_serializer='pickle'"
        raise UnstorableResultError(task, found.path, found.problem, way_out)

    def load(self, payload: Any, key: str) -> Any:
        """Return the value of JSON text; see `Serializer.load`."""
        try:
            return exact_json.load(payload)
        except ValueError as error:
            problem = f"its value is damaged: {error}"
        raise UnreadableResultError(problem)


class OpenPickler(pickle.Pickler):
    """Pickles for files that are signed, not encrypted: it refuses what is masked."""

    def reducer_override(self, obj: Any) -> Any:
        """Refuse a secret."""
        if isinstance(obj, SecretStr):
            raise pickle.PicklingError("it holds a SecretStr, which must not be stored")
        return NotImplemented


class PickleSerializer:
    """Signed pickles."""

    name = "pickle"

    def dump(self, value: Any, key: str, task: str) -> bytes:
        """Return a signature and a pickle; see `Serializer.dump`.

        Raises:
            ResultKeyError: The signing key cannot be had.
        """
        file = io.BytesIO()
        try:
            OpenPickler(file).dump(value)
        except Exception as error:
            cause: Exception = error
        else:
            pickled = file.getvalue()
            return sign(signing_keys(create=True)[0], key, pickled) + pickled
        a_kind = with_article(type(value).__name__)
        problem = f"{a_kind} that does not pickle: {safe_text(cause)}"
        raise UnstorableResultError(task, "", problem, "return plain data") from cause

    def load(self, payload: Any, key: str) -> Any:
        """Check the signature, then unpickle; see `Serializer.load`."""
        signature, pickled = payload[:SIGNATURE_BYTES], payload[SIGNATURE_BYTES:]
        if not is_ours(signature, key, pickled):
            raise UnreadableResultError(
                "its signature is wrong, so it is not unpickled"
            )
        try:
            return pickle.loads(pickled)
        except Exception as error:
            # Signed by us, but perhaps by a version of the code with other classes.
            problem = f"it does not unpickle: {safe_text(error)}"
        raise UnreadableResultError(problem)


SERIALIZERS: Final[dict[SerializerName, Callable[[], Serializer]]] = {
    "json": JsonSerializer,
    "pickle": PickleSerializer,
}


def sign(own: bytes, key: str, pickled: bytes) -> bytes:
    """Return the signature of a pickle that is kept under *key*.

    The key is signed too, or one key's result could be put in the place of another's.
    """
    name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    return hmac.digest(own, name + pickled, "sha256")


def is_ours(signature: bytes, key: str, pickled: bytes) -> bool:
    """Whether a pickle was signed with one of our keys, for this *key*.

    Raises:
        UnreadableResultError: Our keys cannot be had.
    """
    try:
        keys = signing_keys(create=False)
    except ResultKeyError as error:
        raise UnreadableResultError(str(error)) from error
    return any(hmac.compare_digest(signature, sign(own, key, pickled)) for own in keys)


def signing_keys(*, create: bool) -> list[bytes]:
    """Return the keys that sign results, the one for new ones first.

    They are derived from those of the secret blocks, see `engine.blocks.keys`.

    Raises:
        ResultKeyError: There is none, or it cannot be read.
    """
    from engine.blocks.exceptions import BlockKeyError
    from engine.blocks.keys import find_keys

    try:
        keys = find_keys("results", create=create)
    except BlockKeyError as error:
        problem = error.problem
    else:
        texts = [key.get_secret_value().encode() for key in keys]
        return [hmac.digest(text, b"engine results", "sha256") for text in texts]
    raise ResultKeyError(problem)
