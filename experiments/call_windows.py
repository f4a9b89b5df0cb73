"""Which five seconds? Accuracy with all windows of each recording against those that call most.

    export TFHUB_CACHE_DIR=$DATA/hub OMP_NUM_THREADS=1    # small regressions: threads cost ten times what they bring
    python -m experiments.call_windows --data $DATA/birds --nocall $DATA/nocall

Grouped folds, a frozen mobilenet_v2_035, logistic regression on its features; --seeds draws of the folds, five folds each. The
same held-out recordings answer for every row of the table. Writes docs/experiments/call_windows.csv, .md and .png (12 random
recordings, kept and rejected windows marked). Costs 80 CPU seconds for 429 recordings that are prepared already.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from pathlib import Path

from src.errors import run_script

BACKBONE = "mobilenet_v2_035"
NUMBERS = (0, 1, 2, 3, 4, 5, 6)  # windows a recording; 0: all
QUIET_SHARES = (0.1, 0.2, 0.3)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="as given to prepare.py")
    parser.add_argument("--nocall", required=True, help="recordings without birds, to tell birds from")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--work", default="input/prepared/experiments", help="where the windows are prepared")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs/experiments"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Prepare all windows, embed them once, then train and judge for each way to choose."""
    arguments = parse(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    import pandas as pd
    from tqdm import tqdm

    from src import layouts, preparation, storage
    from src.files import write_text, written_whole
    from src.recipe import preset
    from src.workers import Workers

    started = time.process_time()
    recordings = layouts.read(layouts.DataSource(data=arguments.data, nocall=arguments.nocall))
    recipe = preset("default", windows_per_recording=0, quiet_share=0.0)
    prepared = preparation.prepare(recordings, recipe, storage.place(arguments.work) / "all", workers=Workers(2))
    draw_choices(arguments.output / "call_windows.png", prepared)
    features = embed(prepared, recipe, Path(arguments.work) / "embeddings")

    rows = []
    for seed in tqdm(range(arguments.seeds), unit="seed"):
        ways = [(number, 0.0) for number in NUMBERS] + [(4, share) for share in QUIET_SHARES]
        for number, quiet_share in ways:
            found = judge(prepared, recordings, features, number, quiet_share, seed)
            rows.append({"windows_per_recording": number or "all", "quiet_share": quiet_share, "seed": seed, **found})
    table = pd.DataFrame(rows)
    with written_whole(arguments.output / "call_windows.csv") as temporary:
        table.to_csv(temporary, index=False, float_format="%.4f")
    text = as_markdown(table, time.process_time() - started)
    write_text(arguments.output / "call_windows.md", text)
    print(text)
    return 0


def embed(prepared, recipe, store: Path):
    """Features of every window by the frozen backbone: float32 [windows, features], kept in `store`."""
    import tensorflow as tf

    from src import backbones, networks
    from src.recipe import changed

    recipe = changed(recipe, backbone=BACKBONE, unfreeze=0)
    strategy = tf.distribute.get_strategy()
    network = networks.open_network(backbones.get(BACKBONE), recipe, prepared.labels, None, strategy)
    return network.embed(prepared, None, store)[0]


def judge(prepared, recordings, features, number: int, quiet_share: float, seed: int) -> dict:
    """Train on the chosen windows of four folds, answer for the fifth, all five in turn.

    returns: accuracy of all held-out windows, of the chosen ones, of recordings by all their windows and by the chosen ones; and
        how well the greatest probability tells windows of birds from those of the nocall recordings (AUROC)
    """
    import numpy as np
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from src import folds
    from src.competition import NOCALL
    from src.metrics import mean_by

    index = prepared.index
    chosen, quiet = choices(prepared, number, quiet_share)
    table = folds.make_folds(recordings[recordings.fault == ""].reset_index(drop=True), 5, seed, prepared.alike())
    fold = index.filename.map(dict(zip(table.filename, table.fold))).to_numpy()
    code = index.ebird_code.to_numpy(str)
    bird = code != NOCALL
    labels = np.array(prepared.labels)
    probabilities = np.zeros((len(index), len(labels)))
    for held_out in range(5):
        train = (fold != held_out) & ((bird & chosen) | quiet)
        target = np.where(quiet, NOCALL, code)[train]
        head = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        head.fit(features[train], target)
        answered = head.predict_proba(features[fold == held_out])
        columns = [list(head.classes_).index(label) for label in labels]
        probabilities[fold == held_out] = answered[:, columns]
    right = labels[probabilities.argmax(axis=1)] == code
    found = {"windows": int((bird & chosen).sum()), "window_accuracy": right[bird].mean()}
    found["chosen_window_accuracy"] = right[bird & chosen].mean()
    for name, rows in (("recording_accuracy", bird), ("recording_accuracy_by_chosen", bird & chosen)):
        names, means = mean_by(probabilities[rows], index.filename.to_numpy(str)[rows])
        truth = index[rows].drop_duplicates("filename").set_index("filename").ebird_code[names]
        found[name] = (labels[means.argmax(axis=1)] == truth).mean()
    found["bird_auroc"] = roc_auc_score(bird[chosen | ~bird], probabilities.max(axis=1)[chosen | ~bird])
    return found


def choices(prepared, number: int, quiet_share: float):
    """Which windows of the index would be kept, as calls and as nocall: two bool arrays."""
    import numpy as np

    from src.calls import choose
    from src.competition import NOCALL
    from src.recipe import changed

    recipe = changed(prepared.recipe, windows_per_recording=number, quiet_share=quiet_share)
    calls, nocall = (np.zeros(len(prepared.index), bool) for _ in range(2))
    for _, rows in prepared.index[prepared.index.ebird_code != NOCALL].groupby("filename"):
        kept, quiet = choose(rows.call_score.to_numpy(), recipe)
        calls[rows.window.iloc[kept]] = True
        nocall[rows.window.iloc[quiet]] = True
    return calls, nocall


def draw_choices(path: Path, prepared) -> None:
    """12 random recordings: spectrogram, scores, and which windows four a recording and a fifth as nocall would keep."""
    import matplotlib.pyplot as plt
    import numpy as np

    from src.competition import NOCALL
    from src.files import written_whole
    from src.window_figures import read_images

    calls, nocall = choices(prepared, 4, 0.2)
    birds = prepared.index[prepared.index.ebird_code != NOCALL]
    long_enough = birds.groupby("filename").size().loc[lambda size: size >= 4].index.to_series()
    figure, axes = plt.subplots(6, 2, figsize=(15, 15), layout="constrained")
    for axis, filename in zip(axes.ravel(), sorted(long_enough.sample(12, random_state=0))):
        rows = birds[birds.filename == filename]
        image = np.concatenate(read_images(prepared, rows), axis=1)
        seconds = len(rows) * prepared.recipe.window_seconds
        low, high = np.percentile(image[image > 0], [5, 99.8])
        axis.imshow(image, origin="lower", aspect="auto", extent=(0, seconds, 0, 1), vmin=low, vmax=high, cmap="magma")
        for row in rows.itertuples():
            kind = "call" if calls[row.window] else "nocall" if nocall[row.window] else "rejected"
            colour = {"call": "#2a9d8f", "nocall": "#8ab6ff", "rejected": "#e76f51"}[kind]
            axis.axvspan(
                row.start_seconds, row.start_seconds + 5, ymin=1.0, ymax=1.06, color=colour, clip_on=False, lw=0
            )
            axis.text(row.start_seconds + 0.2, 0.92, f"{row.call_score:.1f}", color="white", fontsize=8)
            axis.axvline(row.start_seconds, color="white", lw=0.4)
        axis.set_title(f"{filename} {rows.ebird_code.iloc[0]}", fontsize=9, pad=12)
        axis.set(yticks=[], xlabel="seconds")
    figure.suptitle(
        "Windows of 5 s and their call score in dB; 4 kept a recording: kept (green), rejected (red), kept as nocall (blue)"
    )
    with written_whole(path) as temporary:
        figure.savefig(temporary, dpi=70)
    plt.close(figure)


def as_markdown(table, cpu_seconds: float) -> str:
    """Means over seeds, and their spread, as a table."""
    figures = [
        column for column in table.columns if column not in ("windows_per_recording", "quiet_share", "seed", "windows")
    ]
    lines = ["# Which five seconds?", "", "Printed by `python -m experiments.call_windows`; see its first lines.", ""]
    lines += [
        f"| windows a recording | quiet share | windows | {' | '.join(name.replace('_', ' ') for name in figures)} |"
    ]
    lines += ["|" + "---|" * (3 + len(figures))]
    for (number, share), rows in table.groupby(["windows_per_recording", "quiet_share"], sort=False):
        cells = [f"{rows[name].mean():.3f} ± {rows[name].std():.3f}" for name in figures]
        lines.append(f"| {number} | {share:g} | {rows.windows.iloc[0]} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{table.seed.nunique()} draws of five grouped folds each; mean ± deviation over draws. {cpu_seconds:.0f} CPU s.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_script(main)
