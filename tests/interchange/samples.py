"""The sample sources in tests/data/interchange, and what each must be read as.

Beside `<sample>` lies `<sample>.expected.json`: the format, the entries in order, the ids of the
tombstones, the number of records that are left out by reason, and those that are rejected.
`python -m tests.interchange.samples NAME…` writes that file for new samples; read it before you
commit it.
"""

import io
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tribal_mcp.files.archives import origin_of_file
from tribal_mcp.files.origins import FolderOrigin, Origin
from tribal_mcp.interchange.base import Options
from tribal_mcp.interchange.convert import Conversion, convert
from tribal_mcp.interchange.formats import Recognition, named, recognise
from tribal_mcp.interchange.source import Source
from tribal_mcp.portability.bundle.reader import BundleReader
from tribal_mcp.portability.limits import DEFAULT_LIMITS, Limits
from tribal_mcp.portability.memory import MemoryEntry
from tribal_mcp.portability.memory_json import entry_to_dict

SAMPLES = Path(__file__).parents[1] / "data" / "interchange"
EXPECTED = ".expected.json"


def sample_names() -> list[str]:
    """The names of the samples."""
    return sorted(p.name.removesuffix(EXPECTED) for p in SAMPLES.glob(f"*{EXPECTED}"))


def source_at(path: Path, limits: Limits = DEFAULT_LIMITS) -> Source:
    """The source at a path, as an import opens it."""
    if path.is_dir():
        return Source(FolderOrigin(path.parent, path, path.name, limits))
    origin: Origin = origin_of_file(path.name, io.BytesIO(path.read_bytes()), limits)
    return Source(origin)


def source_of(data: bytes, name: str = "file") -> Source:
    """The source of a file with this content."""
    return Source(origin_of_file(name, io.BytesIO(data), DEFAULT_LIMITS))


def source_with(folder: Path, files: Mapping[str, str], *, hidden: bool = False) -> Source:
    """The source of a folder with these text files, which is made."""
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    return Source(FolderOrigin(folder.parent, folder, folder.name, DEFAULT_LIMITS, hidden))


def read_sample(
    source: Source,
    options: Options = Options(),  # noqa: B008 - immutable
    format_name: str = "",
) -> tuple[Conversion, list[MemoryEntry], bytes]:
    """Convert a source: what became of its records, its entries, and the bundle."""
    found: Recognition | None = named(format_name, source) if format_name else recognise(source)
    assert found is not None, f"{source.name} is not recognised"
    conversion = Conversion(found.format, found.evidence)
    out = io.BytesIO()
    convert(source, conversion, out, options)
    reader = BundleReader(io.BytesIO(out.getvalue()))
    reader.verify(strict=True)
    entries = [e for batch in reader.batches(100) for e in batch if isinstance(e, MemoryEntry)]
    return conversion, entries, out.getvalue()


def outcome(conversion: Conversion, entries: list[MemoryEntry], bundle: bytes) -> dict[str, Any]:
    """What is compared with the expected file."""
    deleted = [d for line in bundle.split(b"\n") if (d := orjson.loads(line).get("deleted"))]
    return {
        "format": conversion.format.name,
        "found": conversion.found,
        "left_out": dict(sorted(Counter(conversion.left_out).items())),
        "rejected": list(map(str, conversion.rejected)),
        "deleted": deleted,
        "entries": [entry_to_dict(entry) for entry in entries],
    }


def main() -> None:
    for name in sys.argv[1:]:
        found = outcome(*read_sample(source_at(SAMPLES / name)))
        text = json.dumps(found, indent=1, ensure_ascii=False)
        (SAMPLES / f"{name}{EXPECTED}").write_text(text + "\n", encoding="utf-8")
        print(name, found["format"], found["found"], len(found["entries"]))  # noqa: T201


if __name__ == "__main__":
    main()
