"""Whatever is put in: a value that comes back, or one clear error of the library."""

import json
import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.blocks import Block, MemoryStore, SecretStr, use_store
from engine.blocks.document import read_documents
from engine.blocks.exceptions import BlockError, BlockNameError
from engine.blocks.names import Reference
from engine.blocks.notifications import Webhook, fill
from engine.blocks.redaction import Redactor
from engine.blocks.rotation import rotate_secrets
from engine.blocks.system import JSON, Secret, String
from engine.settings import temporary_settings

KEY = "A" * 43 + "="

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.datetimes(), st.dates(),
    st.floats(allow_nan=False, allow_infinity=False), st.uuids(),
    st.decimals(allow_nan=False), st.builds(SecretStr, st.text()),
)  # fmt: skip
KEYS = st.one_of(st.text(), st.sampled_from(["$secret", "$dict", "$text", "$date"]))
DOCUMENTS = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)
ANYTHING = st.recursive(
    SCALARS | st.floats() | st.binary() | st.complex_numbers() | st.sets(st.text()),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.tuples(inner)
    ),
    max_leaves=10,
)


@given(value=DOCUMENTS)
def test_every_storable_document_comes_back(value: Any) -> None:
    with use_store(MemoryStore()), temporary_settings(secret_key=KEY):
        JSON(value=value).save("x")
        assert JSON.load("x").value == value
        assert len(read_documents()) == 1
        rotate_secrets()
        assert JSON.load("x").value == value


@given(value=ANYTHING)
def test_any_value_is_stored_or_refused_clearly(value: Any) -> None:
    with use_store(MemoryStore()), temporary_settings(secret_key=KEY):
        try:
            JSON(value=value).save("x")
        except BlockError as error:
            said = str(error)
        else:
            JSON.load("x")
            said = "value of block json/x cannot be stored: it holds"
    assert said.startswith("value of block json/x cannot be stored: it holds")


class Odd:
    """Cannot even be shown."""

    def __repr__(self) -> str:
        raise LookupError


@given(name=st.text() | st.none() | st.integers() | st.binary() | st.builds(Odd))
def test_any_name_is_used_or_refused_clearly(name: Any) -> None:
    with use_store(MemoryStore()):
        try:
            String(value="s").save(name)
        except BlockNameError as error:
            assert "lowercase letters, digits and dashes" in str(error)  # noqa: PT017
        else:
            assert Block.names() == [f"string/{name}"]
            assert String.load(name).value == "s"


@given(reference=st.text() | st.from_regex(r"[a-z0-9-]*/[a-z0-9/-]*", fullmatch=True))
def test_any_reference_is_refused_clearly_where_there_is_nothing(
    reference: str,
) -> None:
    with use_store(MemoryStore()):
        for use in (Block.load, Block.delete, String.load, String.delete):
            try:
                use(reference)
            except BlockError as error:
                said = str(error)
            else:
                said = ""
            assert said


@given(data=st.text() | JSON_VALUES.map(json.dumps))
def test_any_stored_text_is_a_block_or_an_error_that_names_it(data: str) -> None:
    store = MemoryStore()
    with use_store(store), temporary_settings(secret_key=KEY):
        for slug in ("json", "secret"):
            store.put(Reference(slug, "x"), data, overwrite=True)
            for use in (Block.load, lambda _name: rotate_secrets()):
                try:
                    use(f"{slug}/x")
                except BlockError as error:
                    said = str(error)
                else:
                    said = f"{slug}/x"
                assert "/x" in said or "Secret must be text" in said


@given(value=JSON_VALUES)
def test_any_stored_value_of_a_field_is_a_block_or_an_error(value: Any) -> None:
    store = MemoryStore()
    with use_store(store), temporary_settings(secret_key=KEY):
        store.put(Reference("json", "x"), json.dumps({"value": value}), overwrite=False)
        try:
            JSON.load("x")
        except BlockError as error:
            said = str(error)
        else:
            said = "json/x"
    assert "json/x" in said


@given(text=st.text(), secret=st.text(min_size=1))
def test_a_redacted_text_does_not_hold_the_secret(text: str, secret: str) -> None:
    redacted = Redactor([SecretStr(secret)])(f"{text}{secret}{text}")
    # Asterisks may themselves be, or make up, what is looked for.
    assert "*" in secret or secret not in redacted.replace("*", "") or secret in text


@given(template=JSON_VALUES, body=st.text(), subject=st.none() | st.text())
def test_a_filled_template_keeps_its_shape(
    template: Any, body: str, subject: str | None
) -> None:
    filled = fill(template, body=body, subject=subject)
    if isinstance(template, dict | list):
        assert len(filled) == len(template)
    elif isinstance(template, float) and math.isnan(template):
        assert filled is template


@given(
    url=st.text() | st.text().map("http://".__add__),
    headers=st.dictionaries(st.text(), st.text()),
    timeout=st.floats() | st.integers() | st.text(),
)
def test_any_webhook_is_made_or_refused_clearly(
    url: Any, headers: Any, timeout: Any
) -> None:
    try:
        block = Webhook(url=url, headers=headers, timeout=timeout)
    except BlockError as error:
        assert str(error)  # noqa: PT017
    else:
        assert "**********" in repr(block)


@given(text=st.text())
def test_a_secret_comes_back_and_is_never_seen(text: str) -> None:
    secret = f"<{text}>"
    with use_store(MemoryStore()) as _, temporary_settings(secret_key=KEY):
        Secret(value=secret).save("x")
        assert Secret.load("x").get() == secret
        shown = f"{Secret.load('x')} {read_documents()}"
    assert secret not in shown
