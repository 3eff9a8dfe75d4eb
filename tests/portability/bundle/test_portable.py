"""Bundles in memory, their manifests, and which embedding models are compatible."""

import copy
from typing import Any

import pytest

from tests.support.bundles import MODEL, as_dict, manifest
from tests.support.examples import memories, memory
from tribal_mcp.errors import BundleError, UsageError
from tribal_mcp.portability.bundle.portable import PortableBundle
from tribal_mcp.portability.manifest import (
    EmbeddingManifest,
    EmbeddingMetadata,
    create_embedding_metadata,
)


def test_a_bundle_reads_back_from_its_dict() -> None:
    bundle = PortableBundle(manifest(None), memories(3))
    form = bundle.to_dict()
    assert form["manifest"]["memory_count"] == 3
    again = PortableBundle.from_dict(copy.deepcopy(form))
    assert again.entries == bundle.entries
    assert again.manifest.embedding == MODEL
    assert again.to_dict() == form


def _path(form: dict[str, Any], *keys: Any) -> dict[str, Any]:  # noqa: ANN401
    for key in keys:
        form = form[key]
    return form


REFUSED: dict[str, tuple[tuple[str, ...], Any, str]] = {
    # the path, its value (... for a missing one), the reason
    "no manifest": (("manifest",), ..., "manifest is missing"),
    "a manifest of text": (("manifest",), "x", "manifest is not a JSON object"),
    "no entries": (("entries",), ..., "entries is missing or not a list"),
    "entries that are an object": (("entries",), {}, "entries is missing or not a list"),
    "a larger memory count": (
        ("manifest", "memory_count"),
        999,
        "has 2 entries, but its manifest says 999",
    ),
    "a count as text": (("manifest", "memory_count"), "2", "must be 0 or more"),
    "no version": (("manifest", "schema_version"), ..., "schema_version is missing"),
    "an unknown version": (("manifest", "schema_version"), "2.0", "reads 1.x"),
    "no model": (("manifest", "embedding"), ..., "embedding is missing"),
    "a model of text": (("manifest", "embedding"), "mini", "is not a JSON object"),
    "no model name": (("manifest", "embedding", "model_name"), ..., "model_name is missing"),
    "dimensions as text": (("manifest", "embedding", "dimensions"), "384", "is '384'"),
    "dimensions as float": (("manifest", "embedding", "dimensions"), 8.0, "is 8.0"),
    "dimensions that are true": (("manifest", "embedding", "dimensions"), True, "is True"),
    "negative dimensions": (("manifest", "embedding", "dimensions"), -8, "is -8"),
    "a provider of numbers": (("manifest", "embedding", "provider"), 5, "provider is 5"),
    "an empty integrity block": (("integrity",), {}, "no valid memory_count and sha256"),
    "a wrong hash": (("integrity",), {"memory_count": 2, "sha256": "00"}, "was changed"),
    "a wrong count": (
        ("integrity",),
        {"memory_count": 3, "sha256": "00"},
        "2 entries instead of 3",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_invalid_bundle_is_refused(case: str) -> None:
    path, value, reason = REFUSED[case]
    form = as_dict(2)
    parent = _path(form, *path[:-1])
    if value is ...:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    with pytest.raises(BundleError, match=reason):
        PortableBundle.from_dict(form)


@pytest.mark.parametrize("form", [None, [], "x", 5])
def test_only_an_object_is_a_bundle(form: object) -> None:
    with pytest.raises(BundleError, match="not a JSON object"):
        PortableBundle.from_dict(form)


REJECTED: dict[str, tuple[dict[Any, Any], str]] = {
    "tags as text": ({"tags": "work"}, "tags is text"),
    "a confidence of 9.5": ({"confidence": 9.5}, "confidence is 9.5"),
    "a confidence of NaN": ({"confidence": float("nan")}, "NaN"),
    "NaN in the vector": ({"embedding": [float("nan")] * 8}, "NaN"),
    "1e39 in the vector": ({"embedding": [1e39] * 8}, "float32"),
    "wrong dimensions": ({"embedding": [1.0]}, "embedding has 1 dimension;"),
    "a duplicate id": ({"id": "memory-0"}, "duplicate id, first used at entry 1"),
    "NaN in the metadata": ({"metadata": {"x": [float("nan")]}}, "NaN"),
    "an integer beyond 64 bits": ({"metadata": {"x": 2**64}}, "beyond 64 bits"),
    "a lone surrogate": ({"content": "\ud800"}, "lone surrogate"),
    "a tuple": ({"extra": (1,)}, "a tuple is not a JSON value"),
    "a key that is not text": ({5: 1}, "the key 5 is not text"),
    "no date": ({"created_at": ""}, "created_at is ''"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_one_invalid_entry_is_rejected_and_the_others_are_read(case: str) -> None:
    change, reason = REJECTED[case]
    form = as_dict(3)
    form["entries"][1] |= change
    bundle = PortableBundle.from_dict(form)
    assert [entry.id for entry in bundle.entries] == ["memory-0", "memory-2"]
    assert [item.where for item in bundle.rejected] == ["entry 2"]
    assert reason in bundle.rejected[0].reason
    with pytest.raises(BundleError, match="1 entry that could not be read"):
        bundle.to_dict()


def test_a_bundle_with_a_value_that_json_cant_carry_is_not_written() -> None:
    bundle = PortableBundle(manifest(None), [memory(1, metadata={"x": float("nan")})])
    with pytest.raises(BundleError, match="'memory-1' can't be written: a number is NaN"):
        bundle.to_dict()


def test_unknown_fields_of_a_manifest_are_kept() -> None:
    form = as_dict(0)["manifest"]
    form["licence"] = {"name": "CC0"}
    form["embedding"]["pooling"] = "mean"
    form["schema_version"] = "1.3"
    assert EmbeddingManifest.from_dict(form).to_dict() == form


COMPATIBLE = {
    # a, b, whether their vectors can be compared
    "the same": ("mini", "mini", True),
    "in other case": ("BAAI/bge-small-en-v1.5", "baai/BGE-small-en-v1.5", True),
    "with the owner left out": ("sentence-transformers/all-MiniLM-L6-v2", "all-MiniLM-L6-v2", True),
    "with a tag": ("nomic-embed-text:latest", "nomic-embed-text", True),
    "with white space": (" mini ", "mini", True),
    "of two owners": ("a/mini", "b/mini", False),
    "another": ("text-embedding-3-small", "text-embedding-3-large", False),
    "another version": ("bge-small-en", "bge-small-en-v1.5", False),
    "another tag": ("nomic-embed-text:v1.5", "nomic-embed-text", False),
    "unknown": ("unknown", "unknown", False),
    "empty": ("", "", False),
}


@pytest.mark.parametrize("case", COMPATIBLE)
def test_names_of_the_same_model_are_compatible(case: str) -> None:
    a, b, expected = COMPATIBLE[case]
    one, other = EmbeddingMetadata(a, 384, "openai"), EmbeddingMetadata(b, 384, "onnx")
    assert one.is_compatible_with(other) is other.is_compatible_with(one) is expected


def test_models_with_other_dimensions_are_not_compatible() -> None:
    small = create_embedding_metadata("text-embedding-3-small", 512, "openai")
    assert not small.is_compatible_with(create_embedding_metadata("text-embedding-3-small", 1536))


@pytest.mark.parametrize(
    "arguments", [("", 384), (" ", 384), ("m", 0), ("m", -1), ("m", "384"), ("m", 1.0)]
)
def test_a_model_needs_a_name_and_dimensions(arguments: tuple[Any, Any]) -> None:
    with pytest.raises(UsageError):
        create_embedding_metadata(*arguments)
