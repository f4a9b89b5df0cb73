"""Where things are kept, so that scripts find what others wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from src import storage
from src.errors import UserError
from src.recipe import Recipe

if TYPE_CHECKING:
    from src.storage import Place

RUNS = Path("runs")


def prepared_folder(root: Place, data: Place, recipe: Recipe) -> Place:
    """Windows prepared from a data folder by a recipe: <root>/<data's name>/<recipe's id>."""
    return root / storage.name_of(data) / recipe.prepared_id


def fold_folder(run: Path, fold: int) -> Path:
    """One fold of a run: runs/<model>/fold<k>."""
    return run / f"fold{fold}"


def embeddings_folder(root: Place, data: Place) -> Path:
    """Where embeddings of a data folder's windows are kept: beside them, or with what can be made again if they are remote."""
    return (storage.user_cache() if storage.is_remote(root) else root) / "embeddings" / storage.name_of(data)


def find_prepared(root: Place, data: Place) -> Place:
    """The folder of windows that prepare.py last finished for a data folder, or `root` itself if it is one.

    Raises UserError if there is none, or only of another data folder of the same name.
    """
    with storage.reachable(root):
        if (root / "prepared.json").exists():
            return root
        found = list((root / storage.name_of(data)).glob("*/prepared.json"))
    if not found:
        raise UserError(f"no windows are prepared for {data} under {root}: run python prepare.py --data {data}")
    ours = [path for path in found if _is_of(path, data)]
    if not ours:
        raise UserError(
            f"{found[0].parent}: was prepared from {_source(found[0])}, not from {data}; run python prepare.py --data {data}, "
            "or give the --data that it was prepared from"
        )
    return max((_changed(path), str(path), path) for path in ours)[2].parent


def all_prepared(root: Place) -> Iterator[dict]:
    """Each folder of windows under a root: folder, bytes, and what its prepared.json says, if it is whole."""
    try:
        files = storage.listing(root)
    except FileNotFoundError:
        return
    folders: dict[str, int] = {}
    for name, stamp in files.items():
        parts = name.split("/")
        if len(parts) >= 3:
            folder = "/".join(parts[:2])
            folders[folder] = folders.get(folder, 0) + max(stamp.size, 0)
    for folder, size in folders.items():
        described = {}
        if f"{folder}/prepared.json" in files:
            described = json.loads(storage.read_text(root / folder / "prepared.json"))
        yield {"folder": root / folder, "bytes": size, **described}


def _source(described: Place) -> str:
    """The data folder that a prepared.json names; "" if it is damaged."""
    try:
        return json.loads(storage.read_text(described))["source"]["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _is_of(described: Place, data: Place) -> bool:
    """Whether windows were prepared from a data folder. What cannot be told is left to whoever opens them."""
    source, asked = _source(described), storage.absolute(str(data))
    if source in ("", asked):
        return True
    remote = storage.is_remote(data) or "://" in source
    return not remote and Path(source).resolve() == Path(asked).resolve()


def _changed(path: Place) -> float:
    return path.fs.modified(path.path).timestamp() if storage.is_remote(path) else path.stat().st_mtime
