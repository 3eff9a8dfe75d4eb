"""Writes a COGX archive with cognee's own writer, and prints the records that hold a text."""

import json
import sys
from datetime import UTC, datetime

from cognee.modules.migration.cogx import (
    COGXArchiveWriter,
    COGXDocument,
    COGXEntity,
    COGXEpisode,
    COGXFact,
    COGXMemory,
    COGXMemoryBlock,
    COGXScope,
    COGXTurn,
)

CREATED = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SCOPE = COGXScope(user_id="anna")
RECORDS = [
    COGXMemory(
        external_system="mem0",
        external_id="m1",
        content="Zürich has\ntwo lines.",
        categories=["places"],
        created_at=CREATED,
        scope=SCOPE,
    ),
    COGXMemory(external_id="m2", content="Deploys run from the release branch only."),
    COGXEntity(external_id="e1", name="Anna", entity_type="person", description="writes Python"),
    COGXEntity(external_id="e2", name="Berlin"),
    COGXFact(external_id="f1", subject_ref="e1", predicate="lives in", object_ref="e2"),
    COGXFact(
        external_id="f2",
        subject_ref="e1",
        predicate="likes",
        object_ref="tea",
        fact_text="Anna likes tea most.",
    ),
    COGXMemoryBlock(external_id="b1", label="persona", value="Answers briefly."),
    COGXDocument(external_id="d1", title="Runbook", content="Restart the queue first."),
    COGXEpisode(external_id="p1", turns=[COGXTurn(role="user", content="Hello")]),
]
with COGXArchiveWriter(sys.argv[1], source_system="cognee") as writer:
    for record in RECORDS:
        writer.write(record)
    writer.write_raw_node({"id": "n1", "type": "Chunk", "text": "raw"})
when = CREATED.isoformat()
found = [
    {"id": "m1", "text": "Zürich has\ntwo lines.", "tags": ["places"], "created": when},
    {"id": "m2", "text": "Deploys run from the release branch only."},
    {"id": "e1", "text": "Anna: writes Python"},
    {"id": "f1", "text": "Anna lives in Berlin", "related_to": ["e1"]},
    {"id": "f2", "text": "Anna likes tea most.", "related_to": ["e1"]},
    {"id": "b1", "text": "Answers briefly."},
    {"id": "d1", "text": "Restart the queue first."},
]
print(json.dumps({"memories": found, "left_out": 3}))
