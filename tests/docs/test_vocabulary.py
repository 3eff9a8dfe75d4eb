"""Code, messages and documents use one term per concept; retired terms stay out.

The terms are in docs/architecture.md. Names in wire and on-disk formats are exempt, see
docs/decisions/0014-wire-names-stay.md.
"""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
MODULES = sorted((ROOT / "tribal_mcp").rglob("*.py"))

RETIRED = {
    "an interface": r"doors?",
    "tombstone, deleted": r"forgotten|buried",
    "deleted, exited": r"gone",
    "other models": r"mix|mixes|mixed in",
    "stale writer marker": r"at work|unmark",
    "in progress": r"in hand",
    "spool file": r"passing|on (?:its|their) way",
    "keyword search": r"(?:by|with) words",
    "semantic search": r"by meaning",
    "duplicate": r"stands? twice|stood twice",
    "default, if not set": r"unsaid",
    "change model, copy": r"mov(?:e|es|ed|ing) (?:all |of |them )?(?:memories )?to another model",
    "repair": r"mend(?:s|ed|ing)?",
    "undo": r"(?:tak(?:e|es|en|ing)|took)(?: \w+)? back",
    "import": r"(?:bring|brings|bringing|brought)(?: \w+){0,3} in",
    "restore": r"(?:bring|brings|bringing|brought)(?: \w+){0,2} back",
    "new; again": r"anew",
    "a plain sentence": r"so many|unless it be|likewise|is told|house|regrets?",
}
NAMES = {
    "forgotten",  # result field, method of MemoryStore, suffix of a collection
    "brought_back",  # result field
    "passing",  # directory of the spool files
}


def retired_in(text: str) -> Iterator[str]:
    """The retired terms in a text, each with the term to use; `_` counts as a space."""
    names = "|".join(NAMES)
    exempt = rf"[`'\"](?:{names})[`'\"]|\.(?:{names})\b|^ *(?:{names}):"
    text = re.sub(exempt, " ", text, flags=re.MULTILINE)
    plain = re.sub(r"[\s_]+", " ", text)
    for term, pattern in RETIRED.items():
        for found in re.findall(rf"(?<![a-z])(?:{pattern})(?![a-z])", plain, re.IGNORECASE):
            yield f"{found!r}: use {term}"


def parts_of(module: Path) -> Iterator[tuple[int, str]]:
    """The identifiers, strings and comments of a module, with their lines."""
    for token in tokenize.generate_tokens(io.StringIO(module.read_text()).readline):
        name = tokenize.tok_name[token.type]
        if name in {"NAME", "STRING", "FSTRING_MIDDLE", "COMMENT"}:
            text = token.string
            if name == "STRING" and "f" in text.partition(text[-1])[0].lower():
                text = re.sub(r"\{[^{}]*\}", "{}", text)  # before Python 3.12, with its expressions
            if text.strip("\"'") not in NAMES:
                yield token.start[0], text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_term_is_in_a_document(page: Path) -> None:
    assert list(retired_in(page.read_text())) == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_retired_term_is_in_a_module(module: Path) -> None:
    found = [f"line {line}: {term}" for line, text in parts_of(module) for term in retired_in(text)]
    assert found == []


def test_no_retired_term_is_in_the_name_of_a_test() -> None:
    files = (ROOT / "tests").rglob("test_*.py")
    names = [name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())]
    assert [f"{name}: {term}" for name in names for term in retired_in(name)] == []
