"""Embedding models whose dimensions are known, so that nobody has to set them."""

from tribal_mcp.portability.manifest import same_model

_DIMENSIONS = {
    384: (
        "all-MiniLM-L6-v2", "all-MiniLM-L6-v2-int8", "all-MiniLM-L12-v2", "all-minilm",
        "multi-qa-MiniLM-L6-cos-v1",
        "paraphrase-MiniLM-L6-v2", "paraphrase-multilingual-MiniLM-L12-v2", "bge-small-en-v1.5",
        "e5-small-v2", "multilingual-e5-small", "gte-small", "embed-english-light-v3.0",
        "embed-multilingual-light-v3.0",
    ),
    512: ("voyage-3-lite",),
    768: (
        "all-mpnet-base-v2", "multi-qa-mpnet-base-dot-v1", "paraphrase-multilingual-mpnet-base-v2",
        "bge-base-en-v1.5", "e5-base-v2", "multilingual-e5-base", "gte-base", "nomic-embed-text",
        "nomic-embed-text-v1", "nomic-embed-text-v1.5", "embeddinggemma", "embeddinggemma-300m",
        "jina-embeddings-v2-base-en", "text-embedding-004",
    ),
    1024: (
        "bge-large-en-v1.5", "bge-m3", "e5-large-v2", "multilingual-e5-large", "gte-large",
        "mxbai-embed-large", "mxbai-embed-large-v1", "snowflake-arctic-embed", "mistral-embed",
        "jina-embeddings-v3", "voyage-3", "voyage-3-large", "voyage-3.5", "voyage-3.5-lite",
        "voyage-code-3", "embed-english-v3.0", "embed-multilingual-v3.0",
    ),
    1536: ("text-embedding-3-small", "text-embedding-ada-002", "codestral-embed", "embed-v4.0"),
    2048: ("jina-embeddings-v4",),
    3072: ("text-embedding-3-large", "gemini-embedding-001"),
}  # fmt: skip


def dimensions_of(model_name: str) -> int:
    """Numbers in each vector of a model; 0 if it is not known."""
    return next(
        (
            dimensions
            for dimensions, names in _DIMENSIONS.items()
            if any(same_model(name, model_name) for name in names)
        ),
        0,
    )
