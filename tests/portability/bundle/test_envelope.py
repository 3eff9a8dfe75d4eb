"""Import requests with options around the bundle, which is copied out byte for byte."""

import json
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tribal_mcp.errors import BundleError
from tribal_mcp.portability.bundle import envelope
from tribal_mcp.portability.bundle.envelope import unwrap
from tribal_mcp.portability.limits import Limits

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=6) | st.just('"bundle": {'),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=20,
)
OPTIONS = st.dictionaries(st.sampled_from(envelope.OPTIONS), st.booleans() | st.text(max_size=8))


def unwrapped(text: bytes, **limits: int) -> tuple[dict[str, Any] | None, bytes]:
    out = BytesIO()
    return unwrap(BytesIO(text), out, Limits(**limits), lambda: None), out.getvalue()


@given(
    st.dictionaries(st.text(max_size=6), JSON, max_size=5),
    OPTIONS,
    OPTIONS,
    st.integers(40, 200),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_bundle_and_options_are_separated_wherever_a_block_ends(  # noqa: PLR0917 - by Hypothesis
    bundle: dict[str, Any],
    before: dict[str, Any],
    after: dict[str, Any],
    block: int,
    indent: int | None,
    ascii_only: bool,
) -> None:
    options = {**before, **after}
    whole = {**before, "bundle": bundle} | options
    text = json.dumps(whole, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_BLOCK", block)
        found, copied = unwrapped(text)
    assert found == options
    assert json.loads(copied) == bundle
    assert copied in text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[1]",
        b"{}",
        b'{"manifest": {"bundle": {}}, "entries": []}',
        b'{"id": "a", "content": "b"}\n{"bundle": {}}',
        b'\xef\xbb\xbf{"manifest": 1}',
        b'"bundle"',
    ],
)
def test_a_text_without_an_envelope_is_left_unchanged(text: bytes) -> None:
    assert unwrapped(text) == (None, b"")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"bundle": {}', "truncated"),
        (b'{"bundle": {"a": "b', "truncated"),
        (b'{"bundle": {}} x', "outside the bundle: not JSON"),
        (b'{"bundle": {}}}', "truncated"),
        (b'{"bundle": {}, "dry_run": true, "dry_run": false}', "duplicate key"),
        (b'{"bundle": {}, "bundle": {}}', "duplicate key"),
        (b'{"dry_run": NaN, "bundle": {}}', "NaN"),
        (b'{"dry_run": true}', "no bundle"),
        (b'{"bundle": 7}', "no bundle"),
        (b'{"bundle": {}, "note": "' + b"x" * 70_000 + b'"}', "more than 65,536 bytes"),
        (b'{"bundle": {"a": "' + b"x" * 9_000 + b'"}}', "TRIBAL_LIMIT_LINE_BYTES"),
    ],
    ids=str,
)
def test_an_invalid_envelope_is_refused(text: bytes, reason: str) -> None:
    limit = 8_000 if "LINE" in reason else 1 << 20
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(envelope, "_BLOCK", 1_000)
        with pytest.raises(BundleError, match=reason):
            unwrapped(text, line_bytes=limit)


def test_the_copy_can_be_stopped_between_blocks() -> None:
    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        unwrap(BytesIO(b'{"bundle": {}}'), BytesIO(), Limits(), stop)
