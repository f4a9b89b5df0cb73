"""What `train.py --list-models` prints: every backbone of the registry, and where its weights are or how to get them.

print(text())         # in under two seconds: nothing is loaded
table()               # the same as a table
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from src.backbones import REGISTRY, Backbone, cached, kept_by_kagglehub

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("name", "handle", "input", "features", "parameters", "weights")
BY_PATH = """
Any other embedding model of audio is given by its path: --model FOLDER (a SavedModel) or --model FILE.tflite, with
--sample-rate and --window-seconds where it does not say itself what it hears; a SavedModel of images likewise. Parameters are
without the head. Handles are looked up in $TFHUB_CACHE_DIR first, as SHA-1 of the handle; --weights FOLDER takes precedence."""


def table() -> pd.DataFrame:
    """A row a backbone: name, handle, input, features, parameters, weights."""
    import pandas as pd

    return pd.DataFrame(_rows(), columns=list(COLUMNS))


def text() -> str:
    """The table as text, its columns aligned, and how to give a model that is not in it."""
    rows = [COLUMNS, *((*row[:3], f"{row[3]}", f"{row[4] / 1e6:.1f} M", row[5]) for row in _rows())]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if column in (3, 4) else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths))
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    return "\n".join(lines) + "\n" + BY_PATH


def _rows() -> list[tuple]:
    return [
        (each.name, _handle(each), describe_input(each), each.features, each.parameters, weights_of(each))
        for each in REGISTRY.values()
    ]


def _handle(backbone: Backbone) -> str:
    found = cached(backbone)
    return found[0] if found else backbone.handle or "-"


def describe_input(backbone: Backbone) -> str:
    """What a backbone takes, in words: "224x224x3 in [0, 1]" or "5 s at 32000 Hz"."""
    if backbone.kind == "audio":
        length = f"{backbone.window_seconds:g} s" if backbone.window_seconds else "any length"
        return f"{length} at {backbone.sample_rate} Hz"
    if not backbone.size:
        return "the spectrogram in [0, 1]"
    low, high = backbone.input_range
    return f"{backbone.size}x{backbone.size}x3 in [{low:g}, {high:g}]"


def weights_of(backbone: Backbone) -> str:
    """Where a backbone's weights are on this machine, or whence they come."""
    if backbone.path:
        return f"in {backbone.path}"
    if not backbone.handle:
        return "none: starts at random"
    found = cached(backbone)
    if found is not None:
        return f"in {found[1]}"
    folder = kept_by_kagglehub(backbone)
    if folder is not None:
        return f"in {folder}"
    return "download: tfhub.dev" + (f" or kaggle {backbone.kaggle}" if backbone.kaggle else "")
