"""The files of a model that is in several."""

from __future__ import annotations

from pathlib import Path

from anywire.errors import ConfigError
from anywire_engine_models.model_files.file_names import name_parts, shard_name

MAX_SHARDS = 1000


def shards_of(path: Path) -> tuple[Path, ...]:
    """All files of the model whose first is ``path``. Raises `ConfigError` when some are missing or ``path`` is not the
    first."""
    parts = name_parts(path.name)
    if parts.shards <= 1:
        return (path,)
    if parts.shard != 1:
        first = shard_name(path.name, 1)
        raise ConfigError(f"the model file {path} is part {parts.shard} of {parts.shards}: give the first, {first}")
    if parts.shards > MAX_SHARDS:
        raise ConfigError(f"the model file {path} is one of {parts.shards}; at most {MAX_SHARDS} are read")
    files = tuple(path.with_name(shard_name(path.name, shard)) for shard in range(1, parts.shards + 1))
    missing = [each.name for each in files if not each.is_file()]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ConfigError(f"of the model {path} the files {', '.join(missing[:3])}{more} are missing")
    return files
