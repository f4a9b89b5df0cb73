"""Where things are kept, so that scripts find what others wrote."""

from __future__ import annotations

from pathlib import Path

from src.errors import UserError
from src.recipe import Recipe

PREPARED = Path("input/prepared")
RUNS = Path("runs")


def prepared_folder(data: Path, recipe: Recipe) -> Path:
    """Windows prepared from a data folder by a recipe: input/prepared/<data's name>/<recipe's id>."""
    return PREPARED / data.resolve().name / recipe.prepared_id


def fold_folder(run: Path, fold: int) -> Path:
    """One fold of a run: runs/<model>/fold<k>."""
    return run / f"fold{fold}"


def latest_prepared(data: Path) -> Path:
    """The folder of windows that prepare.py last finished for a data folder. Raises UserError if there is none."""
    described = sorted((PREPARED / data.resolve().name).glob("*/prepared.json"), key=lambda path: path.stat().st_mtime)
    if not described:
        raise UserError(f"no windows are prepared for {data}: run python prepare.py --data {data}")
    return described[-1].parent
