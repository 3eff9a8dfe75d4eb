"""docs/formats.md has what the formats say of themselves."""

from tests.support.format_table import PAGE, with_sections


def test_the_page_of_formats_is_generated_from_the_formats() -> None:
    page = PAGE.read_text()
    assert page == with_sections(page), (
        "A format has changed. Run `python -m tests.support.format_table`."
    )
