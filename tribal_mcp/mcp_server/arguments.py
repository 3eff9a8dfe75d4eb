"""The arguments of the tools, each described once."""

import json
from typing import Annotated, get_args

from pydantic import BeforeValidator, Field, StrictBool, WithJsonSchema

from tribal_mcp.portability.choices import ConflictResolution
from tribal_mcp.services import requests


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if not isinstance(value, str):
        raise ValueError("it must be JSON text or an object")  # noqa: TRY004 - pydantic's way
    return value


# Which memories

Tags = Annotated[
    list[str],
    Field(description="Only memories with any of these tags."),
]
DateFrom = Annotated[
    str,
    Field(description="Created at or after this ISO 8601 time; UTC by default."),
]
DateTo = Annotated[
    str,
    Field(description="Created before this time; a date alone includes that day."),
]
Since = Annotated[
    str,
    Field(description="Only what was added, changed or deleted since a time (ISO 8601) or bundle."),
]
IncludeRelated = Annotated[
    StrictBool,
    Field(description="Also what they refer to, and so on."),
]
Reproducible = Annotated[StrictBool, Field(description="The same memories give the same bytes.")]

# Bundles

OutputPath = Annotated[
    str,
    Field(
        description="The file to write (.json or .jsonl, then .gz, .zst, .age), or the folder. "
        "Empty: a dated file."
    ),
]
InputPath = Annotated[
    str,
    Field(description="A bundle, or another system's file, folder or archive."),
]
# Annotated as text, so that the SDK does not parse it first and lose what a strict reader refuses.
BundleJson = Annotated[
    str,
    BeforeValidator(_as_text),
    WithJsonSchema({"type": "string"}),
    Field(description="Instead of input_path: a small bundle as JSON text."),
]
# Strict: "false" in quotes is text, and text is never interpreted as a boolean.
Overwrite = Annotated[StrictBool, Field(description="Replace what is at output_path.")]
AllowSmaller = Annotated[
    StrictBool, Field(description="Also if it has many more memories than the new one.")
]
ExportFormat = Annotated[
    str, Field(description="Another system's format instead of a bundle, such as okf or csv.")
]
OnSecrets = Annotated[
    requests.OnSecrets,
    WithJsonSchema({"type": "string", "enum": [*filter(None, get_args(requests.OnSecrets))]}),
    Field(description="Search them for passwords and keys."),
]
Format = Annotated[str, Field(description="Another system's format, if it is not recognised.")]
Mapping = Annotated[
    list[str],
    Field(
        description="If no format fits: our field and theirs, such as "
        '["content=text", "created_at=date"].'
    ),
]
MirrorDeletions = Annotated[
    StrictBool,
    Field(description="Delete what this source had before and no longer has."),
]
OnConflict = Annotated[
    requests.OnConflict | None,
    WithJsonSchema({"type": "string", "enum": list(ConflictResolution)}),
    Field(
        description="If another memory has the id: skip keeps it, overwrite replaces it, merge "
        "keeps the newer updated_at, keep_both adds the bundle's under a new id, fail refuses all, "
        "mirror makes the store equal to the bundle. Default: skip; for other systems merge."
    ),
]
Embeddings = Annotated[
    requests.Embeddings,
    Field(
        description="Vectors: auto keeps them if the models match, else drops them; keep and drop "
        "always do; reembed also computes what is missing."
    ),
]
Strict = Annotated[
    StrictBool, Field(description="Refuse the whole bundle if any entry is invalid.")
]
RestoreDeleted = Annotated[StrictBool, Field(description="Also import what was deleted here.")]
SkipSameText = Annotated[
    StrictBool,
    Field(description="Leave out new memories whose text another memory has."),
]
WritePlan = Annotated[
    StrictBool,
    Field(description="Also write what happens to each entry to a file."),
]

# Single memories

Content = Annotated[
    str,
    Field(
        description="The memory: one fact, preference or decision, worded to be understood on its "
        "own in a year."
    ),
]
NewTags = Annotated[list[str], Field(description='To filter by later, such as ["work"].')]
About = Annotated[str, Field(description="Its origin or subject.")]
SourceType = Annotated[
    requests.SourceType,
    # Gemini refuses an empty value in an enum; by default the argument is left out.
    WithJsonSchema({"type": "string", "enum": [*filter(None, get_args(requests.SourceType))]}),
    Field(
        description="user_explicit: the user said it; auto_capture: you inferred it; "
        "cross_instance: another agent did. Default: correction with supersedes, else "
        "user_explicit."
    ),
]
Confidence = Annotated[float, Field(description="How certain it is.", ge=0, le=1, strict=True)]
Supersedes = Annotated[str, Field(description="The id of the memory that it corrects.")]
RelatedTo = Annotated[list[str], Field(description="Ids of others.")]
Query = Annotated[str, Field(description="A question or keywords.")]
Count = Annotated[int, Field(description="How many at most.", ge=1, le=20, strict=True)]
Page = Annotated[int, Field(description="Without a query: the page.", ge=1, strict=True)]
Ids = Annotated[list[str], Field(description="From tribal_recall; up to 100.")]

# Changes

DryRun = Annotated[StrictBool, Field(description="Only show what would happen.")]
Conflicts = Annotated[
    StrictBool, Field(description="List what was changed on two machines at once.")
]
Resolve = Annotated[str, Field(description="The memory_id of a conflict: keep what is visible.")]
Version = Annotated[
    int, Field(description="With resolve: the listed version to take instead.", ge=0, strict=True)
]
Operations = Annotated[
    StrictBool, Field(description="List the imports and deletions of all machines.")
]
Withdraw = Annotated[
    str,
    Field(
        description="One of them, to withdraw on all machines: delete what it added, restore what "
        "it changed. Use dry_run=true first and show the counts."
    ),
]
All = Annotated[StrictBool, Field(description="For every memory.")]
Point = Annotated[
    str,
    Field(description="The restore_point of a change. Empty: the newest not undone."),
]
Discard = Annotated[
    StrictBool, Field(description="Also revert memories edited after the change; else they stay.")
]
