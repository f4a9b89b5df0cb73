"""edge/jetson.py with all of TensorFlow 2.7's conversion by TensorRT but TensorRT: a fake that leaves the network as it is.

For a machine without a GPU: what loads, freezes, builds, saves and loads again around TensorRT is TensorFlow's own.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "edge"))

import jetson
from tensorflow.python.compiler.tensorrt import trt_convert

trt_convert._check_trt_version_compatibility = lambda: None
trt_convert._check_conversion_params = lambda *_, **__: None
trt_convert.TrtGraphConverterV2._run_conversion = lambda self, graph: graph.graph_def

if __name__ == "__main__":
    sys.exit(jetson.main())
