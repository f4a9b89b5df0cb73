"""What is different where the listener's tests run on a box: pytest -p plugin, on another machine than the training one.

Only tests of edge/ are collected, of which the box has the libraries; the bundle that hears tones was made elsewhere, since the
box has no TensorFlow ($BIRDCALL_BUNDLES). Those that need PulseAudio, Mosquitto or a browser skip themselves.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

import pytest

NOT_HERE = {
    "test_jetson.py": "needs TensorFlow 2.21; jetson.py is tried with TensorFlow 2.7 on its own",
    "test_privacy.py": "its model is made of YAMNet by TensorFlow",
    "test_parity.py": "trains a head on the built-in sample, which needs librosa and TensorFlow",
    "test_install.py": "installs into a copy of the machine it runs on",
}
# What an emulator cannot: be quick, and say what a process took.
NOT_EMULATED = {
    "test_help_answers_in_under_a_second_with_commands_to_run": "an emulated second is short",
    "test_a_real_soundscape_played_gives_the_detections_of_predict_file": "takes longer than it may; run.sh compares one",
    "test_without_a_password_the_page_is_answered_under_names_of_this_machine_only": "starts more often than it has time for",
    "test_after_fifty_kills_in_the_act_all_that_was_acknowledged_is_there_and_every_clip_is_whole": "is too late for the act",
    "test_memory_and_cpu_are_what_the_process_takes_with_all_that_it_started_and_all_that_has_ended": "qemu says 0",
    "test_the_cpu_share_is_of_one_core_and_of_the_time_that_passed": "qemu says 0",
}
EMULATED = platform.machine() != "x86_64"
PATIENCE = 20  # how much longer an emulated listener may take for what a test waits for


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Leave out what is no test of edge/, or needs a library that the box has not."""
    name = collection_path.name
    if not (name.startswith("test_") and name.endswith(".py")):
        return None
    imported = set()
    for node in ast.parse(collection_path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module.split(".")[0])
    ours = "edge" in imported and name not in NOT_HERE
    return None if ours and all(importlib.util.find_spec(module) for module in imported) else True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what an emulator cannot, and take the bundle that was made elsewhere."""
    import conftest
    import hypothesis

    if EMULATED:
        hypothesis.settings.register_profile("emulated", deadline=None, max_examples=10)
        hypothesis.settings.load_profile("emulated")
        be_patient()
    made = Path(os.environ["BIRDCALL_BUNDLES"]) / "tones"
    conftest.make_tone_bundle = lambda folder: shutil.copytree(made, folder / "fold0/bundle")
    for item in items:
        reason = NOT_EMULATED.get(item.originalname if isinstance(item, pytest.Function) else "")
        if reason and EMULATED:
            item.add_marker(pytest.mark.skip(reason=reason))
    print(f"Python {sys.version.split()[0]} on {platform.machine()}: {len({item.path for item in items})} files")


def be_patient() -> None:
    """Let tests wait longer for the listener; what they say of its own times they still say."""
    from listening import Listening

    wait, wait_for = Listening.wait, Listening.wait_for
    Listening.wait = lambda self, timeout=30: wait(self, timeout * PATIENCE)
    Listening.wait_for = lambda self, condition, seconds=60.0: wait_for(self, condition, seconds * PATIENCE)
