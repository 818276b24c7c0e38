"""Files that claim more than they hold, expand without bound, or reach outside themselves."""

from __future__ import annotations

import gzip
import io
import json
import resource
import subprocess
import sys
import tarfile
import zipfile
import zlib

import h5py
import lmdb
import numpy as np
import pytest
from numpy.lib import format as npy_format

from deepmd_mft.cli import main
from tests.helpers.dp import ROOT
from tests.helpers.layouts import matbench_structure, write_matbench

# More than the conversion of a small file needs, and far less than what the files claim.
_MEMORY = 2 * 2**30


def complaint(path, out, *options: str) -> str:
    """Run the conversion in a process of bounded memory; it must end with one message."""

    def bounded():
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))

    done = subprocess.run(
        [sys.executable, "-m", "deepmd_mft", "convert", str(path), str(out), "--jobs=1", *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        preexec_fn=bounded,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()
    return done.stderr


def npy(array: np.ndarray, shape: tuple[int, ...] | None = None) -> bytes:
    """An npy file whose header claims ``shape``."""
    handle = io.BytesIO()
    npy_format.write_array_header_1_0(
        handle,
        {
            "descr": npy_format.dtype_to_descr(array.dtype),
            "fortran_order": False,
            "shape": shape or array.shape,
        },
    )
    return handle.getvalue() + array.tobytes()


def write_npz(path, **members: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


Z = np.array([8, 1, 1])
WATER = np.array([[[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]])


@pytest.mark.parametrize("shape", [(10**12, 3, 3), (2, 10**12, 3), (2, 3, 10**9)])
def test_npz_that_claims_terabytes(tmp_path, shape):
    path = write_npz(tmp_path / "a.npz", z=npy(Z), R=npy(WATER, shape))
    message = complaint(path, tmp_path / "set", "--energy-unit", "eV")
    assert str(path) in message
    assert "ends before its" in message or "too large" in message


def test_npz_that_expands_is_read_in_pieces(tmp_path):
    # 2.4 GB of positions in a file of some megabytes: memory is bounded, the first rows are there.
    frames = 4_000_000
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("z.npy", npy(Z))
        with archive.open("R.npy", "w", force_zip64=True) as member:
            member.write(npy(WATER, (frames, 3, 3)))
            block = np.zeros((100_000, 3, 3)).tobytes()
            for _ in range(4):
                member.write(block)
    message = complaint(path, tmp_path / "set", "--energy-unit", "eV")
    assert "ends before its 4,000,000 rows" in message


@pytest.mark.parametrize("dtype", [object, "U3"])
def test_npz_without_numbers(tmp_path, capsys, dtype):
    path = tmp_path / "a.npz"
    np.savez(path, z=Z, R=np.array([["a"]], dtype=dtype), allow_pickle=True)
    assert main(["convert", str(path), str(tmp_path / "set"), "--energy-unit", "eV"]) == 1
    assert "expected numbers" in capsys.readouterr().err


def endless(path, start: bytes, block: bytes, megabytes: int):
    """A gzip file that expands to many megabytes."""
    with gzip.open(path, "wb", compresslevel=1) as handle:
        handle.write(start)
        for _ in range(megabytes):
            handle.write(block * (2**20 // len(block)))
    return path


@pytest.mark.parametrize(
    ("start", "block"),
    [
        (b'{"index":[0],"columns":["structure","n"],"data":[["', b"a"),
        (b'{"index":[0],"columns":["structure","n"],"data":[[', b"[["),
        (b'{"index":[0],"columns":["structure","n"],"data":[[', b"1.0,"),
        (b'{"index":"', b"a"),
        (b"", b" "),
    ],
)
def test_json_that_expands_without_bound(tmp_path, start, block):
    path = endless(tmp_path / "matbench_dielectric.json.gz", start, block, 20)
    assert "MatBench" in complaint(path, tmp_path / "set")


def test_csv_that_expands_without_bound(tmp_path):
    path = endless(tmp_path / "t.csv.gz", b"smiles,gap\n", b"C", 20)
    message = complaint(path, tmp_path / "set", "--property", "gap=gap:eV")
    assert "field larger than field limit" in message


def test_xyz_that_claims_atoms(tmp_path, capsys):
    path = tmp_path / "a.xyz"
    path.write_text("900000000000\n\nH 0 0 0\n")
    assert main(["convert", str(path), str(tmp_path / "set")]) == 1
    assert "ends before the last atom" in capsys.readouterr().err


def test_hdf5_that_claims_terabytes(tmp_path):
    path = tmp_path / "spice.h5"
    with h5py.File(path, "w") as handle:
        handle["x/atomic_numbers"] = Z
        handle["x/dft_total_energy"] = np.zeros(1)
        handle.create_dataset("x/conformations", (10**10, 3, 3), "f8", chunks=(100, 3, 3))
    assert "claims 720,000,000,000 bytes" in complaint(path, tmp_path / "set")


@pytest.mark.parametrize("how", ["link", "storage", "virtual", "text", "group"])
def test_hdf5_that_reaches_outside(tmp_path, capsys, how):
    other = tmp_path / "other.h5"
    with h5py.File(other, "w") as handle:
        handle["coords"] = WATER
    (tmp_path / "raw").write_bytes(WATER.tobytes())
    path = tmp_path / "spice.h5"
    with h5py.File(path, "w") as handle:
        handle["x/atomic_numbers"] = Z
        handle["x/dft_total_energy"] = np.zeros(1)
        group = handle["x"]
        if how == "link":
            group["conformations"] = h5py.ExternalLink(str(other), "coords")
        elif how == "storage":
            external = [(str(tmp_path / "raw"), 0, WATER.nbytes)]
            group.create_dataset("conformations", WATER.shape, "f8", external=external)
        elif how == "virtual":
            layout = h5py.VirtualLayout(WATER.shape, "f8")
            layout[:] = h5py.VirtualSource(str(other), "coords", WATER.shape)
            group.create_virtual_dataset("conformations", layout)
        elif how == "text":
            group["conformations"] = b"text"
        else:
            group.create_group("conformations")
    assert main(["convert", str(path), str(tmp_path / "set")]) == 1
    message = capsys.readouterr().err
    assert "/x/conformations" in message
    assert ("another file" in message) == (how in {"link", "storage", "virtual"})


def test_aselmdb_records_that_are_none(tmp_path):
    for i, record in enumerate(
        [
            zlib.compress(b"0" * 2**28, 1),
            b"no zlib",
            zlib.compress(b"no json"),
            zlib.compress(b"[1, 2]"),
            zlib.compress(json.dumps({"numbers": ["a"], "positions": 1}).encode()),
        ]
    ):
        path = tmp_path / f"{i}.aselmdb"
        environment = lmdb.open(str(path), subdir=False, map_size=2**24)
        with environment.begin(write=True) as transaction:
            transaction.put(b"1", record)
            transaction.put(b"nextid", zlib.compress(b"900000000000000"))
        environment.close()
        assert f"{i}.aselmdb:1: " in complaint(path, tmp_path / "set")


def test_tar_members_that_are_no_molecules(tmp_path, capsys):
    for content, message in ((b" " * 2**21, "is no molecule"), (b"\xff\xfe1\n", "not a QM9")):
        path = tmp_path / "dsgdb9nsd.xyz.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            info = tarfile.TarInfo("dsgdb9nsd_000001.xyz")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        assert main(["convert", str(path), str(tmp_path / "set")]) == 1
        assert message in capsys.readouterr().err


def foreign(tmp_path):
    """Content of every kind of source, to be given another kind's name."""
    rows = [[matbench_structure(5.6), 1.5]]
    contents = {
        "json": write_matbench(tmp_path / "m.json", rows).read_bytes(),
        "gzip": gzip.compress(b"hello"),
        "npz": write_npz(tmp_path / "n.npz", x=npy(Z)).read_bytes(),
        "text": b"hello, world\n",
        "nothing": b"",
        "binary": bytes(range(256)) * 8,
    }
    with h5py.File(tmp_path / "h.h5", "w") as handle:
        handle["x/y"] = np.zeros(3)
    contents["hdf5"] = (tmp_path / "h.h5").read_bytes()
    return contents


@pytest.mark.parametrize(
    "name",
    (  # noqa: SIM905
        "a.npz a.json a.json.gz a.csv a.csv.gz a.parquet a.h5 a.aselmdb a.tar a.tar.bz2 a.db a.xyz "
        "a.extxyz a.cif POSCAR a.xyz.gz a.traj a.txt a .DS_Store id_prop.csv targets.csv "
        "qm9_part1.csv"
    ).split(),
)
def test_foreign_files_end_in_one_message(tmp_path, capsys, name):
    for kind, content in foreign(tmp_path).items():
        if (name, kind) == ("a.json", "json"):
            continue  # that is what it says it is
        path = tmp_path / "in" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        options = ["--energy-unit", "eV"] if name.endswith("npz") else []
        assert main(["convert", str(path), str(tmp_path / "set"), *options]) == 1, kind
        message = capsys.readouterr().err
        assert name in message, (kind, message)
        assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "kind", ["qm9", "matbench", "spice", "ani1x", "transition1x", "npz", "table", "cgcnn"]
)
def test_a_folder_where_a_file_is_expected(tmp_path, capsys, kind):
    (tmp_path / "folder").mkdir()
    arguments = [str(tmp_path / "folder"), str(tmp_path / "set"), "--kind", kind]
    assert main(["convert", *arguments, "--energy-unit", "eV"]) == 1
    assert "folder" in capsys.readouterr().err
