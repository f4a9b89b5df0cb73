"""What a person wants to know of measured recordings before training, as tables.

described = measuring.measure(recordings, Path("recordings.csv"))
by_species(described)                                     # one row a species
suspicious(described)                                     # columns file, what, value
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from src.competition import NOCALL, UNKNOWN
from src.errors import UserError
from src.files import written_whole
from src.measuring import failed

FOLDS = Path("folds/folds.csv")

# What is suspicious.
SILENT_DBFS = -80.0  # peak
QUIETER_DB = 30.0  # below the median loudness
NARROW = 0.55  # of half the sample rate: less than what 22.05 kHz written as 44.1 kHz has
CLIPPED_SHARE = 1e-4
BALANCE_DB = 40.0
DC_OFFSET = 0.02  # of full scale
SAME_CHANNELS_DB = -60.0  # left less right, against the louder of them

_SUFFIXES = {"OGG": (".ogg", ".oga", ".opus"), "AIFF": (".aif", ".aiff", ".aifc"), "MP4": (".m4a", ".mp4", ".aac")}
_SUFFIXES |= {
    name: (f".{name.lower()}",) for name in ("FLAC", "AU", "CAF", "W64", "WV", "WAV", "MP1", "MP2", "MP3", "AAC")
}


def by_species(described: pd.DataFrame) -> pd.DataFrame:
    """Recordings, sources, minutes and mentions as a secondary species, for each label, the rarest first.

    A recording with timed labels counts for every species in it, with all its minutes; their calls are counted beside.
    """
    good = described[described.seconds > 0]
    timed = timed_labels(good)
    whole = good[good.events == ""].assign(calls=0)
    calls = timed.groupby(["filename", "ebird_code"]).size().rename("calls").reset_index()
    inside = calls.merge(good[["filename", "source", "seconds"]], on="filename")
    columns = ["filename", "ebird_code", "source", "seconds", "calls"]
    table = (
        pd.concat([whole[columns], inside[columns]])
        .groupby("ebird_code")
        .agg(
            recordings=("filename", "nunique"),
            sources=("source", "nunique"),
            minutes=("seconds", lambda s: s.sum() / 60),
            calls=("calls", "sum"),
        )
    )
    mentioned = good.secondary.str.split().explode().value_counts()
    table["as_secondary"] = mentioned.reindex(table.index).fillna(0).astype(int)
    table = table if len(timed) else table.drop(columns="calls")
    return table.reset_index().sort_values(["recordings", "ebird_code"], ignore_index=True)


def timed_labels(described: pd.DataFrame) -> pd.DataFrame:
    """All timed labels of species: columns filename, path, ebird_code, start_seconds, end_seconds."""
    rows = [
        (row.filename, row.path, code, start, end)
        for row in described[described.events != ""].itertuples()
        for start, end, code in json.loads(row.events)
        if code != UNKNOWN
    ]
    return pd.DataFrame(rows, columns=["filename", "path", "ebird_code", "start_seconds", "end_seconds"])


def co_occurrence(described: pd.DataFrame) -> pd.DataFrame:
    """How many recordings of a species (rows) name another as secondary (columns); only species that are in a pair."""
    pairs = described.assign(secondary=described.secondary.str.split()).explode("secondary").dropna(subset="secondary")
    return pd.crosstab(pairs.ebird_code, pairs.secondary)


def tables(described: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """All that is written as CSV, by name: species, suspicious, duplicates (group, file, label), co_occurrence (pairs)."""
    code_of = _labels(described)
    groups = enumerate(duplicates(described), 1)
    same = [(number, name, code_of[name]) for number, names in groups for name in names]
    pairs = co_occurrence(described).stack().rename("recordings").reset_index()
    pairs = pairs[pairs.recordings > 0].sort_values(["recordings", "ebird_code"], ascending=[False, True])
    return {
        "species": by_species(described),
        "suspicious": suspicious(described),
        "duplicates": pd.DataFrame(same, columns=["group", "file", "ebird_code"]),
        "co_occurrence": pairs,
    }


def fold_counts(described: pd.DataFrame, path: Path | None = None) -> pd.DataFrame | str:
    """Recordings of each species (rows) in each fold (columns); or, in words, why there are none to show.

    Raises UserError if a path is given and is not about these recordings; folds/folds.csv need not be.
    """
    path, asked = path or FOLDS, path is not None
    if not asked and not path.is_file():
        return f"{path} is not there; prepare.py writes it"
    from src import folds  # brings scikit-learn, a second

    try:
        listed = folds.read_folds(path)
        # Recordings that cannot be used need not be in a fold.
        folds.match_folds(described[(described.seconds > 0) | described.filename.isin(listed.filename)], listed, path)
    except UserError as error:
        if asked:
            raise
        return str(error)
    listed = listed[listed.filename.isin(described.filename)]
    return pd.crosstab(listed.ebird_code, listed.fold)


def duplicates(described: pd.DataFrame) -> list[list[str]]:
    """Groups of file names that hold the same audio, whatever their tags; [] where only headers were read."""
    heard = described[described.audio_sha256 != ""]
    groups = heard.groupby("audio_sha256").filename.agg(sorted)
    return sorted(names for names in groups if len(names) > 1)


def suspicious(described: pd.DataFrame) -> pd.DataFrame:
    """What a person should look at or listen to: columns file, what, value; the gravest first."""
    d = described
    read, damage = d.seconds > 0, d.read_fault.where(d.seconds > 0, "")
    silent = d.peak_dbfs <= SILENT_DBFS
    usual_db = d.loudness_dbfs[~silent].median()
    suffix = d.path.map(lambda path: Path(str(path)).suffix.lower())
    misnamed = [name != "" and end not in _SUFFIXES.get(name, ()) for name, end in zip(d.content, suffix)]
    twins, at_odds = _twins(d)
    kilohertz = [f"up to {hz / 1000:.1f} of {rate / 2000:.1f} kHz" for hz, rate in zip(d.bandwidth_hz, d.sample_rate)]
    checks = [
        ("cannot be opened", failed(d), d.fault),
        ("left out", ~read & ~failed(d), d.fault),
        ("truncated", damage.str.startswith("truncated"), damage),
        ("broken", damage.str.startswith("broken"), damage),
        ("holds NaN", damage.str.startswith("holds samples"), damage),
        ("silent", silent, d.peak_dbfs.map("peak {:.1f} dBFS".format)),
        ("same audio under different labels", at_odds, twins),
        ("same audio", (twins != "") & ~at_odds, twins),
        ("extension and content disagree", misnamed, suffix + " is " + d.content),
        ("shorter than a second", read & (d.seconds < 1), d.seconds.map("{:.2f} s".format)),
        ("longer than 10 minutes", d.seconds > 600, (d.seconds / 60).map("{:.1f} min".format)),
        ("sample rate below 16 kHz", read & (d.sample_rate < 16000), d.sample_rate.map("{} Hz".format)),
        ("bandwidth far below its rate", ~silent & (d.bandwidth_hz < NARROW * d.sample_rate / 2), kilohertz),
        ("clipped", d.clipped_share > CLIPPED_SHARE, (100 * d.clipped_share).map("{:.3f} % of the samples".format)),
        (
            "much quieter than the rest",
            ~silent & (d.loudness_dbfs < usual_db - QUIETER_DB),
            d.loudness_dbfs.map(f"{{:.1f}} dBFS, the median is {usual_db:.1f}".format),
        ),
        ("a channel is silent", d.balance_db > BALANCE_DB, d.balance_db.map("{:.0f} dB below the other".format)),
        (
            "mostly digital silence",
            ~silent & (d.silent_share > 0.5),
            (100 * d.silent_share).map("{:.0f} % of it".format),
        ),
        ("with a remark", d.remark != "", d.remark),
        ("DC offset", d.dc_offset > DC_OFFSET, d.dc_offset.map("{:.3f} of full scale".format)),
    ]
    parts = [
        pd.DataFrame({"file": d.filename, "what": what, "value": value})[np.asarray(w, bool)]
        for what, w, value in checks
    ]
    return pd.concat(parts, ignore_index=True)


def _labels(described: pd.DataFrame) -> dict[str, str]:
    """The label of each recording that was read; a name may stand in a table twice, but not of those."""
    good = described[described.seconds > 0]
    return dict(zip(good.filename, good.ebird_code))


def _twins(described: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    """For each recording the others with the same audio, as text, and whether one of them has another label."""
    group_of = {name: group for group in duplicates(described) for name in group}
    code_of = _labels(described)
    names = described.filename
    twins = names.map(lambda name: ", ".join(other for other in group_of.get(name, []) if other != name))
    at_odds = names.map(lambda name: len({code_of[other] for other in group_of.get(name, [])}) > 1).astype(bool)
    read = described.seconds > 0
    return twins.where(read, ""), at_odds & read


def totals(described: pd.DataFrame) -> pd.DataFrame:
    """The data in a few numbers: columns of, number."""
    good = described[described.seconds > 0]
    rows = {
        "recordings": len(described),
        "species": len(set(by_species(described).ebird_code) - {NOCALL}),
        "recordings without birds": int((good.ebird_code == NOCALL).sum()),
        "sources": good.source.nunique(),
        "hours": f"{good.seconds.sum() / 3600:.1f}",
        "recordings with secondary labels": int((good.secondary != "").sum()),
        "recordings with timed labels": int((good.events != "").sum()),
        "cannot be opened": int(failed(described).sum()),
        "left out for another reason": int(((described.seconds == 0) & ~failed(described)).sum()),
    }
    return pd.DataFrame({"of": rows.keys(), "number": [str(value) for value in rows.values()]})


def quantiles(described: pd.DataFrame, names: dict[str, str]) -> pd.DataFrame:
    """Of some columns (by the name to show) what shares of the recordings do not pass."""
    shares = {"least": 0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "greatest": 1}
    values = {name: described[column].quantile(list(shares.values())).to_numpy() for column, name in names.items()}
    return pd.DataFrame({"": shares.keys(), **values})


def summary(described: pd.DataFrame) -> str:
    """The whole in two lines."""
    good = described[described.seconds > 0]
    rates = good.sample_rate.value_counts().sort_index()
    return (
        f"{len(described)} recordings of {len(by_species(described))} labels from {good.source.nunique()} sources, "
        f"{good.seconds.sum() / 3600:.1f} h; {failed(described).sum()} cannot be opened\n"
        f"channels: {', '.join(f'{n} of {c}' for c, n in good.channels.value_counts().sort_index().items())}; "
        f"Hz: {', '.join(f'{n} of {rate}' for rate, n in rates.items())}"
    )


def write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write each as <name>.csv."""
    for name, table in tables.items():
        with written_whole(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False)
