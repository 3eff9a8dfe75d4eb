"""Settings and limits. The only reader of the environment.

Every setting has a `TRIBAL_…` variable of its own and a default that works; README.md has the
table.
"""

import os
import tempfile
from functools import cached_property
from pathlib import Path

from platformdirs import user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tribal_mcp.errors import UsageError
from tribal_mcp.portability.limits import Limits


class LimitSettings(BaseSettings, Limits):
    """The limits of a bundle, from the environment."""

    model_config = SettingsConfigDict(env_prefix="TRIBAL_LIMIT_", frozen=True)


class Settings(BaseSettings):
    """Where the store is and what embeds; each is `TRIBAL_<NAME>` in the environment."""

    model_config = SettingsConfigDict(env_prefix="TRIBAL_", frozen=True)

    data_dir: Path = Field(
        default_factory=lambda: user_data_path("tribal-mcp"),
        description="the Chroma folder; our own files lie in it too",
    )
    collection: str = Field("memories", min_length=3, description="the collection in it")
    embedding_provider: str = Field("", description="who makes the vectors, such as openai")
    embedding_model: str = Field("", description="the model that makes the vectors")
    embedding_dimensions: int = Field(0, ge=0, description="numbers in its vectors")
    bundle_dirs: str = Field("", description="folders for bundles, separated like PATH")
    lock_timeout_s: float = Field(60.0, gt=0, description="how long to wait for another writer")

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @cached_property
    def bundle_dir(self) -> Path:
        """The folder that gets a bundle when no path is given."""
        return self._set_dirs[0] if self._set_dirs else self.data_dir / "bundles"

    @cached_property
    def allowed_dirs(self) -> tuple[Path, ...]:
        """The folders that bundles may be read from and written to."""
        if self._set_dirs:
            return self._set_dirs
        project = Path(os.environ.get("CLAUDE_PROJECT_DIR") or Path.cwd())
        # Some clients start their servers in the root of the disk: that allows nothing.
        return tuple(
            path
            for path in (self.bundle_dir, project, Path(tempfile.gettempdir()))
            if path != Path(path.anchor)
        )

    @cached_property
    def _set_dirs(self) -> tuple[Path, ...]:
        try:
            dirs = tuple(
                Path(p).expanduser() for p in self.bundle_dirs.split(os.pathsep) if p.strip()
            )
        except RuntimeError as error:
            raise UsageError(f"TRIBAL_BUNDLE_DIRS: {error}") from None
        for path in dirs:
            if not path.is_absolute():
                raise UsageError(
                    f"TRIBAL_BUNDLE_DIRS holds {str(path)!r}, which is not an absolute path. "
                    "Write each folder from the root, or with ~."
                )
        return dirs


def load() -> tuple[Settings, Limits]:
    """The settings and limits of this environment.

    Raises:
        UsageError: a variable has a value that can't be; the message names it.
    """
    try:
        return Settings(), LimitSettings()
    except ValidationError as error:
        prefix = "TRIBAL_LIMIT_" if error.title == LimitSettings.__name__ else "TRIBAL_"
        problems = "; ".join(
            f"{prefix}{str(problem['loc'][0]).upper()} is {problem['input']!r:.60}: {problem['msg']}"
            for problem in error.errors()
        )
        raise UsageError(f"{problems}. Correct it, or unset it for its default.") from None
