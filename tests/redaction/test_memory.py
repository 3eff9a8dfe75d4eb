"""What is found in a memory and redacted, and what is not."""

import base64
import json
import re
import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.entries import entries
from tests.support.secrets import MENTIONS, PLACES, harmless, made_up, texts_of
from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import NO_LIMITS
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import dump_entry, entry_from_dict
from tribal_mcp.redaction.detector import Detector, _scanner
from tribal_mcp.redaction.memory import redacted_text, secrets_in

GITHUB, OTHER = (one.secret for one in made_up(each=2) if one.kind == "GitHub token")
PASSWORD = "tiger-4711"  # noqa: S105 - made up


def secret_of(kind: str) -> str:
    return next(one.secret for one in made_up() if one.kind == kind)


@pytest.fixture
def finder() -> Detector:
    return Detector(personal_data=False)


def without_secrets(finder: Detector, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """The memory with these fields, redacted; nothing more is to be found in it."""
    found = secrets_in({"id": "memory-1", "content": "", **fields}, finder)
    assert found is not None, "nothing was found"
    assert secrets_in(found.fields, finder) is None
    return found.fields


@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_secret_is_found_and_redacted(place: str, finder: Detector) -> None:
    left = {}
    for one in made_up(each=2):
        found = secrets_in({"id": "memory-1", **PLACES[place](one)}, finder)
        if found is None or one.secret in texts_of(found.fields) or found.places != [place]:
            left[one.kind] = found
    assert left == {}


def test_passwords_are_found_as_people_write_them(finder: Detector) -> None:
    missed = [text for text in MENTIONS if PASSWORD in redacted_text(text.format(PASSWORD), finder)]
    assert missed == MENTIONS[-2:]


def test_harmless_texts_stay_as_they_are() -> None:
    finder = Detector(personal_data=True)
    texts = harmless(2_000)
    taken = [text for text in texts if secrets_in({"id": "x", "content": text}, finder)]
    assert taken == []


def test_a_mark_says_what_was_there_and_counts_within_the_memory(finder: Detector) -> None:
    fields = without_secrets(finder, content=f"use {GITHUB}, later {OTHER}, then {GITHUB}")
    assert fields["content"] == (
        "use [redacted:github-pat:1], later [redacted:github-pat:2], then [redacted:github-pat:1]"
    )
    assert fields["redacted_kinds"] == ["github-pat"]


def test_a_secret_is_redacted_wherever_the_memory_repeats_it(finder: Detector) -> None:
    fields = without_secrets(
        finder,
        content=f"log in with {PASSWORD}",
        metadata={"password": PASSWORD, "notes": [{"old": f"it is {PASSWORD}!"}]},
        another=f"{PASSWORD}?",
    )
    assert PASSWORD not in texts_of(fields)
    assert fields["content"] == "log in with [redacted:password:1]"


def test_a_short_secret_leaves_the_same_letters_elsewhere(finder: Detector) -> None:
    fields = without_secrets(finder, content="a cake", metadata={"password": "cake"})
    assert fields["content"] == "a cake"
    assert fields["metadata"] == {"password": "[redacted:password:1]"}


def test_the_name_of_a_field_is_redacted_too(finder: Detector) -> None:
    fields = without_secrets(finder, metadata={GITHUB: 1}, **{f"x {OTHER}": True})
    assert fields["metadata"] == {"[redacted:github-pat:1]": 1}
    assert fields["x [redacted:github-pat:2]"] is True


def test_a_secret_that_another_one_hid_is_redacted_too(finder: Detector) -> None:
    gitlab, stripe = (secret_of(kind) for kind in ("GitLab token", "Stripe key"))
    fields = without_secrets(finder, content=f"{gitlab}{stripe}")
    assert fields["content"] == "[redacted:gitlab-pat:1][redacted:stripe-access-token:2]"


def test_a_key_whose_lines_are_texts_of_their_own_is_redacted(finder: Detector) -> None:
    lines = secret_of("RSA private key").splitlines()
    fields = without_secrets(finder, tags=["key", *lines, "end"], metadata={"lines": lines})
    assert all(re.fullmatch(r"\[redacted:private-key:\d+\]", tag) for tag in fields["tags"][1:-1])
    assert not any(line in texts_of(fields) for line in lines)
    assert (fields["tags"][0], fields["tags"][-1]) == ("key", "end")


def test_a_name_that_is_a_secret_hides_nothing_in_its_list(finder: Detector) -> None:
    fields = without_secrets(finder, metadata={GITHUB: [{}, "a", OTHER], "b": 1})
    expected = {"[redacted:github-pat:1]": [{}, "a", "[redacted:github-pat:2]"], "b": 1}
    assert fields["metadata"] == expected


def test_a_secret_that_is_part_of_a_mark_leaves_the_marks_as_they_are(finder: Detector) -> None:
    fields = without_secrets(finder, content=GITHUB, metadata={"client_secret": "github-pat"})
    assert fields["content"] == "[redacted:github-pat:1]"
    assert fields["metadata"] == {"client_secret": "[redacted:api-key:2]"}


@pytest.mark.parametrize(
    "encode",
    [lambda secret: base64.b64encode(f"it is {secret}!".encode()).decode(), json.dumps],
    ids=["base64", "JSON"],
)
def test_a_secret_in_base64_or_json_is_redacted(
    finder: Detector, encode: Callable[[str], str]
) -> None:
    for secret in (GITHUB, secret_of("RSA private key")):
        written = encode(secret)
        fields = without_secrets(finder, content=f"see {written}, and more")
        assert written not in fields["content"]
        assert fields["content"].endswith(", and more")


@given(entries(), st.sampled_from(["content", "tags", "context", "metadata", "extra"]))
def test_all_else_in_any_memory_stays_and_it_can_be_read(entry: MemoryEntry, place: str) -> None:
    fields = json.loads(dump_entry(entry))
    plain = dict(fields)
    if place == "tags":
        fields["tags"] = [*entry.tags, GITHUB]
    elif place in {"metadata", "extra"}:
        fields[place] = {"a": fields.get(place), "b": [GITHUB]}
    else:
        fields[place] = GITHUB
    found = secrets_in(fields, Detector(personal_data=True))
    assert found is not None
    assert GITHUB not in texts_of(found.fields)
    entry_from_dict(found.fields, NO_LIMITS)
    kept = plain.keys() - {place, "embedding", "embedding_model"}
    assert {name: found.fields[name] for name in kept} == {name: plain[name] for name in kept}


def test_numbers_go_on_after_those_of_an_earlier_redaction(finder: Detector) -> None:
    fields = without_secrets(
        finder,
        content=f"was [redacted:password:3], is {GITHUB}",
        redacted_kinds=["password"],
    )
    assert fields["content"] == "was [redacted:password:3], is [redacted:github-pat:4]"
    assert fields["redacted_kinds"] == ["github-pat", "password"]


def test_a_number_can_be_a_secret(finder: Detector) -> None:
    fields = without_secrets(finder, metadata={"db_password": 47110815, "port": 5432})
    assert fields["metadata"] == {"db_password": "[redacted:password:1]", "port": 5432}


def test_places_are_right_beside_characters_of_several_bytes(finder: Detector) -> None:
    text = "\ufeffÜber \0 👩: "
    fields = without_secrets(finder, content=f"{text}{GITHUB}{text}", tags=["日本"])
    assert fields["content"] == f"{text}[redacted:github-pat:1]{text}"


def test_a_text_that_looks_like_utf_16_is_not_taken_apart(finder: Detector) -> None:
    content = "\0".join(f"xx {GITHUB} yy")
    assert secrets_in({"id": "x", "content": content}, finder) is None
    fields = without_secrets(finder, content=content, context=GITHUB)
    assert (fields["content"], fields["context"]) == (content, "[redacted:github-pat:1]")


def test_a_secret_within_a_longer_one_goes_with_it(finder: Detector) -> None:
    fields = without_secrets(finder, content=f"password: a1-{GITHUB}-zz9 ok")
    assert fields["content"] == "password: [redacted:password:1] ok"


def test_a_vector_and_the_name_of_its_model_go_with_the_text_they_encode(finder: Detector) -> None:
    fields = without_secrets(finder, content=GITHUB, embedding=[0.5], embedding_model="model-b")
    assert fields["embedding"] is None
    assert "embedding_model" not in fields


def test_an_id_keeps_its_secret_and_the_result_says_so(finder: Detector) -> None:
    for name, value in (("id", GITHUB), ("supersedes", GITHUB), ("related_to", [GITHUB])):
        found = secrets_in({"id": "x", "content": f"see {GITHUB}", name: value}, finder)
        assert found is not None
        assert found.in_ids
        assert found.places == ["content", name]
        assert found.masked(GITHUB) == "[redacted:github-pat:1]"


@pytest.mark.parametrize(
    ("text", "kind", "kept"),
    [
        ("write to anna.meier@mail.test.", "email-address", "write to {}."),
        ("call +49 30 901820 after ten", "phone-number", "call {} after ten"),
        ("call 0049 30 901820", "phone-number", "call {}"),
        ("pay to DE89 3704 0044 0532 0130 00, please", "iban", "pay to {}, please"),
        ("card 4111 1111 1111 1111 until May", "card-number", "card {} until May"),
        ("card 378282246310005", "card-number", "card {}"),
    ],
)
def test_personal_data_is_found_on_request(text: str, kind: str, kept: str) -> None:
    assert redacted_text(text, Detector(personal_data=True)) == kept.format(f"[redacted:{kind}:1]")
    assert redacted_text(text, Detector(personal_data=False)) == text


@pytest.mark.parametrize(
    "text",
    [
        "pay to DE89 3704 0044 0532 0130 01",  # wrong check digits
        "card 4111 1111 1111 1112",
        "card 1111 1111 1111 1117",  # no card begins so
        "dial +1 555 or +999 123456789",  # no such numbers
        "git clone git@github.com:owner/name.git",
        "order 2026-0815-4711, room +3",
    ],
)
def test_what_only_looks_like_personal_data_stays(text: str) -> None:
    assert redacted_text(text, Detector(personal_data=True)) == text


def test_a_missing_detector_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kingfisher_sdk", None)
    _scanner.cache_clear()
    with pytest.raises(UsageError, match="needs the packages kingfisher-secret-scanner"):
        Detector().find("x")
