"""One LiteRT file: opened, asked, and its embedding found among its outputs. NumPy and LiteRT only; no TensorFlow import.

graph = Graph(path, (1, 160000))
graph.run(window[None])                                   # the output called "embedding", or the only one of two axes
embedder = Embedder(path, Pieces(144000, 72000))          # hears 3 s of 48 kHz at a time
embedder.embed(window)                                    # of the pieces of a longer window, pooled: float32 [features]
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from src import quiet
from src.errors import UserError
from src.pieces import Pieces

EMBEDDING_NAMES = ("embedding", "embeddings", "feature", "features")


def choose_embedding(outputs: dict[str, tuple], features: int, told: str) -> str:
    """Which of a model's outputs is the embedding: by its name, else by its length, else the only one with two axes.

    outputs: shape of each by its name, the batch first; None or -1 where it varies
    features: length of the embedding if it is known, else 0; told: what the error is to call the model
    Raises UserError that lists the outputs.
    """
    flat = {name: shape for name, shape in outputs.items() if len(shape) == 2}
    named = [name for name in flat if name.lower().split(":")[0] in EMBEDDING_NAMES]
    sized = [name for name, shape in flat.items() if features and shape[-1] == features]
    for found in (named, sized, list(flat)):
        if len(found) == 1:
            return found[0]
    shapes = ", ".join(f"{name} {list(shape)}" for name, shape in outputs.items())
    raise UserError(
        f"{told}: which of its outputs is the embedding cannot be told ({shapes}); export it with one output of [batch, "
        "features], or call that one `embedding`"
    )


class Graph:
    """A LiteRT file with one float32 input, of which one output is asked.

    input_shape: what its input becomes; None: as it is in the file
    features: length of the output to ask, where it has several; 0: unknown; None: it has one, of any shape
    Raises UserError for what LiteRT cannot load, or for another kind of input.
    """

    def __init__(
        self, path: Path, input_shape: tuple[int, ...] | None = None, features: int | None = 0, threads: int = 1
    ):
        # An interpreter answers one at a time, and a worker of dask's has several threads.
        self._lock = threading.Lock()
        try:
            with quiet.native_stderr():  # LiteRT announces its CPU delegate
                self._interpreter = Interpreter(model_path=str(path), num_threads=threads)
                inputs = self._interpreter.get_input_details()
                if len(inputs) != 1 or inputs[0]["dtype"] != np.float32:
                    kinds = ", ".join(f"{each['dtype'].__name__} {list(each['shape'])}" for each in inputs)
                    raise UserError(f"{path}: takes {kinds}; a model must take one float32 input")
                self._input = inputs[0]["index"]
                if input_shape is not None:
                    self._interpreter.resize_tensor_input(self._input, list(input_shape))
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{path}: LiteRT cannot load it ({error})") from error
        # The names that a signature gives say more than those of the tensors ("StatefulPartitionedCall:0").
        outputs = {each["name"]: each for each in self._interpreter.get_output_details()}
        for key, signature in self._interpreter.get_signature_list().items():
            runner = self._interpreter.get_signature_runner(key)
            by_index = {each["index"]: each for each in outputs.values()}
            told = {name: by_index.get(each["index"]) for name, each in runner.get_output_details().items()}
            if set(told) == set(signature["outputs"]) and all(told.values()):
                outputs = told
        shapes = {name: tuple(int(side) for side in each["shape"]) for name, each in outputs.items()}
        named = choose_embedding(shapes, features, str(path)) if features is not None else next(iter(outputs))
        output = outputs[named]
        self._output = output["index"]
        self.output_size = int(output["shape"][-1])

    def run(self, values: np.ndarray) -> np.ndarray:
        """The output for float32 values of the input's shape."""
        with self._lock:
            self._interpreter.set_tensor(self._input, np.ascontiguousarray(values, dtype=np.float32))
            self._interpreter.invoke()
            return self._interpreter.get_tensor(self._output)


def input_shape(path: Path) -> tuple[int, ...]:
    """The shape of a LiteRT file's first input, -1 where it varies. Raises UserError for what LiteRT cannot load."""
    try:
        with quiet.native_stderr():
            details = Interpreter(model_path=str(path)).get_input_details()[0]
    except (ValueError, RuntimeError) as error:
        raise UserError(f"{path}: LiteRT cannot load it ({error})") from error
    return tuple(int(side) for side in details["shape_signature"])


class Embedder:
    """A LiteRT file that turns audio into an embedding: float32 [samples] of any number -> float32 [features].

    pieces: what it hears at once; features: as for Graph. Raises UserError as Graph does, or for an input that is not of
    samples ([samples] or [batch, samples]).
    """

    def __init__(self, path: Path, pieces: Pieces, features: int = 0, threads: int = 1) -> None:
        self._path, self._pieces, self._features, self._threads = path, pieces, features, threads
        self._axes = len(input_shape(path))
        if self._axes not in (1, 2):
            raise UserError(f"{path}: takes {list(input_shape(path))}; an audio model must take [batch, samples]")
        self._opened_for = 0
        self._graph: Graph | None = None

    def embed(self, window: np.ndarray) -> np.ndarray:
        """The pooled embedding of a window's pieces."""
        pieces = self._pieces.cut(window)
        size = pieces.shape[1]
        if self._graph is None or self._opened_for != size:
            shape = (size,) if self._axes == 1 else (1, size)
            self._graph = Graph(self._path, shape, self._features, self._threads)
            self._opened_for = size
        answers = [self._graph.run(piece if self._axes == 1 else piece[None]) for piece in pieces]  # [frames, features]
        return self._pieces.pool(np.concatenate(answers))
