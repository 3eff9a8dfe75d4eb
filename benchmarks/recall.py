"""Measures how well recall finds memories, beside other ways to search; see docs/performance.md.

The questions of tests/data/recall/ are in two halves: weights are chosen on one ("tune") and
reported on the other. LoCoMo (`TRIBAL_LOCOMO`, the path of locomo10.json) and LongMemEval
(`TRIBAL_LONGMEMEVAL`, the path of longmemeval_s.json) are measured too if they are on this machine;
their halves are every other conversation or question. `--half tune` shows the other half;
`--misses` lists the questions that recall does not answer; `--only` chooses what to measure.
"""

import argparse
import asyncio
import csv
import json
import os
import re
import sqlite3
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.minilm import place_model
from tribal_mcp.embedding.onnx import OnnxEmbedder
from tribal_mcp.portability.choices import MemorySource
from tribal_mcp.portability.manifest import create_embedding_metadata
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.services.memories.recall import recall
from tribal_mcp.stores.base import EVERYTHING
from tribal_mcp.stores.in_memory import InMemoryStore

ROOT = Path(__file__).parents[1]
DATA = ROOT / "tests" / "data" / "recall"
PAGE = ROOT / "docs" / "performance.md"
PLACES = 5
ASKED_AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
LANGUAGES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "ru": "Russian",
    "zh": "Chinese", "ja": "Japanese", "ko": "Korean",
}  # fmt: skip
NAMES = {
    "near": "near misses", "paraphrase": "in other words", "inflection": "inflections",
    "identifier": "identifiers", "name": "names", "date": "dates", "typo": "typos",
    "script": "Chinese scripts", "correction": "corrections", "fact": "facts",
}  # fmt: skip
UNANSWERED = "without an answer"
WRONG_PERSON = 5
LOCOMO_KINDS = {
    1: "several turns", 2: "when", 3: "to be inferred", 4: "one turn", WRONG_PERSON: "wrong person",
}  # fmt: skip
IDENTITY = create_embedding_metadata("all-MiniLM-L6-v2-int8", 384, "benchmark")


@dataclass(slots=True)
class Question:
    """A question, the memories that answer it (none if nothing does), and the rows it counts in."""

    text: str
    answers: set[str]
    kinds: Sequence[str]
    at: datetime = ASKED_AT


@dataclass(slots=True)
class Task:
    """Memories, and questions about them."""

    entries: list[MemoryEntry]
    questions: list[Question]


@dataclass(slots=True)
class Score:
    """How many questions of a kind were answered first, and within the first places."""

    asked: int = 0
    first: int = 0
    found: int = 0


@dataclass(slots=True)
class Scores:
    """The scores of one way to search, by kind of question."""

    by_kind: dict[str, Score] = field(default_factory=lambda: defaultdict(Score))
    seconds: float = 0.0
    misses: list[str] = field(default_factory=list)

    def add(self, question: Question, found: Sequence[str], *, is_sure: bool) -> None:
        """Count one answer: the ids in order, and whether it claims to fit."""
        if question.answers:
            first = bool(found) and found[0] in question.answers
            hit = not question.answers.isdisjoint(found[:PLACES])
        else:
            first = hit = not found or not is_sure
        if not hit:
            self.misses.append(f"{question.text}  ->  {', '.join(found[:PLACES])}")
        for kind in question.kinds:
            score = self.by_kind[kind]
            score.asked += 1
            score.first += first
            score.found += hit


def embedder() -> OnnxEmbedder:
    """all-MiniLM-L6-v2 as int8, from packages of the development environment."""
    return OnnxEmbedder(IDENTITY, place_model(Path(tempfile.mkdtemp(prefix="tribal-recall-"))))


def memory(memory_id: str, text: str, created: datetime, supersedes: str = "") -> MemoryEntry:
    return MemoryEntry(
        id=memory_id,
        content=text,
        embedding=None,
        source_instance="benchmark",
        source_type=MemorySource.AUTO_CAPTURE,
        created_at=created,
        supersedes=supersedes or None,
    )


# The questions


def own(half: str) -> Iterator[Task]:
    """The memories and one half of the questions of tests/data/recall/."""
    entries = [
        memory(row["id"], row["text"], datetime.fromisoformat(row["created"]).replace(tzinfo=UTC),
               row["supersedes"])
        for row in _rows("memories")
    ]  # fmt: skip
    questions = [
        Question(row["question"], set(filter(None, row["answers"].split(","))), _kinds(row))
        for row in _half(_rows("questions"), half)
    ]
    yield Task(entries, questions)


def _half(items: list[Any], half: str) -> list[Any]:
    return {"tune": items[::2], "report": items[1::2], "both": items}[half]


def _kinds(row: dict[str, str]) -> list[str]:
    if not row["answers"]:
        return [UNANSWERED]
    return ["all", NAMES.get(row["kind"], row["kind"]), LANGUAGES[row["language"]]]


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / f"{name}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def locomo(path: str, half: str, *, facts: bool) -> Iterator[Task]:
    """The turns or the facts of LoCoMo as memories: each conversation is a store of its own.

    A fact answers a question if it is about a turn that does. Questions without such a fact are
    left out, and so are those without evidence.
    """
    for sample in _half(json.loads(Path(path).read_text()), half):
        said = sample["conversation"]
        entries, turns_of = list[MemoryEntry](), dict[str, set[str]]()
        for name in [n for n in said if re.fullmatch(r"session_\d+", n)]:
            at = _locomo_date(said[f"{name}_date_time"])
            for text, turns in _facts(sample, name) if facts else _turns(said[name]):
                entries.append(memory(f"m{len(entries)}", text, at))
                turns_of[entries[-1].id] = turns
        names = [said["speaker_a"].casefold(), said["speaker_b"].casefold()]
        questions = []
        for asked in sample["qa"]:
            evidence = _turn_ids(asked.get("evidence", ""))
            answers = {i for i, turns in turns_of.items() if turns & evidence}
            kinds = ["all", LOCOMO_KINDS[asked["category"]]]
            if any(name in asked["question"].casefold() for name in names):
                kinds.append("named person")
            if asked["category"] == WRONG_PERSON:
                kinds = kinds[1:2]
            if answers or (evidence and not facts):
                questions.append(Question(asked["question"], answers or {"-"}, kinds))
        yield Task(entries, questions)


def _turns(session: list[dict[str, str]]) -> Iterator[tuple[str, set[str]]]:
    for turn in session:
        yield f"{turn['speaker']}: {turn['text']}", _turn_ids(turn["dia_id"])


def _facts(sample: dict[str, Any], session: str) -> Iterator[tuple[str, set[str]]]:
    for facts in sample["observation"][f"{session}_observation"].values():
        for text, turns in facts:
            yield text, _turn_ids(turns)


def _turn_ids(found: object) -> set[str]:
    """The turns that some JSON names: as text, in one text or in a list, as D8:6 or D:8:06."""
    pairs = re.findall(r"D:?(\d+):(\d+)", str(found))
    return {f"{int(session)}:{int(turn)}" for session, turn in pairs}


def _locomo_date(text: str) -> datetime:
    return datetime.strptime(text, "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)


def longmemeval(path: str, half: str) -> Iterator[Task]:
    """The turns of LongMemEval as memories: each question has a store of its own."""
    for asked in _half(json.loads(Path(path).read_text()), half):
        entries, answers = [], set()
        for session, at, turns in zip(
            asked["haystack_session_ids"],
            asked["haystack_dates"],
            asked["haystack_sessions"],
            strict=True,
        ):
            created = datetime.strptime(at, "%Y/%m/%d (%a) %H:%M").replace(tzinfo=UTC)
            for number, turn in enumerate(turns):
                entries.append(memory(f"{session}:{number}", turn["content"] or "-", created))
                if turn.get("has_answer"):
                    answers.add(entries[-1].id)
        at = datetime.strptime(asked["question_date"], "%Y/%m/%d (%a) %H:%M").replace(tzinfo=UTC)
        kinds = ["all", asked["question_type"]] if answers else [UNANSWERED]
        yield Task(entries, [Question(asked["question"], answers, kinds, at)])


# The ways to search: each is prepared with the memories, then asked


Found = tuple[list[str], bool]
Way = Callable[[Question], Any]


def by_bm25s(entries: list[MemoryEntry]) -> Way:
    import bm25s
    import Stemmer

    stemmer = Stemmer.Stemmer("english")
    index = bm25s.BM25()
    texts = [entry.content for entry in entries]
    index.index(
        bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False),
        show_progress=False,
    )

    def ask(question: Question) -> Found:
        words = bm25s.tokenize(question.text, stopwords="en", stemmer=stemmer, show_progress=False)
        places, scores = index.retrieve(words, k=min(PLACES, len(texts)), show_progress=False)
        hits = [entries[p].id for p, s in zip(places[0], scores[0], strict=True) if s > 0]
        return hits, bool(hits)

    return ask


def by_fts5(entries: list[MemoryEntry]) -> Way:
    database = sqlite3.connect(":memory:")
    database.execute(
        "CREATE VIRTUAL TABLE f USING fts5(t, tokenize='porter unicode61 remove_diacritics 2')"
    )
    rows = [(number, entry.content) for number, entry in enumerate(entries)]
    database.executemany("INSERT INTO f(rowid, t) VALUES (?, ?)", rows)

    def ask(question: Question) -> Found:
        words = " OR ".join(f'"{word}"' for word in re.findall(r"\w+", question.text))
        query = "SELECT rowid FROM f WHERE f MATCH ? ORDER BY rank LIMIT ?"
        hits = [entries[row].id for (row,) in database.execute(query, (words, PLACES))]
        return hits, bool(hits)

    return ask


def by_cosine(entries: list[MemoryEntry], model: OnnxEmbedder) -> Way:
    vectors = np.stack([entry.embedding for entry in entries if entry.embedding is not None])

    async def ask(question: Question) -> Found:
        [vector] = await model.embed([question.text], query=True)
        order = np.argsort(-(vectors @ vector))[:PLACES]
        return [entries[place].id for place in order.tolist()], True

    return ask


async def by_recall(entries: list[MemoryEntry], model: OnnxEmbedder | None) -> Way:
    store = InMemoryStore()
    if model:
        await store.set_identity(model.identity)
    await store.upsert(entries)

    async def ask(question: Question) -> Found:
        result = await recall(
            store, lambda _state: model, question.text, PLACES, EVERYTHING, now=question.at
        )
        return [hit.id for hit in result.hits], not result.weak

    return ask


async def prepared(way: str, entries: list[MemoryEntry], model: OnnxEmbedder) -> Way:
    """A way to search, with the memories in its index."""
    if way == "bm25s":
        return by_bm25s(entries)
    if way == "FTS5":
        return by_fts5(entries)
    if way == "cosine":
        return by_cosine(entries, model)
    return await by_recall(entries, model if way == "hybrid" else None)


async def measure(tasks: Iterator[Task], ways: Sequence[str]) -> dict[str, Scores]:
    """The scores of each way to search."""
    model, scores = embedder(), {way: Scores() for way in ways}
    for task in tasks:
        vectors = await model.embed([entry.content for entry in task.entries])
        for entry, vector in zip(task.entries, vectors, strict=True):
            entry.embedding = vector
        for way in ways:
            ask = await prepared(way, task.entries, model)
            begin = time.perf_counter()
            for question in task.questions:
                found = ask(question)
                hits, is_sure = found if isinstance(found, tuple) else await found
                scores[way].add(question, hits, is_sure=is_sure)
            scores[way].seconds += time.perf_counter() - begin
    return scores


WAYS = ("bm25s", "FTS5", "cosine", "keyword", "hybrid")


def table(scores: dict[str, Scores]) -> str:
    """The scores as a Markdown table: percent answered first / within the first five."""
    lines = [
        "| questions | " + " | ".join(scores) + " |",
        "|---|" + "---:|" * len(scores),
    ]
    for kind in next(iter(scores.values())).by_kind:
        cells = []
        for one in scores.values():
            score = one.by_kind[kind]
            cells.append(
                f"{score.found / score.asked:.0%}"
                if kind == UNANSWERED
                else f"{score.first / score.asked:.0%} / {score.found / score.asked:.0%}"
            )
        asked = next(iter(scores.values())).by_kind[kind].asked
        lines.append(f"| {kind} ({asked}) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write(shown: str) -> None:
    """Put the table into its place in docs/performance.md."""
    begin, end = "<!-- recall: written by `make recall` -->", "<!-- recall: end -->"
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(begin)[0], page.split(end)[1]
    PAGE.write_text(f"{before}{begin}\n{shown}\n{end}{after}", encoding="utf-8")


def tasks(half: str, only: str) -> Iterator[tuple[str, Iterator[Task]]]:
    """What to measure, by name."""
    found = {"own": ("own questions", own(half))}
    if path := os.environ.get("TRIBAL_LOCOMO"):
        found["locomo-turns"] = ("LoCoMo, turns", locomo(path, half, facts=False))
        found["locomo-facts"] = ("LoCoMo, facts", locomo(path, half, facts=True))
    if path := os.environ.get("TRIBAL_LONGMEMEVAL"):
        found["longmemeval"] = ("LongMemEval", longmemeval(path, half))
    yield from (one for name, one in found.items() if only in name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--half", choices=["tune", "report", "both"], default="report")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--only", default="", help="own, locomo, locomo-facts or longmemeval")
    parser.add_argument("--misses", action="store_true")
    arguments = parser.parse_args()
    ways = arguments.ways.split(",")
    for name, task in tasks(arguments.half, arguments.only):
        scores = asyncio.run(measure(task, ways))
        shown = table(scores)
        print(f"\n{name}\n\n{shown}\n")
        if name == "own questions" and arguments.half == "report" and ways == list(WAYS):
            write(shown)
        for way, one in scores.items():
            asked = sum(s.asked for kind, s in one.by_kind.items() if kind in ("all", UNANSWERED))
            print(f"{way}: {1000 * one.seconds / asked:.1f} ms per question")
            if arguments.misses:
                print("\n".join(f"  {miss}" for miss in one.misses))


if __name__ == "__main__":
    main()
