"""Small files in the layouts of the public data sets."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import lmdb
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

QM9_XYZ = """5
gdb 1\t157.7118\t157.70997\t157.70699\t0.\t13.21\t-0.3877\t0.1171\t0.5048\t35.3641\t0.044749\t\
-40.47893\t-40.476062\t-40.475117\t-40.498597\t6.469\t
C\t-0.0126981359\t 1.0858041578\t 0.0080009958\t-0.535689
H\t 0.002150416\t-0.0060313176\t 1.9761204*^-3\t 0.133921
H\t 1.0117308433\t 1.4637511618\t 0.0002765748\t 0.133922
H\t-0.540815069\t 1.4475266138\t-0.8766437152\t 0.133923
H\t-0.5238136345\t 1.4379326443\t 0.9063972942\t 0.133923
1341.307\t1341.3284\t1341.365\t1562.6731\t1562.7453\t3038.3205\t3151.6034\t3151.6788\t3151.7078
C\tC\t
InChI=1S/CH4/h1H4\tInChI=1S/CH4/h1H4
"""


def write_qm9_tar(path: Path, numbers: Iterable[int]) -> Path:
    """Write methane under several numbers in the layout of dsgdb9nsd.xyz.tar.bz2."""
    with tarfile.open(path, "w:bz2") as archive:
        for i in numbers:
            text = QM9_XYZ.replace("gdb 1", f"gdb {i}").encode()
            info = tarfile.TarInfo(f"dsgdb9nsd_{i:06d}.xyz")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text))
    return path


QM9_CSV_HEADER = (
    "XYZ_file,Index,SMILES,InChi,N_atoms,Stoichiometry,Elements,XYZ_Ang,Mulliken_pop,"
    "Harmonic_Freq_cmi,RotA_GHz,RotB_GHz,RotC_GHz,Dipole_debye,Polarizability_bohr3,HOMO_au,"
    "LUMO_au,HOMO_LUMO_gap_au,R2_bohr2,ZPVE_au,InternalEnergy_0K_au,InternalEnergy_298K_au,"
    "Enthalphy_298K_au,GibbsFreeEnergy_298K_au,Heatcapacity_Cv_cal_mol_K\n"
)


def qm9_csv_row(index: int, gap: str = ".3399") -> str:
    """One molecule (ammonia) as qm9pack writes it, numbers like ``0.`` included."""
    return (
        f'"dsgdb9nsd_{index:06d}.xyz",{index},"N{index}","InChI=1S/H3N/h1H3",4,"[3,0,1,0,0]",'
        "\"['N','H','H','H']\",\"[[-0.0404260543,1.0241077531,0.0625637998],[0.0172574639,"
        "0.0125452063,-0.0273771593],[0.9157893661,1.3587451948,-.0287577581],[-0.5202777357,"
        '1.3435321258,-0.7755426124]]","[]","[]",293.60975,293.54111,191.39397,1.6256,9.46,'
        f"-0.257,0.0829,{gap},26.1563,0.034358,-56.525887,-56.523026,-56.522082,-56.544961,6.316\n"
    )


def matbench_structure(a: float, species: str = "Na", occupation: float = 1.0) -> dict:
    """Rock salt in pymatgen's dictionary form."""
    cell = (np.array([[0, 1, 1], [1, 0, 1], [1, 1, 0]]) * a / 2).tolist()
    sites = [
        {"species": [{"element": species, "occu": occupation}], "abc": [0, 0, 0], "xyz": [0, 0, 0]},
        {
            "species": [{"element": "Cl", "occu": 1.0}],
            "abc": [0.5, 0.5, 0.5],
            "xyz": [a / 2, a / 2, a / 2],
        },
    ]
    return {"@class": "Structure", "lattice": {"matrix": cell}, "sites": sites}


def write_matbench(path: Path, rows: list, columns: tuple[str, str] = ("structure", "n")) -> Path:
    """Write rows in MatBench's JSON layout."""
    content = {"index": list(range(len(rows))), "columns": list(columns), "data": rows}
    text = json.dumps(content)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


def write_aselmdb(path: Path, rows: list[dict]) -> Path:
    """Write ase database rows the way fairchem's ``LMDBDatabase`` does."""
    environment = lmdb.open(str(path), subdir=False, map_size=2**24)
    with environment.begin(write=True) as transaction:
        for i, row in enumerate(rows, start=1):
            transaction.put(str(i).encode(), zlib.compress(json.dumps(row).encode()))
        transaction.put(b"nextid", zlib.compress(json.dumps(len(rows) + 1).encode()))
        transaction.put(b"metadata", zlib.compress(b"{}"))
    environment.close()
    Path(f"{path}-lock").unlink(missing_ok=True)
    return path


def ase_row(shift: float = 0.0) -> dict:
    """A row of an ase database with energy, forces and stress, as orjson writes it."""
    return {
        "numbers": [11, 17],
        "positions": [[0.0, 0.0, 0.0], [2.8, 2.8 + shift, 2.8]],
        "cell": [[0.0, 2.8, 2.8], [2.8, 0.0, 2.8], [2.8, 2.8, 0.0]],
        "pbc": [True, True, True],
        "unique_id": "0" * 32,
        "ctime": 1.0,
        "mtime": 1.0,
        "user": "x",
        "calculator": "unknown",
        "calculator_parameters": {},
        "energy": -7.5 + shift,
        "forces": [[0.0, shift, 0.0], [0.0, -shift, 0.0]],
        "stress": [0.01, 0.02, 0.03, 0.004, 0.005, 0.006],
        "data": {"sid": 7, "band_gap": 5.0 + shift},
    }
