"""A bundle's card: what bundle.json says, in Markdown for a person who finds the folder a year later. No TensorFlow import.

text(contents)          # contents: of bundle.json, as bundle.write and bundle.update have it
"""

from __future__ import annotations

from collections.abc import Mapping

# What evaluate.py leaves in `scores`, in the order of a card.
SCORES = {
    "soundscape_row_f1": "row F1, soundscapes mixed of held-out calls",
    "soundscape_all_nocall": "the same, if nocall is answered everywhere",
    "row_f1": "row F1, held-out windows",
    "macro_f1": "macro F1, held-out windows",
    "class_mean_average_precision": "class-mean average precision",
    "class_mean_auroc": "class-mean AUROC",
    "window_accuracy": "likeliest species right, windows",
    "recording_accuracy": "likeliest species right, recordings",
    "calibration_error_calibrated": "expected calibration error",
}
PRECISIONS = {
    "float32": "the reference",
    "float16": "half as large; probabilities differ by up to 0.03",
    "int8": "the network in bytes after a front end in float32",
}


def text(contents: Mapping) -> str:
    """The card of a bundle.json's contents."""
    recipe, about, labels = contents["recipe"], contents.get("about", {}), contents["labels"]
    lines = [f"# {_plain(contents['name'])}: {len(labels)} species by ear", ""]
    lines += [
        f"Answers every {recipe['window_seconds']:g} s of audio at {recipe['sample_rate']} Hz with a probability for each of:",
        "",
    ]
    lines += [", ".join(_plain(label) for label in labels), ""]
    lines += ["    python predict.py --model THIS_FOLDER RECORDING_OR_FOLDER...", ""]
    lines += ["## What it was trained on", ""]
    lines += [f"- {_plain(name)}: {_plain(value)}" for name, value in about.items()] or ["Its training did not say."]
    lines += ["", "## How good it is", ""]
    scores = {told: contents["scores"][name] for name, told in SCORES.items() if name in contents["scores"]}
    if scores:
        told = "Out of fold, all folds evaluated together: each fold's model on recordings, sources and days that it never heard."
        lines += [told, "", "| | |", "|---|---|"]
        lines += [f"| {told} | {value:.3f} |" for told, value in scores.items()]
    else:
        lines += ["It was not evaluated: run `python evaluate.py` on its run. Its threshold means nothing yet."]
    source = _plain(contents["threshold_source"])
    lines += [
        "",
        f"Threshold {contents['threshold']:.4g}, fitted on: {source}. A species counts where its calibrated probability",
    ]
    lines += [
        "reaches the threshold, its own where bundle.json has `thresholds`.",
        "",
        "## Files",
        "",
        "| precision | files | |",
        "|---|---|---|",
    ]
    for precision, files in contents.get("variants", {"float32": contents.get("graphs", ["model.tflite"])}).items():
        lines.append(f"| {precision} | {', '.join(files)} | {PRECISIONS.get(precision, '')} |")
    lines += [
        "",
        "`bundle.json` has the recipe, all numbers and the SHA-256 of each file; nothing in the folder is executed.",
        "",
    ]
    lines += ["## Licence", ""]
    lines += [
        "The software is under the MIT licence. The model learned from recordings and from a pretrained network, each under its"
    ]
    lines += [
        "own licence; what those allow (some recordings: no commercial use) is for whoever shares or uses it to heed.",
        "",
    ]
    versions = ", ".join(f"{name} {version}" for name, version in contents["versions"].items())
    return "\n".join([*lines, f"Made with {_plain(versions) or 'versions unknown'}.", ""])


def _plain(value: object) -> str:
    """Text that Markdown shows as it is: a name is no markup."""
    shown = " ".join(str(value).split())
    return "".join(f"\\{sign}" if sign in "\\`*_<>|[]#&" else sign for sign in shown)
