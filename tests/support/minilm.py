"""A real embedding model without a download: the small model, from its packages."""

from pathlib import Path

from tribal_mcp.embedding.model_files import small_files


def place_model(folder: Path) -> Path:
    """Place the files of the model into a folder, which is created."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in small_files().items():
        (folder / name).symlink_to(path)
    return folder
