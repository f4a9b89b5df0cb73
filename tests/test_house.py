"""The house itself: what may import what, scripts that answer --help, modules a person can read."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run

SCRIPTS = ["prepare.py", "train.py", "evaluate.py", "predict.py", "explore.py"]
SCRIPTS += ["edge/listen.py", "edge/page.py", "edge/journal.py"]
SCRIPTS += ["submissions/kernel/build.py", "submissions/kernel/push.py"]
FIELD = ["src.predictor", "src.audio", "src.soundscape", "src.bundle", "src.outputs", "src.answering"]
FIELD += [
    "src.batch",
    "src.parts",
    "src.status",
    "src.recording_files",
    "src.recording_time",
    "src.detecting",
    "src.clips",
]
EDGE = [f"edge.{path.stem}" for path in sorted((ROOT / "edge").glob("*.py")) if path.stem != "__init__"]
FIELD += EDGE
MODULES = sorted([*ROOT.glob("*.py"), *ROOT.glob("src/*.py"), *ROOT.glob("edge/*.py")])
MODULES += sorted(ROOT.glob("submissions/kernel/*.py"))
NO_TENSORFLOW = (
    "import sys\n"
    "class Refuse:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] in ('tensorflow', 'keras', 'librosa'):\n"
    "            raise ImportError(f'{name} may not be imported here')\n"
    "sys.meta_path.insert(0, Refuse())\n"
)


def test_the_field_s_modules_import_where_tensorflow_cannot_be():
    lines = NO_TENSORFLOW + "\n".join(f"import {name}" for name in FIELD)
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_modules_of_edge_import_where_no_training_library_can_be():
    more = NO_TENSORFLOW.replace("'librosa'", "'librosa', 'pandas', 'scipy', 'sklearn', 'matplotlib'")
    assert more != NO_TENSORFLOW
    lines = more + "\n".join(f"import {name}" for name in EDGE)
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_predict_answers_a_real_soundscape_where_tensorflow_cannot_be(tone_bundle, real_data, tmp_path):
    (soundscape,) = (real_data / "birdsong-recognition/example_test_audio").glob("ORANGE*.mp3")
    arguments = ["predict.py", "--model", str(tone_bundle.folder), str(soundscape), "-o", str(tmp_path / "d.csv")]
    lines = NO_TENSORFLOW + f"sys.argv = {arguments!r}\nimport runpy\nrunpy.run_path('predict.py', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "d.csv").is_file()


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_commands_and_imports_nothing_heavy(script):
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python {script}" in done.stdout, "an example to copy"
    traced = subprocess.run(
        [sys.executable, "-X", "importtime", script, "--help"], capture_output=True, text=True, cwd=ROOT
    )
    imported = {line.split("|")[-1].strip() for line in traced.stderr.splitlines()}
    assert not imported & {"numpy", "pandas", "tensorflow", "keras", "sounddevice"}


def imports_of(path: Path) -> set[str]:
    """The modules of src that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert not any(alias.name == "*" for alias in node.names), path
            if node.module == "src":
                found |= {alias.name for alias in node.names}
            elif node.module:
                found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name.removeprefix("src.") for name in found}


# Who may know whom: a module imports from its own floor or one below.
FLOORS = [
    {"errors", "files", "quiet", "recipe", "paths", "storage", "workers", "card", "calibration", "bootstrap", "pieces"}
    | {"layer_order", "kaggle_client", "status", "recording_time", "profiling", "containers"},
    {"audio", "spectrogram", "augment", "bundle", "soundscape", "calls", "shard_files", "shard_cache", "litert"}
    | {"losses", "optimizers", "devices", "checkpoints", "history"}
    | {"recording_files", "parts", "clips", "matrix"},
    {"competition", "folds", "metrics", "predictor", "synthesis", "sample_plan", "xeno_canto", "annotations"}
    | {"shards", "windows", "preparation", "waveforms", "competition_download"},
    {
        *("datasets", "mixing", "backbones", "outputs", "oof", "sample", "evaluation"),
        *("exploration", "measuring", "layouts", "options", "fitting", "judging"),
        *("validation_soundscapes", "answered_soundscapes"),
        *("hub_modules", "audio_backbones", "model_table", "splits", "embeddings", "heads", "many", "vae"),
        *("kaggle_push", "batch", "speech_model"),
    },
    {"classifier", "figures", "window_figures", "data_figures", "sound_figures", "page"}
    | {"exploration_page", "evaluation_figures", "vae_figures", "vae_windows"}
    | {"answering", "kaggle_folders", "detecting", "detection_figures"},
    {"training", "networks", "lighter", "runs", "demo", "evaluated_run", "comparison"},
]


def test_modules_import_one_way_and_no_module_knows_a_script():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    modules = {path.stem: path for path in ROOT.glob("src/*.py") if path.stem != "__init__"}
    assert set(modules) == set(floor)
    scripts = {Path(script).stem for script in SCRIPTS if "edge/" not in script} | {"edge"}
    for name, path in modules.items():
        known = imports_of(path)
        assert not {other.split(".")[0] for other in known} & scripts, path
        for other in known & set(floor):
            assert floor[other] <= floor[name], f"{name} imports {other}"


# The same below edge/: what is heard and recorded knows nothing of the page, and the page nothing of who hears.
EDGE_FLOORS = [
    {
        "ring",
        "events",
        "levels",
        "tape",
        "live",
        "child",
        "watchdog",
        "schedule",
        "privacy",
        "needed",
        "network_process",
        "terminal",
        "listen_options",
    },
    {"tables", "columns", "portaudio", "journal_file"},
    {"source", "shelf", "csv_export", "folder", "health", "outbox", "publishing", "page_access", "page_files"},
    {"journal", "microphone", "streams", "player", "recorder", "mqtt", "webhook", "page_data", "page_status"},
    {"capture", "keeper", "page_day"},
    {"analysis", "page_feed"},
    {"listener", "page_answer"},
    {"page_server"},
    {"listen", "page", "jetson", "try_bundle"},
]


def test_the_modules_of_edge_import_one_way():
    floor = {name: number for number, names in enumerate(EDGE_FLOORS) for name in names}
    modules = {path.stem: path for path in ROOT.glob("edge/*.py") if path.stem != "__init__"}
    assert set(modules) == set(floor)
    for name, path in modules.items():
        known = edge_imports_of(path)
        for other in known & set(floor):
            assert floor[other] <= floor[name] and other not in EDGE_FLOORS[-1], f"{name} imports {other}"
        assert name.startswith("page") or not any(other.startswith("page") for other in known), path


def edge_imports_of(path: Path) -> set[str]:
    """The modules of edge that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "edge":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module[len("edge.") :]} if node.module.startswith("edge.") else set()
        elif isinstance(node, ast.Import):
            found |= {alias.name[len("edge.") :] for alias in node.names if alias.name.startswith("edge.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_a_module_says_what_it_is_for_and_is_short_enough_to_read(path):
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it is for"
    assert len(text.splitlines()) <= 400
