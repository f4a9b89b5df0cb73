"""What recordings are like, by their headers: lengths, rates, channels, sources a species.

described = describe(recordings)     # the recordings' table with seconds, sample_rate, channels and fault
by_species(described)                # one row a species
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tqdm import tqdm

from src.audio import AudioError, AudioFile


def describe(recordings: pd.DataFrame) -> pd.DataFrame:
    """Add to a table of recordings (see competition.read_recordings) what their headers say.

    seconds, sample_rate in Hz and channels are 0 for a file that cannot be opened; fault says why.
    """
    rows = []
    for path in tqdm(recordings.path, unit="recording", desc="reading headers"):
        try:
            with AudioFile(Path(path)) as audio:
                rows.append((audio.frames_promised / audio.sample_rate, audio.sample_rate, audio.channels, ""))
        except AudioError as error:
            rows.append((0.0, 0, 0, str(error)))
    headers = pd.DataFrame(rows, columns=["seconds", "sample_rate", "channels", "fault"], index=recordings.index)
    return pd.concat([recordings, headers], axis=1)


def by_species(described: pd.DataFrame) -> pd.DataFrame:
    """Recordings, sources, minutes and mentions as a secondary species, for each species, the rarest first."""
    mentioned = described.secondary.str.split().explode().value_counts()
    table = described.groupby("ebird_code").agg(
        recordings=("filename", "size"), sources=("source", "nunique"), minutes=("seconds", lambda s: s.sum() / 60)
    )
    table["as_secondary"] = mentioned.reindex(table.index).fillna(0).astype(int)
    return table.reset_index().sort_values(["recordings", "ebird_code"], ignore_index=True)


def summary(described: pd.DataFrame) -> str:
    """A few lines on the whole."""
    good = described[described.fault == ""]
    rates = good.sample_rate.value_counts().sort_index()
    return (
        f"{len(described)} recordings of {described.ebird_code.nunique()} labels from {described.source.nunique()} sources, "
        f"{good.seconds.sum() / 3600:.1f} h; {len(described) - len(good)} cannot be opened\n"
        f"channels: {', '.join(f'{n} of {c}' for c, n in good.channels.value_counts().sort_index().items())}; "
        f"Hz: {', '.join(f'{n} of {rate}' for rate, n in rates.items())}"
    )
