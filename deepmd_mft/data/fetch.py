"""Downloads of public data sets: resumed, checked, and put in place only when whole."""

from __future__ import annotations

import http.client
import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tqdm import tqdm

from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.files.disk import is_full
from deepmd_mft.files.lock import locked
from deepmd_mft.files.staging import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CATALOGUE", "DataSource", "RemoteFile", "fetch", "human_size"]

_CHUNK = 2**20
_TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class RemoteFile:
    """A file to download.

    Parameters
    ----------
    url : str
        Where it is.
    name : str
        What it is called here.
    size : int, optional
        Bytes, where the publisher or the server of a mirror states them.
    checksum : str, optional
        ``md5:...`` or ``sha256:...`` as published; None where none is published: then the
        SHA-256 of the first download is kept beside the file and later ones are compared.
    about : str
        Approximate size in words, where ``size`` is not known.
    """

    url: str
    name: str
    size: int | None = None
    checksum: str | None = None
    about: str = ""


@dataclass(frozen=True)
class DataSource:
    """A data set to download: its files, licence and reference."""

    title: str
    files: tuple[RemoteFile, ...]
    licence: str
    reference: str
    convert: str = ""


_FIGSHARE = "https://springernature.figshare.com/ndownloader/files/"
_OMAT = "https://dl.fbaipublicfiles.com/opencatalystproject/data/omat/"
_LLNL = "https://raw.githubusercontent.com/FLASK-LLNL/LLNL-10k-Dataset/refs/heads/main/"
_CC_BY = "CC BY 4.0"


def _matbench(task: str, rows: int, sha256: str) -> DataSource:
    """Make the entry of a MatBench task; checksums from matminer 0.10.1's list of data sets."""
    name = f"{task}.json.gz"
    url = f"https://ml.materialsproject.org/projects/{name}"
    return DataSource(
        f"MatBench v0.1 {task}, {rows:,} structures",
        (RemoteFile(url, name, checksum=f"sha256:{sha256}"),),
        "see https://matbench.materialsproject.org (Materials Project data: CC BY 4.0)",
        "Dunn et al., npj Comput. Mater. 6, 138 (2020)",
        f"dp-mft convert {name} {task}",
    )


def _omat(part: str, about: str) -> DataSource:
    split, subset = part.split("/")
    # The validation archives were corrected in December 2024.
    date = "241018" if split == "train" else "241220"
    name = f"omat24-{split}-{subset}.tar.gz"
    return DataSource(
        f"OMat24, {split}, {subset} (ASE-LMDB in a tar archive)",
        (RemoteFile(f"{_OMAT}{date}/omat/{split}/{subset}.tar.gz", name, about=about),),
        _CC_BY,
        "Barroso-Luque et al., arXiv 2410.12771",
        f"tar xf {name}; dp-mft convert {subset} omat24.lmdb",
    )


#: Sizes and MD5 of QM9 as figshare states them, of SPICE 2.0.1 as Zenodo does.
CATALOGUE: dict[str, DataSource] = {
    "qm9": DataSource(
        "QM9, 133,885 molecules, and the list of the 3,054 uncharacterised ones",
        (
            RemoteFile(
                f"{_FIGSHARE}3195389",
                "dsgdb9nsd.xyz.tar.bz2",
                86_144_227,
                "md5:ad1ebd51ee7f5b3a6e32e974e5d54012",
            ),
            RemoteFile(
                f"{_FIGSHARE}3195404",
                "uncharacterized.txt",
                486_752,
                "md5:a361887bacb427b8a0ce7903d92a53b4",
            ),
        ),
        "see the figshare record, https://doi.org/10.6084/m9.figshare.c.978904",
        "Ramakrishnan et al., Sci. Data 1, 140022 (2014)",
        "dp-mft convert dsgdb9nsd.xyz.tar.bz2 qm9 --exclude uncharacterized.txt",
    ),
    "matbench_dielectric": _matbench(
        "matbench_dielectric",
        4764,
        "83befa09bc2ec2f4b6143afc413157827a90e5e2e42c1eb507ccfa01bf26a1d6",
    ),
    "matbench_jdft2d": _matbench(
        "matbench_jdft2d",
        636,
        "26057dc4524e193e32abffb296ce819b58b6e11d1278cae329a2f97817a4eddf",
    ),
    "matbench_perovskites": _matbench(
        "matbench_perovskites",
        18928,
        "4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
    ),
    "matbench_phonons": _matbench(
        "matbench_phonons",
        1265,
        "4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3",
    ),
    "matbench_log_gvrh": _matbench(
        "matbench_log_gvrh",
        10987,
        "098af941f4c663270f1fe21abf20ffad6fb85ecbfcba5786ceac03983ac29da7",
    ),
    "matbench_log_kvrh": _matbench(
        "matbench_log_kvrh",
        10987,
        "44b113ddb7e23aa18731a62c74afa7e5aa654199e0db5f951c8248a00955c9cd",
    ),
    "matbench_mp_gap": _matbench(
        "matbench_mp_gap",
        106113,
        "58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
    ),
    "matbench_mp_is_metal": _matbench(
        "matbench_mp_is_metal",
        106113,
        "9a028ed5750a4c76ca36e9f3c8d48fe0bf3fb21b76ec2289e58ae7048d527919",
    ),
    "matbench_mp_e_form": _matbench(
        "matbench_mp_e_form",
        132752,
        "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
    ),
    "spice2": DataSource(
        "SPICE 2.0.1, 2 million configurations of molecules",
        (
            RemoteFile(
                "https://zenodo.org/records/10975225/files/SPICE-2.0.1.hdf5",
                "SPICE-2.0.1.hdf5",
                37_479_271_148,
                "md5:bfba2224b6540e1390a579569b475510",
            ),
        ),
        "CC0 (README of github.com/openmm/spice-dataset)",
        "Eastman et al., J. Chem. Theory Comput. 20, 8583 (2024)",
        "dp-mft convert SPICE-2.0.1.hdf5 spice2.lmdb",
    ),
    "spice1": DataSource(
        "SPICE 1.1.4, 1.1 million configurations of molecules",
        (
            RemoteFile(
                "https://zenodo.org/records/8222043/files/SPICE-1.1.4.hdf5",
                "SPICE-1.1.4.hdf5",
            ),
        ),
        "CC0 (README of github.com/openmm/spice-dataset)",
        "Eastman et al., Sci. Data 10, 11 (2023)",
        "dp-mft convert SPICE-1.1.4.hdf5 spice1.lmdb",
    ),
    "boom10k": DataSource(
        "BOOM's 10k set: density and heat of formation with SMILES, no geometries",
        (
            RemoteFile(f"{_LLNL}10k_dft_density_data.csv", "10k_dft_density_data.csv"),
            RemoteFile(f"{_LLNL}10k_dft_hof_data.csv", "10k_dft_hof_data.csv"),
        ),
        "see https://github.com/FLASK-LLNL/LLNL-10k-Dataset",
        "Antoniuk et al., BOOM (2025)",
        "dp-mft convert 10k_dft_density_data.csv boom_density --property density=density:g/cm^3",
    ),
    "omat24-val-rattled-300-subsampled": _omat("val/rattled-300-subsampled", "about 0.1 GB"),
    "omat24-val-rattled-1000-subsampled": _omat("val/rattled-1000-subsampled", "about 0.1 GB"),
    "omat24-val-rattled-relax": _omat("val/rattled-relax", "about 0.2 GB"),
    "omat24-rattled-300-subsampled": _omat("train/rattled-300-subsampled", "about 6.4 GB"),
    "omat24-rattled-500-subsampled": _omat("train/rattled-500-subsampled", "about 7.3 GB"),
    "omat24-rattled-1000-subsampled": _omat("train/rattled-1000-subsampled", "about 7.1 GB"),
}


def human_size(size: int | None) -> str:
    """Write a number of bytes the way people read it."""
    if size is None:
        return "size unknown"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def fetch(remote: RemoteFile, folder: Path, *, progress: bool = True) -> str:
    """Download one file.

    What was loaded before an interruption (``NAME.part``) is continued. The file gets its
    name once it is complete and its checksum is right.

    Parameters
    ----------
    remote : RemoteFile
        What to load.
    folder : Path
        Where to put it.
    progress : bool
        Show a progress bar.

    Returns
    -------
    str
        What was found about the checksum.
    """
    target = folder / remote.name
    part = target.with_name(target.name + ".part")
    if target.exists():
        return f"already there; {_verify(remote, target)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(target):
            if target.exists():  # another process has just loaded it
                return f"already there; {_verify(remote, target)}"
            _load(remote, part, folder, progress)
            return _finish(remote, part, target)
    except KeyboardInterrupt as stop:
        stop.args = (f"{part} is kept, and dp-mft fetch continues it",)
        raise
    except OSError as error:
        if is_full(error):
            raise UserError(
                f"the disk is full; {part} is kept, and dp-mft fetch continues it"
            ) from error
        where = error.filename or folder
        if isinstance(error, PermissionError):
            raise UserError(f"no permission to write {where}") from error
        raise UserError(f"{where} cannot be written ({error.strerror or error})") from error


def _finish(remote: RemoteFile, part: Path, target: Path) -> str:
    size = part.stat().st_size
    if remote.size is not None and size != remote.size:
        advice = "call dp-mft fetch again to continue"
        if size > remote.size:
            advice = "it is another file: remove it and call dp-mft fetch again"
        raise UserError(f"{part} has {size:,} bytes of {remote.size:,}; {advice}")
    verdict = _verify(remote, part)
    part.rename(target)
    return verdict


def _load(remote: RemoteFile, part: Path, folder: Path, progress: bool) -> None:
    have = part.stat().st_size if part.exists() else 0
    if remote.size is not None and have == remote.size:
        return
    request = urllib.request.Request(remote.url, headers={"User-Agent": "deepmd-mft"})  # noqa: S310
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:  # noqa: S310
            resumed = have and response.status == http.HTTPStatus.PARTIAL_CONTENT
            if have and not resumed:
                have = 0  # the server sends everything from the start
            length = response.headers.get("Content-Length")
            total = have + int(length) if length else remote.size
            _check_room(folder, (total or 0) - have, remote)
            with (
                part.open("ab" if resumed else "wb") as handle,
                tqdm(
                    total=total,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    desc=remote.name,
                    disable=not progress,
                ) as bar,
            ):
                while chunk := response.read(_CHUNK):
                    handle.write(chunk)
                    bar.update(len(chunk))
        if total is not None and part.stat().st_size < total:
            raise UserError(
                f"the connection ended after {part.stat().st_size:,} of {total:,} bytes; call "
                f"dp-mft fetch again to continue from {part}"
            )
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            return  # everything was there already; the checksum decides
        raise UserError(
            f"{remote.url} answers {error.code} {error.reason}; load it in a browser and put it "
            f"at {folder / remote.name}"
        ) from error
    except (urllib.error.URLError, TimeoutError, http.client.HTTPException, ConnectionError) as e:
        got = f" ({part.stat().st_size:,} bytes are kept)" if part.exists() else ""
        raise UserError(
            f"no connection to {remote.url} ({getattr(e, 'reason', e)}){got}. On a machine "
            f"without network, load this file elsewhere and put it at {folder / remote.name}; "
            "dp-mft fetch then only checks it"
        ) from e


def _check_room(folder: Path, wanted: int, remote: RemoteFile) -> None:
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise UserError(
            f"{remote.name} needs {human_size(wanted)}, but only {human_size(free)} are free "
            f"in {folder}"
        )


def _verify(remote: RemoteFile, path: Path) -> str:
    """Compare with the published checksum, or with the one of the first download."""
    algorithm, _, expected = (remote.checksum or "sha256:").partition(":")
    found = file_checksum(path, algorithm)
    memory = path.with_name(f"{remote.name}.sha256.json")
    origin = "the published one"
    if not expected:
        if not memory.is_file():
            record = {"url": remote.url, "sha256": found, "bytes": path.stat().st_size}
            with atomic_file(memory) as partial:
                partial.write_text(json.dumps(record) + "\n")
            return f"no checksum is published; recorded sha256:{found} in {memory.name}"
        expected, origin = _remembered(memory), f"the one in {memory.name}"
    if found != expected:
        raise UserError(
            f"{path}: {algorithm} {found} is not {origin}, {expected}; the file is damaged or "
            "was changed by its publisher: remove it and fetch again"
        )
    return f"{algorithm} agrees with {origin}"


def _remembered(memory: Path) -> str:
    try:
        return str(json.loads(memory.read_text())["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{memory} is damaged ({error!r}); remove it, and the file it is about, and fetch again"
        ) from None
