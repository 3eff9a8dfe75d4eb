"""Compares tribal-mcp with plain Chroma and writes docs/performance.md.

Every figure is a ratio of two sides that alternate within one run. Each side is a separate process
that starts its clock after its imports, and reports its peak memory. `python bench.py` runs
everything (about half an hour); `python bench.py --quick` runs one small size once.
"""

import argparse
import asyncio
import json
import os
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BATCH = 1000
QUICK = [(2_000, 384)]
FULL = [(10_000, 384), (50_000, 384), (20_000, 1536), (200_000, 384)]
WORDS = ["agent", "invoice", "deploy", "memory", "index", "Zürich", "東京", "café", "postgres"]

Sides = dict[str, Callable[[Path, int, int], float]]


# The two sides, each in a separate process


def _vectors(start: int, count: int, dimensions: int) -> Any:
    import numpy as np

    numbers = np.random.default_rng(start).normal(size=(count, dimensions))
    return (numbers / np.linalg.norm(numbers, axis=1, keepdims=True)).astype(np.float32)


def _content(number: int) -> str:
    return " ".join(WORDS[(number * k) % len(WORDS)] for k in range(1, 25)) + f" #{number}"


def make_bundle(folder: Path, count: int, dimensions: int) -> float:
    """Write a bundle of generated memories, and the same memories for the baseline."""
    import orjson

    from tribal_mcp.portability.bundle.writer import BundleWriter
    from tribal_mcp.portability.choices import MemorySource
    from tribal_mcp.portability.manifest import EmbeddingManifest, create_embedding_metadata
    from tribal_mcp.portability.memory import MemoryEntry
    from tribal_mcp.stores.record import to_metadata

    manifest = EmbeddingManifest(create_embedding_metadata("bench", dimensions), count)
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    with (
        (folder / "bundle.json").open("wb") as file,
        (folder / "baseline.jsonl").open("wb") as plain,
    ):
        writer = BundleWriter(file, manifest)
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            entries = [
                MemoryEntry(
                    id=f"memory-{start + n:08d}",
                    content=_content(start + n),
                    embedding=vector,
                    source_instance="claude-code",
                    source_type=MemorySource.AUTO_CAPTURE,
                    created_at=begin + timedelta(seconds=start + n),
                    tags=["work", "bench"] if n % 2 else ["home"],
                )
                for n, vector in enumerate(_vectors(start, size, dimensions))
            ]
            writer.write(entries)
            plain.writelines(
                orjson.dumps(
                    {
                        "id": e.id,
                        "content": e.content,
                        "embedding": e.embedding,
                        "metadata": to_metadata(e),
                    },
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )
                + b"\n"
                for e in entries
            )
        writer.finish()
    return 0.0


def _context(folder: Path) -> Any:
    from tribal_mcp.config import LimitSettings, Settings
    from tribal_mcp.services.context import Context

    return Context(Settings(data_dir=folder / "store"), LimitSettings(), trusted=True)


def _timed(context: Any, name: str, arguments: dict[str, Any]) -> float:
    from tribal_mcp.services.jobs import run

    begin = time.perf_counter()
    asyncio.run(run(context, name, arguments))
    return time.perf_counter() - begin


def import_ours(folder: Path, _count: int, _dimensions: int) -> float:
    import chromadb.api.rust  # noqa: F401 - both sides load it before the clock starts

    shutil.rmtree(folder / "store", ignore_errors=True)
    return _timed(_context(folder), "import", {"input_path": str(folder / "bundle.json")})


def import_baseline(folder: Path, _count: int, _dimensions: int) -> float:
    return _baseline(folder, with_metadata=False)


def import_baseline_metadata(folder: Path, _count: int, _dimensions: int) -> float:
    return _baseline(folder, with_metadata=True)


def _baseline(folder: Path, *, with_metadata: bool) -> float:
    import chromadb
    import numpy as np
    import orjson

    shutil.rmtree(folder / "plain", ignore_errors=True)
    begin = time.perf_counter()
    client = chromadb.PersistentClient(folder / "plain")
    collection = client.create_collection(
        "memories", embedding_function=None, configuration={"hnsw": {"space": "l2"}}
    )
    with (folder / "baseline.jsonl").open("rb") as file:
        while lines := [orjson.loads(line) for line, _ in zip(file, range(BATCH), strict=False)]:
            collection.add(
                ids=[line["id"] for line in lines],
                documents=[line["content"] for line in lines],
                embeddings=np.array([line["embedding"] for line in lines], dtype=np.float32),
                metadatas=[line["metadata"] for line in lines] if with_metadata else None,
            )
    return time.perf_counter() - begin


def dry_run(folder: Path, _count: int, _dimensions: int) -> float:
    shutil.rmtree(folder / "none", ignore_errors=True)
    from tribal_mcp.config import LimitSettings, Settings
    from tribal_mcp.services.context import Context

    context = Context(Settings(data_dir=folder / "none"), LimitSettings(), trusted=True)
    arguments = {"input_path": str(folder / "bundle.json"), "dry_run": True}
    return _timed(context, "import", arguments)


def all_skipped(folder: Path, _count: int, _dimensions: int) -> float:
    return _timed(_context(folder), "import", {"input_path": str(folder / "bundle.json")})


def export_ours(folder: Path, _count: int, _dimensions: int) -> float:
    arguments = {"output_path": str(folder / "out.json"), "overwrite": True}
    return _timed(_context(folder), "export", arguments)


def export_baseline(folder: Path, _count: int, _dimensions: int) -> float:
    import chromadb
    import numpy as np
    import orjson

    begin = time.perf_counter()
    client = chromadb.PersistentClient(folder / "store")
    collection = client.get_collection("memories", embedding_function=None)
    ids = collection.get(include=[])["ids"]
    with (folder / "plain.jsonl").open("wb") as file:
        for start in range(0, len(ids), BATCH):
            found = collection.get(
                ids=ids[start : start + BATCH], include=["documents", "metadatas", "embeddings"]
            )
            vectors = np.asarray(found["embeddings"], dtype=np.float32)
            file.writelines(
                orjson.dumps(
                    {"id": i, "content": d, "metadata": m, "embedding": v},
                    option=orjson.OPT_SERIALIZE_NUMPY,
                )
                + b"\n"
                for i, d, m, v in zip(
                    found["ids"],
                    found["documents"] or [],
                    found["metadatas"] or [],
                    vectors,
                    strict=True,
                )
            )
    return time.perf_counter() - begin


def import_folder(folder: Path, _count: int, _dimensions: int) -> float:
    shutil.rmtree(folder / "embedded", ignore_errors=True)
    return _folder_job(folder, "import", {"input_path": str(folder / "bundle.json")})


def export_folder(folder: Path, _count: int, _dimensions: int) -> float:
    arguments = {"output_path": str(folder / "out.json"), "overwrite": True}
    return _folder_job(folder, "export", arguments)


def _folder_job(folder: Path, name: str, arguments: dict[str, Any]) -> float:
    import chromadb.api.rust  # noqa: F401 - loaded before the clock starts

    from tribal_mcp.config import LimitSettings, Settings
    from tribal_mcp.services.context import Context

    settings = Settings(data_dir=folder / "embedded")
    return _timed(Context(settings, LimitSettings(), trusted=True), name, arguments)


def import_server(folder: Path, _count: int, _dimensions: int) -> float:
    return _server_job(folder, "import", {"input_path": str(folder / "bundle.json")})


def export_server(folder: Path, _count: int, _dimensions: int) -> float:
    arguments = {"output_path": str(folder / "out.json"), "overwrite": True}
    return _server_job(folder, "export", arguments)


def _server_job(folder: Path, name: str, arguments: dict[str, Any]) -> float:
    import urllib.request

    from tribal_mcp.config import LimitSettings, Settings
    from tribal_mcp.services.context import Context

    url = os.environ["BENCH_CHROMA"]
    if name == "import":
        place = "api/v2/tenants/default_tenant/databases/default_database/collections/memories"
        asked = urllib.request.Request(f"{url}/{place}", method="DELETE")  # noqa: S310
        with suppress(OSError), urllib.request.urlopen(asked):  # noqa: S310
            pass
    settings = Settings(data_dir=folder / "beside", chroma_url=url)
    return _timed(Context(settings, LimitSettings(), trusted=True), name, arguments)


def import_http(folder: Path, _count: int, _dimensions: int) -> float:
    with _served(folder, fresh=True) as port, (folder / "bundle.json").open("rb") as bundle:
        return _posted(port, "/v1/import", bundle, folder / "answer.json")


def export_http(folder: Path, _count: int, _dimensions: int) -> float:
    with _served(folder, fresh=False) as port:
        return _posted(port, "/v1/export", b"", folder / "answer.json")


@contextmanager
def _served(folder: Path, *, fresh: bool) -> Iterator[int]:
    """Start `tribal-mcp serve` and wait until it and its store process have answered."""
    if fresh:
        shutil.rmtree(folder / "served", ignore_errors=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    environment = {**os.environ, "TRIBAL_DATA_DIR": str(folder / "served")}
    command = [sys.executable, "-m", "tribal_mcp", "serve", "--port", str(port)]
    with subprocess.Popen(  # noqa: S603
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        _wait_for(f"http://127.0.0.1:{port}/v1/stats")
        yield port
        server.terminate()


def _wait_for(url: str) -> None:
    import urllib.request

    while True:
        with suppress(OSError), urllib.request.urlopen(url):  # noqa: S310
            return
        time.sleep(0.1)


def _posted(port: int, path: str, body: Any, answer: Path) -> float:
    import http.client

    begin = time.perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("POST", path, body, {"content-type": "application/json"})
    got = connection.getresponse()
    with answer.open("wb") as file:
        shutil.copyfileobj(got, file, 1 << 20)
    assert got.status == 200, answer.read_text()[:500]  # noqa: PLR2004
    return time.perf_counter() - begin


SIDES: Sides = {
    side.__name__: side
    for side in (
        make_bundle,
        import_ours,
        import_baseline,
        import_baseline_metadata,
        dry_run,
        all_skipped,
        export_ours,
        export_baseline,
        import_folder,
        import_server,
        import_http,
        export_folder,
        export_server,
        export_http,
    )
}


def run(side: str, folder: Path, count: int, dimensions: int) -> tuple[float, float]:
    """Run one side and return its seconds and MiB."""
    command = [sys.executable, __file__, "--side", side, str(folder), str(count), str(dimensions)]
    os.sync()  # so that this side does not wait for writes of the previous one
    answer = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)  # noqa: S603
    result = json.loads(answer.stdout.splitlines()[-1])
    return result["seconds"], result["mib"]


def medians(
    sides: list[str], folder: Path, count: int, dimensions: int, rounds: int
) -> dict[str, tuple[float, float]]:
    """Return the medians of each side; the sides alternate."""
    found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            found[side].append(run(side, folder, count, dimensions))
    return {
        side: (statistics.median(t for t, _ in runs), statistics.median(m for _, m in runs))
        for side, runs in found.items()
    }


# Cold start


BARE = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bare")
@server.tool()
def first() -> str:
    return ""
@server.tool()
def second() -> str:
    return ""
server.run()
"""
OURS = "from tribal_mcp.mcp_server.stdio import serve_stdio; serve_stdio()"


def tools_list_seconds(code: str) -> float:
    """Measure from the start of a server to its answer to tools/list."""
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    begin = time.perf_counter()
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for message in (
            {"id": 1, "method": "initialize", "params": hello},
            {"method": "notifications/initialized"},
            {"id": 2, "method": "tools/list"},
        ):
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        server.stdin.flush()
        while json.loads(server.stdout.readline()).get("id") != 2:  # noqa: PLR2004
            pass
        elapsed = time.perf_counter() - begin
        server.stdin.close()
        server.wait()
    return elapsed


# The report


def main() -> None:
    """Run the measurements and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one small size, one run")
    parser.add_argument(
        "sizes", nargs="*", help="sizes to measure instead of all, such as 10000x384"
    )
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        name, folder, count, dimensions = options.side
        seconds = SIDES[name](Path(folder), int(count), int(dimensions))
        mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"seconds": seconds, "mib": mib}))
        return
    rounds = 1 if options.quick else 5
    chosen = [tuple(map(int, size.split("x"))) for size in options.sizes]
    sizes = chosen or (QUICK if options.quick else FULL)
    report = Report()
    with tempfile.TemporaryDirectory() as scratch:
        for count, dimensions in sizes:
            folder = Path(scratch) / f"{count}x{dimensions}"
            folder.mkdir()
            measure(report, folder, count, dimensions, rounds)
            shutil.rmtree(folder)
        compare_servers(report, Path(scratch), rounds, quick=options.quick)
    starts = [(tools_list_seconds(OURS), tools_list_seconds(BARE)) for _ in range(rounds + 2)]
    ours, bare = (statistics.median(side) for side in zip(*starts, strict=True))
    report.starts = f"{ours / bare:.2f}"
    text = report.text(rounds)
    print(text)
    if not options.quick:
        page = ROOT / "docs" / "performance.md"
        manual = page.read_text().partition(MANUAL_PART)
        page.write_text(text + "".join(manual[1:]))


class Report:
    """Collects the rows of the tables."""

    def __init__(self) -> None:
        self.exports: list[str] = []
        self.imports: list[str] = []
        self.servers: list[str] = []
        self.starts = ""

    def text(self, rounds: int) -> str:
        """Return the page."""
        return TEMPLATE.format(
            rounds=rounds,
            exports="\n".join(self.exports),
            imports="\n".join(self.imports),
            servers="\n".join(self.servers),
            starts=self.starts,
        )


def measure(report: Report, folder: Path, count: int, dimensions: int, rounds: int) -> None:
    """Measure one size."""
    size = f"{count:,} x {dimensions}"
    print(size, file=sys.stderr)
    run("make_bundle", folder, count, dimensions)
    # Building the index of a large collection takes minutes, so it is built once.
    builds = 1 if count > 10_000 else rounds  # noqa: PLR2004
    sides = ["import_baseline", "import_baseline_metadata", "import_ours"]
    new = medians(sides if count <= 50_000 else sides[2:], folder, count, dimensions, builds)  # noqa: PLR2004
    repeated = medians(["dry_run", "all_skipped"], folder, count, dimensions, rounds)
    out = medians(["export_baseline", "export_ours"], folder, count, dimensions, rounds)

    def each(seconds: float) -> str:
        return f"{1e6 * seconds / count:,.0f}"

    ours = new["import_ours"]
    baseline, with_metadata = new.get("import_baseline"), new.get("import_baseline_metadata")
    cells = [
        size,
        each(baseline[0]) if baseline else "",
        each(ours[0]),
        f"**{ours[0] / baseline[0]:.2f}**" if baseline else "",
        f"{ours[0] / with_metadata[0]:.2f}" if with_metadata else "",
        each(repeated["dry_run"][0]),
        f"**{repeated['dry_run'][0] / ours[0]:.3f}**",
        each(repeated["all_skipped"][0]),
        f"**{repeated['all_skipped'][0] / ours[0]:.3f}**",
        f"{baseline[1]:,.0f}" if baseline else "",
        f"{ours[1]:,.0f}",
    ]
    report.imports.append(f"| {' | '.join(cells)} |")
    baseline, ours = out["export_baseline"], out["export_ours"]
    report.exports.append(
        f"| {size} | {each(baseline[0])} | {each(ours[0])} | **{ours[0] / baseline[0]:.2f}** "
        f"| {baseline[1]:,.0f} | {ours[1]:,.0f} |"
    )


def compare_servers(report: Report, folder: Path, rounds: int, *, quick: bool) -> None:
    """Compare a Chroma server and the HTTP API with the folder."""
    count = 2_000 if quick else 10_000
    print("servers", file=sys.stderr)
    run("make_bundle", folder, count, 384)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chroma = Path(sys.executable).with_name("chroma")
    place = ["--path", str(folder / "chroma"), "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen(  # noqa: S603
        [chroma, "run", *place], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        os.environ["BENCH_CHROMA"] = f"http://127.0.0.1:{port}"
        _wait_for(f"http://127.0.0.1:{port}/api/v2/heartbeat")
        kinds = ("folder", "server", "http")
        imports = medians([f"import_{kind}" for kind in kinds], folder, count, 384, rounds)
        exports = medians([f"export_{kind}" for kind in kinds], folder, count, 384, rounds)
        server.terminate()
    names = ("folder", "Chroma server", "`tribal-mcp serve`")
    for kind, name in zip(kinds, names, strict=True):
        cells = [name]
        for verb, found in (("import", imports), ("export", exports)):
            seconds, alone = found[f"{verb}_{kind}"][0], found[f"{verb}_folder"][0]
            cells += [f"{count / seconds:,.0f}", f"{seconds / alone:.2f}"]
        report.servers.append(f"| {' | '.join(cells)} |")


MANUAL_PART = "\n## Search"
"""Everything from this heading on is written by hand and kept."""

TEMPLATE = """# Performance

Measured by `make bench` on 2 shared cores, so only ratios are meaningful. The baseline is one
script that uses plain Chroma, without validation, metadata on import, or atomic files. The two
sides of each pair alternate within one run, and each starts after the data written by the previous
one is on disk. Figures are medians of {rounds} runs; imports of more than 10,000 memories ran once.
A size is memories x dimensions. Times are µs per memory; memory is the peak resident size of the
process in MiB.

## Export

| memories x dimensions | baseline | ours | ours ÷ baseline | baseline MiB | ours MiB |
|---|---:|---:|---:|---:|---:|
{exports}

## Import

The baseline writes no metadata. The column "with metadata" is the ratio to a baseline that writes
the same metadata as we do; the difference between the two is Chroma's own work on metadata. The dry
run is into an empty store and shows what we add to Chroma's work: reading, checking and planning.
For "skipped", every memory already exists and is compared with the bundle, except for its vector.
The columns "÷" are relative to the import.

| size | baseline | ours | ratio | with metadata | dry run | ÷ | skipped | ÷ | baseline MiB | MiB |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
{imports}

## Servers

10,000 x 384 with the same code on a local folder, with a Chroma server on the same machine, and
with `tribal-mcp serve` in front of a folder: memories per second, and time relative to the folder.

| | import | ÷ folder | export | ÷ folder |
|---|---:|---:|---:|---:|
{servers}

## Startup

A newly started server answers `tools/list` in {starts} x the time of a bare `MCPServer` with two
empty tools.
"""


if __name__ == "__main__":
    main()
