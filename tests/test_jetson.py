"""The network in a program of its own, as a Jetson's GPU needs it: the SavedModel, jetson.py, and the pipe to the listener.

jetson.py runs here by this machine's TensorFlow, without TensorRT; in the TensorFlow 2.7 of the Jetson's image tests/arm64 runs
it. What TensorRT makes of the network no test here can tell: that takes a board.
"""

from __future__ import annotations

import ast
import json
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, made_once
from keras_bundle import make_keras_bundle, sounds

from edge.network_process import NetworkProcess
from src import bundle
from src.bundle import Bundle
from src.errors import UserError
from src.predictor import Predictor


@pytest.fixture(scope="module")
def keras_bundle(tmp_path_factory) -> Bundle:
    """A bundle with saved_model.pb."""
    return bundle.load(made_once(tmp_path_factory, "keras_bundle", make_keras_bundle))


def jetson(folder: Path) -> str:
    """The command that asks a bundle's SavedModel here."""
    return shlex.join([sys.executable, str(ROOT / "edge/jetson.py"), str(folder), "--plain"])


def program(text: str) -> str:
    """The command of a program with this text, which has read a window's size of input before it does anything else."""
    return shlex.join([sys.executable, "-c", f"import sys, time, array\n{text}"])


READY = 'print(\'{"samples": 32000, "labels": 2}\', flush=True)\n'
A_WINDOW = "sys.stdin.buffer.read(4 * 32000)\n"


def test_the_listener_has_the_same_answers_from_the_saved_model_in_another_process_as_from_litert(keras_bundle):
    windows = sounds(4)
    with NetworkProcess(jetson(keras_bundle.folder), keras_bundle, answer_seconds=300) as network:
        asked = Predictor([keras_bundle], networks=[network]).probabilities(windows)
    np.testing.assert_allclose(asked, Predictor([keras_bundle]).probabilities(windows), atol=1e-4)
    assert network._process.returncode == 0, "it ended by itself when the pipe was closed"


def test_the_saved_model_is_one_file_of_plain_ops_without_functions_that_older_tensorflow_lacks(keras_bundle):
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    saved = SavedModel()
    saved.ParseFromString((keras_bundle.folder / "saved_model.pb").read_bytes())
    (graph,) = saved.meta_graphs
    assert not graph.graph_def.library.function
    assert graph.meta_info_def.stripped_default_attrs
    variables = {node.op for node in graph.graph_def.node if "Variable" in node.op or "CopyOnRead" in node.op}
    assert not variables
    promised = json.loads((keras_bundle.folder / "bundle.json").read_text())["sha256"]
    assert set(promised) == {"model.tflite", "saved_model.pb"}


def test_a_damaged_or_missing_saved_model_ends_in_a_sentence(keras_bundle, tmp_path, capfd):
    folder = tmp_path / "bundle"
    shutil.copytree(keras_bundle.folder, folder)
    for harm, sentence in [
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "its SHA-256 is not the one in bundle.json"),
        (lambda path: path.unlink(), "No such file or directory; train.py --saved-model writes it"),
    ]:
        harm(folder / "saved_model.pb")
        with pytest.raises(UserError, match="has ended; its last words are above"):
            NetworkProcess(jetson(folder), bundle.load(folder))
        words = capfd.readouterr().err
        assert sentence in words and "Traceback" not in words


def test_a_program_for_another_bundle_is_refused(keras_bundle, tone_bundle):
    with pytest.raises(UserError, match=r"says \{'samples': 32000, 'labels': 2\}, and .* not its network"):
        NetworkProcess(program(READY + "sys.stdin.read()"), tone_bundle)
    with pytest.raises(UserError, match=r"says welcome, and .* not its network"):
        NetworkProcess(program("print('welcome', flush=True)\nsys.stdin.read()"), keras_bundle)


@pytest.mark.parametrize("answer", ["[0.99, 0.01]", "[float('nan')] * 2"])
def test_a_program_that_answers_otherwise_than_litert_is_refused_before_it_listens_for_a_month(keras_bundle, answer):
    says = f"sys.stdout.buffer.write(array.array('f', {answer}).tobytes())\nsys.stdout.flush()\n"
    with pytest.raises(UserError, match=r"differ from those of .*model\.tflite by .*: not the same network"):
        NetworkProcess(program(READY + A_WINDOW + says + "sys.stdin.read()"), keras_bundle)


def test_a_program_that_ends_hangs_or_is_not_there_is_a_sentence_and_no_process_is_left(keras_bundle):
    for command, sentence in [
        ("nosuch-program", "cannot be started: .*No such file"),
        (program("sys.exit(3)"), "has ended; its last words are above"),
        (program(READY + A_WINDOW), "has ended; its last words are above"),
        (program(READY + A_WINDOW + "sys.stdin.read()"), "has not answered for 0.5 s"),
    ]:
        with pytest.raises(UserError, match=sentence):
            NetworkProcess(command, keras_bundle, answer_seconds=0.5)


def test_jetson_py_is_python_3_6_since_nvidia_s_tensorflow_is():
    text = (ROOT / "edge/jetson.py").read_text()
    tree = ast.parse(text, feature_version=(3, 6))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    assert {name.split(".")[0] for name in imported} == {
        *("argparse", "hashlib", "json", "os", "pathlib", "shutil", "signal", "sys"),
        *("numpy", "tensorflow"),
    }, "nothing of the project, whose modules need Python 3.9, and nothing that Python 3.6 lacks"
