"""The files that the programs of edge/ need, found by following their imports: what install.sh copies and tests check.

python3 edge/needed.py                       # edge/listen.py, edge/page.py, ..., src/audio.py, ...: a line each
files(root), modules(root)                   # paths below the repository
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGES = ("edge", "src")
# Made by running it, or by Python: no part of the program.
MADE = ("__pycache__", "record")
MADE_SUFFIXES = (".pyc", ".sqlite", ".sqlite-wal", ".sqlite-shm")


def files(root: Path) -> list[Path]:
    """All of edge/, and the modules of src/ that it imports, relative to `root`."""
    mine = (path.relative_to(root) for path in (root / "edge").rglob("*") if path.is_file())
    kept = {path for path in mine if not set(path.parts) & set(MADE) and not path.name.endswith(MADE_SUFFIXES)}
    return sorted(kept | set(modules(root)))


def modules(root: Path) -> list[Path]:
    """The Python files of edge/, and those of the project that they import, at once or later, relative to `root`."""
    waiting = sorted((root / "edge").glob("*.py"))
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += [root / package / "__init__.py" for package in PACKAGES]
            waiting += [file for name in _imported(path) if (file := _file(root, name)) is not None]
    return sorted(path.relative_to(root) for path in found)


def _imported(path: Path) -> list[str]:
    """Names that a file imports, anywhere in it: "src.audio" for `from src.audio import ...` and for `from src import audio`."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _file(root: Path, name: str) -> Path | None:
    """The file of a module of the project; None if it is another's, or no module."""
    if name.split(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*name.split(".")).with_suffix(".py")
    return path if path.is_file() else None


if __name__ == "__main__":
    sys.stdout.write("".join(f"{path}\n" for path in files(Path(__file__).resolve().parent.parent)))
