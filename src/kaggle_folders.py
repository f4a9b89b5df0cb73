"""The two folders that Kaggle is given: a dataset (code, bundles, wheels) and a kernel (one script, internet off).

    build([Path("runs/b6")], Path("submissions/kernel/built"), "alice")
    built/dataset/   birdcall.json  code/src/*.py  bundles/00_fold0/  wheels/*.whl  dataset-metadata.json
    built/kernel/    kernel.py  kernel-metadata.json

Each is there whole or not at all. What a bundle says is checked here, so that the kernel does not meet it first.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from src import bundle
from src.errors import UserError
from src.files import write_json
from src.kaggle_client import COMPETITION, check_user
from src.predictor import MEAN, Ensemble

SOURCE = Path(__file__).resolve().parent
MARKER = "birdcall.json"  # by which the kernel's script knows the dataset among others
SCRIPT = "kernel.py"
UNKNOWN_USER = "your-kaggle-name"  # push.py puts the name in the place of this one
# Kaggle's image lacks the first; the other two it has, in versions that may not read mp3 or change with the image.
PACKAGES = ("ai-edge-litert", "soundfile", "soxr")
# Any of these runs on the image (Ubuntu 22.04, glibc 2.35).
PLATFORMS = [f"manylinux{end}_x86_64" for end in ("2014", "_2_17", "_2_24", "_2_26", "_2_27", "_2_28", "_2_31")]
# Kaggle's limits for the names of datasets and kernels.
SLUG = re.compile(r"[a-z0-9][a-z0-9-]{4,38}[a-z0-9]")


@dataclass(frozen=True)
class Built:
    """What was built: the folders, the bundles' number and the wheels' names."""

    dataset: Path
    kernel: Path
    bundles: int
    wheels: list[str]


def build(
    models: Sequence[Path],
    output: Path,
    script: Path,
    user: str,
    name: str = "birdcall",
    python_versions: Sequence[str] = ("3.11",),
    wheels: Path | None = None,
    combine: str = MEAN,
) -> Built:
    """Make OUTPUT/dataset and OUTPUT/kernel anew.

    models: bundles, folds or runs, as for predict.py; several are an ensemble
    script: the kernel's
    user: of Kaggle; "": not known yet
    name: the dataset is called <name>-code, the kernel <name>-kernel
    python_versions: of Kaggle's image, each of which gets wheels
    wheels: folder of wheels that were downloaded before; None: from PyPI, or those of the last build
    combine: how several bundles answer, see predictor.Ensemble

    Raises UserError for models that are no ensemble, wheels that cannot be had, or an OUTPUT that holds something else.
    """
    if not SLUG.fullmatch(name):
        raise UserError(f"--name {name}: must be 6 to 40 small letters, digits and hyphens, as Kaggle's names are")
    if user:
        check_user(user)
    bundles = bundle.find(models)
    Ensemble(bundles)  # raises for what LiteRT cannot load
    dataset, kernel = output / "dataset", output / "kernel"
    for folder, known in ((dataset, MARKER), (kernel, "kernel-metadata.json")):
        if folder.exists() and not (folder / known).is_file():
            raise UserError(
                f"{folder}: is there and was not built by this command; move it, or name another folder: -o"
            )
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".") as scratch:
        new_dataset, new_kernel = Path(scratch, "dataset"), Path(scratch, "kernel")
        found = download_wheels(new_dataset / "wheels", python_versions, wheels or dataset / "wheels", wheels is None)
        _fill_dataset(
            new_dataset, bundles, {"models": [model.name for model in models], "combine": combine}, user, name
        )
        _fill_kernel(new_kernel, script, user, name)
        for new, folder in ((new_dataset, dataset), (new_kernel, kernel)):
            if folder.exists():
                folder.rename(Path(scratch, f"old-{folder.name}"))
            new.rename(folder)
    return Built(dataset, kernel, len(bundles), found)


def _fill_dataset(folder: Path, bundles: Sequence[bundle.Bundle], about: dict, user: str, name: str) -> None:
    (folder / "code/src").mkdir(parents=True)
    for module in sorted(SOURCE.glob("*.py")):
        shutil.copyfile(module, folder / "code/src" / module.name)
    for number, each in enumerate(bundles):
        # runs/b6/fold0/bundle -> 00_fold0; the number keeps the ensemble's order and names apart.
        kept = folder / "bundles" / f"{number:02d}_{each.folder.resolve().parent.name}"
        kept.mkdir(parents=True)
        for file in each.files:
            shutil.copyfile(each.folder / file, kept / file)
    write_json(folder / MARKER, {**about, "packages": list(PACKAGES)})
    slug = f"{name}-code"
    described = {"id": f"{user or UNKNOWN_USER}/{slug}", "title": slug, "licenses": [{"name": "other"}]}
    write_json(folder / "dataset-metadata.json", described)


def _fill_kernel(folder: Path, script: Path, user: str, name: str) -> None:
    folder.mkdir(parents=True)
    shutil.copyfile(script, folder / SCRIPT)
    owner, slug = user or UNKNOWN_USER, f"{name}-kernel"
    described = {
        "id": f"{owner}/{slug}",
        "title": slug,  # Kaggle makes the id of the title: they must agree
        "code_file": SCRIPT,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": False,  # LiteRT runs on processors, of which the kernels without a GPU have more
        "enable_tpu": False,
        "enable_internet": False,
        "dataset_sources": [f"{owner}/{name}-code"],
        "competition_sources": [COMPETITION],
        "kernel_sources": [],
        "model_sources": [],
    }
    write_json(folder / "kernel-metadata.json", described)


def download_wheels(target: Path, python_versions: Sequence[str], kept: Path, may_ask: bool) -> list[str]:
    """Put the wheels of PACKAGES, in the versions that are installed here, into `target`, for each Python of Kaggle's image.

    kept: folder with wheels of before, which are taken where they do; may_ask: whether PyPI is asked for what is missing
    returns: their names. Raises UserError that says which are missing and why
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted = [f"{package}=={metadata.version(package)}" for package in PACKAGES]
    for version in python_versions:
        if not re.fullmatch(r"3\.\d+", version):
            raise UserError(f"--python-versions {version}: must be like 3.11")
        for package in wanted:
            failure = _pip_download(package, version, target, ["--no-index", "--find-links", str(kept)])
            if failure and may_ask:
                failure = _pip_download(package, version, target, [])
            if failure:
                raise UserError(
                    f"no wheel of {package} for Python {version}: {failure}; run it again with a network, or give a folder "
                    "that holds the wheels with --wheels, or other versions with --python-versions"
                )
    return sorted(wheel.name for wheel in target.glob("*.whl"))


def _pip_download(package: str, version: str, target: Path, where: Sequence[str]) -> str:
    """Download one wheel for another Python; "" if it is there, else what pip says is wrong."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", version, "--retries", "1"]
    for platform in PLATFORMS:
        command += ["--platform", platform]
    done = subprocess.run([*command, *where, "--dest", str(target), package], capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    lines = done.stderr.strip().splitlines() or ["pip failed"]
    if any("connection" in line.lower() or "name resolution" in line.lower() for line in lines):
        return "PyPI cannot be reached"
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return errors[-1].removeprefix("ERROR: ").strip()
