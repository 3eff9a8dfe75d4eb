"""What the rows of Chroma's database answer by themselves: texts, links and counts.

Each question takes the collections that together are one store, and goes by an index of Chroma's
own, so that 100,000 memories are counted in a fraction of a second and nothing is held.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tribal_mcp.stores.chroma.files.tables import DOCUMENT, ChromaTables, places
from tribal_mcp.stores.raw import RawCollection
from tribal_mcp.stores.search import UNKNOWN, Tally, latest_first, most_first

_WITH_TAG = """
    SELECT string_value, count(DISTINCT id) FROM embedding_metadata_array
    WHERE key = 'tags' AND string_value IS NOT NULL AND id IN ({rows}) GROUP BY string_value
"""
_OF_SOURCE = """
    SELECT string_value, count(*) FROM embedding_metadata
    WHERE key = 'source_type' AND string_value IS NOT NULL AND id IN ({rows}) GROUP BY string_value
"""
# Whole seconds before 1970 are rounded down too.
_IN_MONTH = """
    SELECT strftime('%Y-%m', (int_value - 999999 * (int_value < 0)) / 1000000, 'unixepoch'),
    count(*) FROM embedding_metadata
    WHERE key = 'created_at_us' AND int_value IS NOT NULL AND id IN ({rows}) GROUP BY 1
"""


class ChromaQueries(ChromaTables):
    """The database of one Chroma folder, open for questions; see `ChromaTables`."""

    def texts(self, collection: RawCollection, ids: Sequence[str]) -> dict[str, str]:
        """The documents of those ids in that order; a missing one is left out."""
        rows = self._sql.execute(
            "SELECT e.embedding_id, m.string_value FROM embeddings AS e "  # noqa: S608 - only places
            "LEFT JOIN embedding_metadata AS m ON m.id = e.id AND m.key = ? "
            f"WHERE e.segment_id = ? AND e.embedding_id IN ({places(ids)})",
            (DOCUMENT, self._segment(collection, "METADATA"), *ids),
        )
        found = dict(rows.fetchall())
        return {i: found[i] or "" for i in ids if i in found}

    def with_value(
        self, collection: RawCollection, key: str, values: Sequence[str]
    ) -> list[tuple[str, str]]:
        """The value and the id of each record that has one of the values there, oldest first."""
        return self._sql.execute(
            "SELECT m.string_value, e.embedding_id FROM embedding_metadata AS m "  # noqa: S608
            "JOIN embeddings AS e ON e.id = m.id WHERE m.key = ? AND e.segment_id = ? "
            f"AND m.string_value IN ({places(values)}) ORDER BY e.id",
            (key, self._segment(collection, "METADATA"), *values),
        ).fetchall()

    def tally(self, collections: Sequence[RawCollection]) -> Tally:
        """Counts of the records of all the collections together."""
        segments = [self._segment(collection, "METADATA") for collection in collections]
        total = sum(map(self.count, collections))
        sources = self._counts(_OF_SOURCE, segments)
        sources[UNKNOWN] += total - sources.total()
        months = self._counts(_IN_MONTH, segments)
        for month in [m for m in months if m < "0001"]:  # dates that no calendar of ours has
            del months[month]
        months[UNKNOWN] += total - months.total()
        return Tally(
            most_first(self._counts(_WITH_TAG, segments)),
            most_first(+sources),
            latest_first(+months),
        )

    def _counts(self, question: str, segments: list[str]) -> Counter[str]:
        rows = f"SELECT id FROM embeddings WHERE segment_id IN ({places(segments)})"  # noqa: S608
        counted: Any = self._sql.execute(question.format(rows=rows), segments)
        return Counter({name: count for name, count in counted if name is not None})
