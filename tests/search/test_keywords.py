"""Keywords find other forms of a word in many languages, and not other words."""

import pytest

from tribal_mcp.search.bm25 import KeywordSearch
from tribal_mcp.search.keywords import is_one_edit


def best(query: str, *texts: str) -> list[str]:
    """The texts that match, the best first."""
    search = KeywordSearch(query)
    for text in texts:
        search.add({text: text})
    return [one.id for one in search.best(99)]


@pytest.mark.parametrize(
    ("query", "fits", "fits_not"),
    [
        ("user_config", ["parse_user_config ignores keys"], ["the user", "config"]),
        ("4031", ["ERR_CONN_4031", "ERR4031: refused"], ["14031", "40312", "4032"]),
        ("userConfig", ["getUserConfig", "user_config"], ["configured"]),
        ("profile", ["call getUserProfile first"], ["proof"]),
        ("http response", ["HTTPResponse is lazy"], ["respond"]),
        ("9f3c2ab", ["commit 9f3c2ab"], ["commit 9f3c2ac"]),
    ],
    ids=["snake case", "digits", "camel case", "a part", "an abbreviation", "a hash"],
)
def test_a_part_of_an_identifier_is_found(query: str, fits: list[str], fits_not: list[str]) -> None:
    assert set(fits) <= set(best(query, *fits, *fits_not))
    assert best(query, *fits, *fits_not)[0] in fits
    if " " not in query and query.isascii() and "_" not in query and query.islower():
        assert set(best(query, *fits, *fits_not)) == set(fits)


@pytest.mark.parametrize("name", ["parseUserConfig", "parse_user_config", "ParseUserConfig"])
@pytest.mark.parametrize("text", ["it calls parse_user_config", "it calls parseUserConfig"])
def test_an_identifier_fits_whatever_its_case_style(name: str, text: str) -> None:
    search = KeywordSearch(f"What calls {name}?")
    search.add({"it": text, "else": "nothing of the kind"})
    [found] = search.best(9)
    assert (found.id, found.fit > 0.8) == ("it", True)


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Which deployments failed?", "deploying failed"),
        ("happiness", "They are happy."),
        ("libraries", "Use this library."),
        ("Wann wird das Haus geheizt?", "Die Häuser werden beheizt"),
        ("Wie oft ändert man Passwörter?", "Das Passwort gilt 180 Tage"),
        ("Qui livre à Marseille ?", "Les livraisons à Marseille"),
        ("Où est le cheval ?", "Les chevaux sont dans le pré"),
        ("La caution est payée depuis mai", "Qui a payé la facture ?"),
        ("¿Cómo son las ciudades?", "La ciudad es muy verde"),
        ("Waar staan de fietsen?", "De fiets staat in de kelder"),
        ("¿Cuándo son las reuniones?", "La reunión es el jueves"),
        ("Когда выходит релиз?", "Релизы выходят по четвергам"),
        ("ключ архива", "Ключи архивов"),
        ("사무실이 어디에 있나요?", "서울 사무실은 강남역 근처에 있다"),
        ("토큰 만료", "토큰이 만료되었다는 뜻이다"),
    ],
)
def test_other_inflections_are_found_in_both_directions(query: str, text: str) -> None:
    assert best(query, text) == [text]
    assert best(text, query) == [query]


def test_a_long_word_is_found_at_the_end_of_a_german_compound() -> None:
    assert best("Welcher Vertrag ist das?", "Die Frist des Mietvertrags") != []
    assert best("What is the voice?", "the invoice") == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Mueller", "Frau Müller"),
        ("Müller", "Frau Mueller"),
        ("Koenigstrasse", "Königstraße 17"),
        ("台北的办公室", "臺北辦公室"),
        ("烏龍茶", "喜欢喝乌龙茶"),
        ("Soren", "Søren"),
        ("Lodz", "Łódź"),
    ],
)
def test_other_spellings_are_found(query: str, text: str) -> None:
    assert best(query, text) == [text]


def test_one_typo_in_a_long_word_is_found_if_nothing_has_the_word_itself() -> None:
    texts = ["the Kubernetes cluster", "the Prometheus alerts"]
    for typo in ("Kuberntes", "Kubernettes", "Kubernetas", "Kubenretes"):
        assert best(typo, *texts) == [texts[0]], typo
    assert best("Kubrentesse", *texts) == []
    assert best("teh", "the") == []
    assert best("resting", "testing", "resting here") == ["resting here"]


def test_words_that_only_ask_are_no_keywords_unless_there_is_nothing_else() -> None:
    assert best("What is the cat called?", "what is the plan", "a cat") == ["a cat"]
    assert best("¿Cuál es el gato de la casa?", "es el de la", "un gato") == ["un gato"]
    assert best("to be or not to be", "to be or not") == ["to be or not"]
    assert best("咖啡机在哪里", "在哪里都行", "咖啡机坏了") == ["咖啡机坏了"]


def test_a_keyword_of_a_few_letters_is_no_beginning_of_other_words() -> None:
    assert best("use", "the user") == []
    assert best("100", "1000") == []


@pytest.mark.parametrize("text", ["x" * 100_000, "aB" * 50_000, "x_" * 50_000, "é" * 100_000])
def test_a_long_text_without_spaces_is_searched_in_linear_time(text: str) -> None:
    assert "elephant" in best("elephant xxxxxxxx aBaBaBaB", text, "elephant")


@pytest.mark.parametrize(
    ("one", "other", "is_one"),
    [
        ("word", "wrod", True), ("word", "wod", True), ("word", "woord", True),
        ("word", "ward", True), ("word", "draw", False), ("word", "words!", False),
    ],
)  # fmt: skip
def test_one_edit_is_a_character_added_missing_wrong_or_exchanged(
    one: str, other: str, *, is_one: bool
) -> None:
    assert is_one_edit(one, other) is is_one
    assert is_one_edit(other, one) is is_one


def test_the_fit_says_how_much_of_the_question_the_best_match_has() -> None:
    search = KeywordSearch("green tea")
    search.add({"all": "green tea", "half": "black tea", "none": "water"})
    fits = {one.id: one.fit for one in search.best(9)}
    assert fits["all"] == 1
    assert 0 < fits["half"] < 0.5
    assert "none" not in fits
