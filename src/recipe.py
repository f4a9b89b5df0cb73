"""Every number that shapes a model, in one frozen dataclass that is saved with each run and travels in each bundle.

    recipe = preset("default")                    # 32 kHz, windows of 5 s
    recipe = preset("study2020", copies=2)        # the original study's, with one field changed
    recipe.window_samples, recipe.image_shape     # (160000, (128, 313)) for the default

Nothing that reads audio or builds a network has numbers of its own: it is given a recipe, or fields of one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace

from src.errors import UserError

TRANSFORMS = ("shift", "pitch", "stretch", "noise", "background")


@dataclass(frozen=True)
class Recipe:
    """The numbers of a run. Fields up to `augment_seed` shape the prepared windows and name their folder (`prepared_id`)."""

    name: str = "default"

    # Audio.
    sample_rate: int = 32000  # Hz
    channels: str = "mono"  # "mono": the mean of the channels; "split": each channel is a clip of its own
    highpass_hz: float = 0.0  # 0: none
    window_seconds: float = 5.0
    hop_seconds: float = 5.0
    min_tail_seconds: float = 1.0  # a last window with less audio than this is dropped, unless it is the only one

    # Log-mel spectrogram, in dB of mel power; librosa's Slaney mel filters, frames centred, zeros at the edges.
    n_fft: int = 2048  # samples
    hop_length: int = 512  # samples
    n_mels: int = 128
    fmin_hz: float = 150.0
    fmax_hz: float = 15000.0
    floor_db: float = -80.0
    range_db: float = 120.0  # values lie in [floor_db, floor_db + range_db]

    # Which windows: of a recording that is labelled as a whole, those that call most (see calls.py).
    windows_per_recording: int = 4  # 0: all; 4 and 0.2: docs/experiments/call_windows.md
    quiet_share: float = 0.2  # of a recording's windows: the quietest are kept as examples of nocall

    # Offline augmentation: for each entry `copies` copies of every window; "shift+noise" applies two to one copy.
    augment: tuple[str, ...] = ()
    copies: int = 1
    shift_seconds: float = 0.5
    pitch_semitones: float = 2.0
    stretch_fraction: float = 0.2
    noise_amplitude: tuple[float, float] = (0.015, 0.015)  # standard deviation between these, of a waveform in [-1, 1]
    background: str = ""  # which clips "background" mixes in: name and digest of their folder
    snr_db: tuple[float, float] = (0.0, 15.0)  # of the window to the background mixed in
    augment_seed: int = 0

    # On-line augmentation, in mel power, on training batches only.
    background_probability: float = 0.7  # of mixing a nocall window in, where there are any
    background_snr_db: tuple[float, float] = (-3.0, 20.0)
    mixup_probability: float = 0.5  # of adding a second window; the labels become their union
    mixup_gain_db: float = 6.0  # the second window is louder or softer by at most this much
    gain_db: float = 6.0
    high_loss_db: float = 20.0  # at most this much less at fmax_hz than at half way up the mel scale
    mask_probability: float = 0.5
    mask_frames: float = 0.1  # greatest share of the frames under a time mask
    mask_mels: float = 0.1  # greatest share of the mel bands under a frequency mask
    roll: bool = True  # circular shift in time

    # Augmentation by a variational autoencoder of the training windows (see vae_windows.py).
    vae_copies: int = 0  # variants of each training window of a bird; 0: none, and no autoencoder is trained
    vae_epochs: int = 12
    vae_spread: float = 8.0  # how far a variant's latent strays, times what passes for the same window
    vae_residue: float = 0.0  # share of what the autoencoder cannot say of a window, its texture, that a variant keeps

    # What a window teaches.
    mask_secondary: bool = (
        True  # a species named in secondary_labels is left out of the loss of that recording's windows
    )
    secondary_target: float = 0.5  # if not: its training target; 0: as if it were not named
    label_smoothing: float = 0.0
    class_balance: float = (
        0.5  # a window's weight falls with this power of its species' number of windows; 1: all alike
    )
    call_weight: float = 0.0  # and grows with this power of its call score over its recording's best; 0: not at all

    # Network.
    backbone: str = "tiny"
    image_size: tuple[int, int] | None = None  # (height, width) of the backbone's input; None: the registry's
    level_bands: bool = True  # each mel band loses its mean over the window: steady noise and the microphone's colour
    dropout: float = 0.3

    # The head of a pretrained backbone is trained first, on embeddings of the windows as they are.
    head_epochs: int = 30
    head_learning_rate: float = 1e-3
    head_weight_decay: float = 0.01
    least_variance: float = 0.3  # of the features' mean variance, added to each: one that hardly varies is not blown up

    # Then, or for a network of our own from the start, all that is unfrozen.
    unfreeze: int = -1  # the last so many layers of the backbone; -1: all; 0: none, and the head is all
    batch_statistics: bool = False  # batch norm by each batch and moving; else by what the module was published with
    backbone_rate: float = 0.3  # of the learning rate
    optimizer: str = "adam"  # or "rmsprop"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    warmup_epochs: float = 1.0
    epochs: int = 15
    steps_per_epoch: int = 0  # 0: all training windows once
    patience: int = 0  # epochs without a better loss on the next fold, which is then not learned from; 0: all epochs
    average: float = 0.0  # momentum of the running mean of the weights that is kept in the end; 0: the last weights
    batch_size: int = 32
    mixed_precision: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise UserError that names the field and its value where a number makes no sense."""
        positive = (
            "sample_rate",
            "window_seconds",
            "hop_seconds",
            "n_fft",
            "hop_length",
            "n_mels",
            "range_db",
            "copies",
        )
        positive += ("vae_epochs", "epochs", "batch_size", "learning_rate", "head_epochs", "head_learning_rate")
        for name in positive:
            if getattr(self, name) <= 0:
                raise UserError(f"recipe: {name} must be above 0, not {getattr(self, name)}")
        if not 0 <= self.fmin_hz < self.fmax_hz <= self.sample_rate / 2:
            raise UserError(
                f"recipe: mel bands need 0 <= fmin_hz < fmax_hz <= {self.sample_rate / 2:g} (half the sample rate), "
                f"not {self.fmin_hz:g} and {self.fmax_hz:g}"
            )
        if not 0 <= self.highpass_hz < self.sample_rate / 2:
            raise UserError(f"recipe: highpass_hz must lie in [0, {self.sample_rate / 2:g}), not {self.highpass_hz:g}")
        if self.hop_seconds > self.window_seconds:
            raise UserError(
                f"recipe: hop_seconds {self.hop_seconds:g} leaves audio between windows of {self.window_seconds:g} s"
            )
        for name in (
            "windows_per_recording",
            "vae_copies",
            "vae_spread",
            "shift_seconds",
            "pitch_semitones",
            "warmup_epochs",
            "min_tail_seconds",
            "weight_decay",
            "head_weight_decay",
            "backbone_rate",
            "class_balance",
            "call_weight",
            "patience",
            "seed",
            "augment_seed",
            "least_variance",
        ):
            if getattr(self, name) < 0:
                raise UserError(f"recipe: {name} must be 0 or more, not {getattr(self, name)}")
        for name in ("stretch_fraction", "quiet_share", "dropout", "label_smoothing", "average"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"recipe: {name} must lie in [0, 1), not {getattr(self, name):g}")
        for name in ("secondary_target", "vae_residue"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"recipe: {name} must lie in [0, 1], not {getattr(self, name):g}")
        if max(self.seed, self.augment_seed) >= 2**32:
            raise UserError(f"recipe: a seed must be below 2**32, not {max(self.seed, self.augment_seed)}")
        if self.unfreeze < -1:
            raise UserError(f"recipe: unfreeze must be -1 (all layers), 0 or a number of layers, not {self.unfreeze}")
        if len(self.noise_amplitude) != 2 or not 0 <= self.noise_amplitude[0] <= self.noise_amplitude[1]:
            raise UserError(
                f"recipe: noise_amplitude must be two numbers from 0 up, the lower one first, not {self.noise_amplitude}"
            )
        if len(self.snr_db) != 2 or self.snr_db[0] > self.snr_db[1]:
            raise UserError(f"recipe: snr_db must be two numbers, the lower one first, not {self.snr_db}")
        if self.channels not in ("mono", "split"):
            raise UserError(f"recipe: channels must be mono or split, not {self.channels!r}")
        if self.optimizer not in ("adam", "rmsprop"):
            raise UserError(f"recipe: optimizer must be adam or rmsprop, not {self.optimizer!r}")
        if self.steps_per_epoch < 0:
            raise UserError(f"recipe: steps_per_epoch must be 0 (all windows) or more, not {self.steps_per_epoch}")
        if len(set(self.augment)) < len(self.augment):
            raise UserError(f"recipe: augment names {self.augment} one entry twice; --copies makes more copies")
        for entry in self.augment:
            parts = entry.split("+")
            if len(set(parts)) < len(parts):
                raise UserError(f"recipe: augmentation {entry!r} applies a transform twice")
            for transform in parts:
                if transform not in TRANSFORMS:
                    raise UserError(f"recipe: augmentation {entry!r} is not made of {', '.join(TRANSFORMS)}")
                if transform == "background" and not self.background:
                    raise UserError(
                        f"recipe: augmentation {entry!r} needs clips to mix in; prepare.py takes --background DIR"
                    )

    @property
    def window_samples(self) -> int:
        """Length of a window in samples at `sample_rate`."""
        return round(self.window_seconds * self.sample_rate)

    @property
    def image_shape(self) -> tuple[int, int]:
        """(mels, frames) of one window's log-mel spectrogram."""
        return self.n_mels, 1 + self.window_samples // self.hop_length

    @property
    def prepared_id(self) -> str:
        """Name of the folder of windows prepared by this recipe: two recipes share it only if their windows are equal."""
        names = [field.name for field in fields(self)]
        # Numbers of an augmentation that is not asked for shape nothing.
        last = "augment_seed" if self.augment else "augment"
        shaping = {name: getattr(self, name) for name in names[1 : names.index(last) + 1]}
        digest = hashlib.sha256(json.dumps(shaping, sort_keys=True).encode()).hexdigest()
        return f"{self.name}-{digest[:8]}"

    def on_windows_of(self, prepared: Recipe) -> Recipe:
        """This recipe with the fields that shaped the windows taken from the recipe they were prepared by."""
        names = [field.name for field in fields(self)]
        return replace(self, **{name: getattr(prepared, name) for name in names[: names.index("augment_seed") + 1]})

    def to_dict(self) -> dict:
        """As plain values for JSON."""
        return asdict(self)

    @staticmethod
    def from_dict(values: dict) -> Recipe:
        """The inverse of `to_dict`. Raises UserError for a field this version does not know."""
        values = _of_this_version(values)
        known = {field.name for field in fields(Recipe)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise UserError(f"recipe: unknown fields {', '.join(unknown)}: written by another version of this software")
        return Recipe(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _of_this_version(values: dict) -> dict:
    """A recipe as an earlier version wrote it, in this version's fields: what was not yet there was not done."""
    values = dict(values)
    if isinstance(values.get("noise_amplitude"), float):
        values["noise_amplitude"] = [values["noise_amplitude"]] * 2
    if "freeze" in values:
        values["unfreeze"] = 0 if values.pop("freeze") else -1
        values = {"level_bands": False, "batch_statistics": True, "backbone_rate": 1.0, **values}
    return {"mask_secondary": False, "class_balance": 0.0, **values}


PRESETS = {
    "default": Recipe(),
    # What the original course project did: 22.05 kHz, everything below 1400 Hz removed, stereo split into two clips,
    # windows of 10 s every 5 s as images of 224 by 625, each of the four offline augmentations alone.
    "study2020": Recipe(
        name="study2020",
        sample_rate=22050,
        channels="split",
        highpass_hz=1400.0,
        window_seconds=10.0,
        hop_seconds=5.0,
        windows_per_recording=0,
        quiet_share=0.0,
        n_fft=4096,
        hop_length=353,
        n_mels=224,
        fmin_hz=1400.0,
        fmax_hz=11025.0,
        augment=("shift", "pitch", "stretch", "noise"),
        mask_secondary=False,
        secondary_target=0.0,
        class_balance=0.0,
        background_probability=0.0,
        mixup_probability=0.0,
        gain_db=0.0,
        high_loss_db=0.0,
        mask_probability=0.0,
        roll=False,
    ),
}


def preset(name: str, **changes: object) -> Recipe:
    """The preset called `name` with some fields changed, as by `changed`."""
    if name not in PRESETS:
        raise UserError(f"no recipe is called {name!r}; there are {', '.join(PRESETS)}")
    return changed(PRESETS[name], **changes)


def changed(recipe: Recipe, **changes: object) -> Recipe:
    """The recipe with some fields changed; a change of None leaves what was there, as an option that was not given."""
    return replace(recipe, **{key: value for key, value in changes.items() if value is not None})
