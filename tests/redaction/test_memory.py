"""What is found in a memory and redacted, and what is not."""

import sys
from typing import Any

import pytest

from tests.support.secrets import MENTIONS, PLACES, harmless, made_up, texts_of
from tribal_mcp.errors import UsageError
from tribal_mcp.redaction.detector import Detector, _scanner
from tribal_mcp.redaction.memory import redacted_text, secrets_in

GITHUB, OTHER = (one.secret for one in made_up(each=2) if one.kind == "GitHub token")
PASSWORD = "tiger-4711"  # noqa: S105 - made up


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


def test_harmless_texts_stay_as_they_are(finder: Detector) -> None:
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
    with pytest.raises(UsageError, match=r"pip install 'tribal-mcp\[secrets\]'"):
        Detector().find("x")
