"""What is answered, as files: the competition's submission, and a table of detections with the columns

file           the recording, as it was given or found
start_s, end_s where the window lies in it, in seconds
species        eBird code
probability    the model's, in [0, 1]
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.competition import NOCALL
from src.files import written_whole
from src.predictor import Prediction

COLUMNS = ["file", "start_s", "end_s", "species", "probability"]


def detections(name: str, prediction: Prediction, labels: Sequence[str], threshold: float | np.ndarray) -> pd.DataFrame:
    """A row for each species that reaches the threshold (one for all, or float array [labels]) in a window.

    In time order, the likelier first.
    """
    windows, columns = np.nonzero(prediction.probabilities >= threshold)
    starts = prediction.start_seconds[windows]
    table = pd.DataFrame(
        {
            "file": name,
            "start_s": starts.round(3),
            # A last window is padded; what is reported ends with the audio.
            "end_s": np.minimum(starts + prediction.window_seconds, prediction.seconds).round(3),
            "species": [labels[column] for column in columns],
            "probability": prediction.probabilities[windows, columns].astype(np.float64).round(4),
        },
        columns=COLUMNS,
    )
    return table.sort_values(["start_s", "probability"], ascending=[True, False], ignore_index=True)


def write_detections(path: Path, tables: Sequence[pd.DataFrame]) -> int:
    """Write the detections of all files as one CSV, whole or not at all; returns their number."""
    filled = [table for table in tables if len(table)]
    whole = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)
    with written_whole(path) as temporary:
        whole.to_csv(temporary, index=False)
    return len(whole)


def write_submission(path: Path, row_ids: Iterable[str], answers: Iterable[Iterable[str]]) -> None:
    """Write `row_id,birds`: codes sorted and separated by spaces, `nocall` where there are none."""
    birds = [" ".join(sorted(codes)) or NOCALL for codes in answers]
    with written_whole(path) as temporary:
        pd.DataFrame({"row_id": list(row_ids), "birds": birds}).to_csv(temporary, index=False)
