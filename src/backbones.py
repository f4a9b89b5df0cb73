"""The registry of backbones: networks without their heads, by name or by path. Light: no TensorFlow until one is loaded.

    get("b6")                                          # Backbone(handle=".../efficientnet/b6/feature-vector/1", size=528, ...)
    get("yamnet").sample_rate                          # 16000
    get("models/birdnet_stm32")                        # a SavedModel folder or a .tflite file; its rate and window are read
    get("mine.tflite", sample_rate=48000, window_seconds=3.0)
    cached(get("b6"))                                  # (handle, folder) if its weights are on this machine, else None

What loads them: hub_modules.py for images, audio_backbones.py for audio.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from src.errors import UserError

EFFICIENTNET = "https://tfhub.dev/tensorflow/efficientnet"
IMAGENET = "https://tfhub.dev/google/imagenet"
PERCH = "https://tfhub.dev/google/bird-vocalization-classifier"
CONFIG = "*_model_config.json"  # beside a path's SavedModel: what audio it takes, as BirdNET-STM32 writes it


@dataclass(frozen=True)
class Backbone:
    """A network without its head.

    handle: TF-Hub handle, spelled exactly (its hash names the cache folder); "" for our own, which starts at random
    size: side in pixels of the square image it was published with; 0: takes the spectrogram as it is, or is of audio
    input_range: what its input's values must span
    features: length of its output; 0 where only loading tells
    parameters: numbers in the network without its head, batch statistics among them; 0: unknown
    kind: "image" or "audio"
    kaggle: the same module at Kaggle Models, as kagglehub wants it; "" where it is not known
    other_versions: handles of other published versions that do as well, if one of them is in the cache
    sample_rate: of the audio it takes, in Hz; window_seconds: how much one inference hears (0: any length)
    peak: what audio is scaled to, piece by piece, as the model was trained; 0: it is given as it is
    path: the folder or file of a model given by path, else ""
    """

    name: str
    handle: str
    size: int = 0
    input_range: tuple[float, float] = (0.0, 1.0)
    features: int = 0
    parameters: int = 0
    kind: str = "image"
    kaggle: str = ""
    other_versions: tuple[str, ...] = ()
    sample_rate: int = 0
    window_seconds: float = 0.0
    peak: float = 0.0
    path: str = ""

    @property
    def handles(self) -> tuple[str, ...]:
        """All its handles, the newest version first: the order in which the cache is searched."""
        return tuple(sorted((self.handle, *self.other_versions), key=_version, reverse=True))


def _version(handle: str) -> int:
    last = handle.rsplit("/", 1)[-1]
    return int(last) if last.isdigit() else 0


def _efficientnet(name: str, size: int, features: int, parameters: int) -> Backbone:
    return Backbone(
        name,
        f"{EFFICIENTNET}/{name}/feature-vector/1",
        size,
        features=features,
        parameters=parameters,
        kaggle=f"tensorflow/efficientnet/tensorFlow2/{name}-feature-vector/1",
    )


def _imagenet(
    name: str, slug: str, size: int, features: int, parameters: int, kaggle: str, version: int = 4
) -> Backbone:
    # Versions 4 and 5 hold the same weights; 5 is Kaggle's second version, 4 its first.
    other = 9 - version
    return Backbone(
        name,
        f"{IMAGENET}/{slug}/feature_vector/{version}",
        size,
        features=features,
        parameters=parameters,
        kaggle=kaggle and f"google/{kaggle}/{version - 3}",
        other_versions=(f"{IMAGENET}/{slug}/feature_vector/{other}",),
    )


# Parameters: as keras.applications counts the same architecture without its top; PNASNet's from its paper, less its head;
# Perch's is EfficientNet-B1's, which it is made of; YAMNet's as counted in its module.
REGISTRY = {
    backbone.name: backbone
    for backbone in (
        Backbone("tiny", "", 0, features=192, parameters=179_696),
        _efficientnet("b0", 224, 1280, 4_049_564),
        _efficientnet("b1", 240, 1280, 6_575_232),
        _efficientnet("b2", 260, 1408, 7_768_562),
        _efficientnet("b3", 300, 1536, 10_783_528),
        _efficientnet("b4", 380, 1792, 17_673_816),
        _efficientnet("b5", 456, 2048, 28_513_520),
        _efficientnet("b6", 528, 2304, 40_960_136),
        _efficientnet("b7", 600, 2560, 64_097_680),
        Backbone(
            "efficientnet_lite0",
            f"{EFFICIENTNET}/lite0/feature-vector/2",
            224,
            features=1280,
            parameters=3_413_024,
        ),
        _imagenet("inception_v3", "inception_v3", 299, 2048, 21_802_784, "inception-v3/tensorFlow2/feature-vector"),
        _imagenet(
            *("mobilenet_v2", "mobilenet_v2_100_224", 224, 1280, 2_257_984),
            "mobilenet-v2/tensorFlow2/100-224-feature-vector",
        ),
        _imagenet(
            *("mobilenet_v2_140", "mobilenet_v2_140_224", 224, 1792, 4_363_712),
            "mobilenet-v2/tensorFlow2/140-224-feature-vector",
        ),
        _imagenet(
            *("mobilenet_v2_035", "mobilenet_v2_035_224", 224, 1280, 410_208),
            "mobilenet-v2/tensorFlow2/035-224-feature-vector",
            version=5,
        ),
        _imagenet(
            *("resnet_v2_152", "resnet_v2_152", 224, 2048, 58_331_648),
            "resnet-v2/tensorFlow2/152-feature-vector",
        ),
        _imagenet("pnasnet", "pnasnet_large", 331, 4320, 81_700_000, ""),
        Backbone(
            "yamnet",
            "https://tfhub.dev/google/yamnet/1",
            input_range=(-1.0, 1.0),
            features=1024,
            parameters=3_217_344,
            kind="audio",
            kaggle="google/yamnet/tensorFlow2/yamnet/1",
            sample_rate=16000,
        ),
        Backbone(
            "perch",
            f"{PERCH}/4",
            input_range=(-1.0, 1.0),
            features=1280,
            parameters=6_575_232,
            kind="audio",
            kaggle="google/bird-vocalization-classifier/tensorFlow2/bird-vocalization-classifier/8",
            other_versions=(f"{PERCH}/8", f"{PERCH}/2"),
            sample_rate=32000,
            window_seconds=5.0,
            peak=0.25,
        ),
    )
}


def get(name: str, sample_rate: int | None = None, window_seconds: float | None = None) -> Backbone:
    """The backbone called `name`, or the model at the path `name`: a SavedModel folder or a .tflite file.

    sample_rate, window_seconds: of a model by path that does not say itself what audio it takes, in Hz and s
    Raises UserError for an unknown name, with the names there are, or a path whose sample rate or window is not known.
    """
    if name in REGISTRY:
        if sample_rate or window_seconds:
            raise UserError(f"{name}: --sample-rate and --window-seconds are for a model given by its path")
        return REGISTRY[name]
    path = Path(name)
    if not (os.sep in name or "/" in name or path.suffix == ".tflite" or path.exists()):
        raise UserError(
            f"no model is called {name!r}; there are {', '.join(REGISTRY)}, or the path of a SavedModel folder or .tflite file"
        )
    return _by_path(path, sample_rate, window_seconds)


def _by_path(path: Path, sample_rate: int | None, window_seconds: float | None) -> Backbone:
    is_file = path.suffix == ".tflite"
    if not (path.is_file() if is_file else (path / "saved_model.pb").is_file()):
        raise UserError(f"{path}: neither a .tflite file nor a SavedModel folder (with saved_model.pb) is there")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", path.resolve().stem if is_file else path.resolve().name).strip("._-")
    found = Backbone(
        name or "model",
        "",
        input_range=(-1.0, 1.0),
        kind="audio",
        sample_rate=sample_rate or 0,
        window_seconds=window_seconds or 0.0,
        path=str(path.resolve()),
    )
    config = model_config(found)
    rate = sample_rate or int(config.get("sample_rate", 0))
    seconds = window_seconds or float(config.get("chunk_duration", 0.0))
    if not (rate and seconds):
        shape = _input_shape(path, is_file)
        if len(shape) == 4 and shape[-1] == 3:
            size = shape[1] if shape[1] > 0 else 224
            return replace(found, kind="image", size=size, input_range=(0.0, 1.0), sample_rate=0, window_seconds=0.0)
        if len(shape) not in (1, 2):
            raise UserError(
                f"{path}: takes {list(shape)}, neither audio nor images; what was made of audio needs the "
                "*_model_config.json that says how beside it"
            )
        if not rate:
            raise UserError(
                f"{path}: nothing there says what audio it takes; give --sample-rate HZ, and --window-seconds S if it hears "
                "a part of a window at a time"
            )
        seconds = seconds or max(0, shape[-1]) / rate
    return replace(found, sample_rate=rate, window_seconds=seconds, features=int(config.get("embeddings_size", 0)))


def _input_shape(path: Path, is_file: bool) -> tuple[int, ...]:
    """The shape of what a model takes, -1 where it varies. Opens it, which takes seconds for a SavedModel."""
    if is_file:
        from src import litert

        return litert.input_shape(path)
    from src import hub_modules

    return hub_modules.input_shape(path)


def model_config(backbone: Backbone) -> dict:
    """What the `*_model_config.json` beside a model given by path says; {} if there is none. Raises UserError if damaged."""
    path = Path(backbone.path)
    for file in sorted((path if path.is_dir() else path.parent).glob(CONFIG)) if backbone.path else ():
        try:
            return {**json.loads(file.read_text(encoding="utf-8")), "folder": str(file.parent)}
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: not the description of a model ({error})") from error
    return {}


def cache_folder(handle: str) -> Path:
    """Where TensorFlow Hub keeps the module of a handle on this machine."""
    root = os.environ.get("TFHUB_CACHE_DIR") or os.path.join(tempfile.gettempdir(), "tfhub_modules")
    return Path(root) / hashlib.sha1(handle.encode()).hexdigest()


def kept_by_kagglehub(backbone: Backbone) -> str | None:
    """The folder of a backbone's weights in kagglehub's own cache; None if it has none."""
    root = Path(os.environ.get("KAGGLEHUB_CACHE") or "~/.cache/kagglehub").expanduser()
    if not backbone.kaggle or not root.is_dir():
        return None  # without importing it, which takes longer than listing all models
    from kagglehub.cache import Cache
    from kagglehub.handle import parse_model_handle

    return Cache().load_from_cache(parse_model_handle(backbone.kaggle))


def cached(backbone: Backbone) -> tuple[str, Path] | None:
    """The handle and folder of the newest version of a backbone's weights in the cache; None if there is none."""
    for handle in backbone.handles:
        folder = cache_folder(handle)
        if handle and (folder / "saved_model.pb").is_file():
            return handle, folder
    return None
