"""One real training step on converted sets, and the labels that deepmd-kit then holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ase.io
import numpy as np
import pytest
from deepmd.dpmodel.utils.lmdb_data import LmdbDataReader
from deepmd.utils.data import DeepmdData

from deepmd_mft.data.convert import convert
from deepmd_mft.data.readers import ReadOptions, open_source


def train_one_step(folder: Path, systems: str | list[str], type_map: list[str], loss: dict) -> str:
    """Run ``dp --pt train`` for one step of a small DPA-1 model; return lcurve.out."""
    content = {
        "model": {
            "type_map": type_map,
            "descriptor": {
                "type": "dpa1",
                "rcut": 3.0,
                "rcut_smth": 2.5,
                "sel": 30,
                "neuron": [4, 8],
                "axis_neuron": 2,
                "attn_layer": 0,
            },
            "fitting_net": {"neuron": [8]},
        },
        "loss": {"type": "ener", **loss},
        "learning_rate": {"type": "exp", "start_lr": 1e-3, "stop_lr": 1e-5, "decay_steps": 10},
        "training": {
            "training_data": {"systems": systems, "batch_size": 1},
            "numb_steps": 1,
            "disp_freq": 1,
            "save_freq": 1,
            "seed": 1,
        },
    }
    (folder / "input.json").write_text(json.dumps(content))
    threads = dict.fromkeys(
        ("OMP_NUM_THREADS", "DP_INTRA_OP_PARALLELISM_THREADS", "DP_INTER_OP_PARALLELISM_THREADS"),
        "1",
    )
    result = subprocess.run(
        [
            Path(sys.executable).with_name("dp"),
            "--pt",
            "train",
            "input.json",
            "--skip-neighbor-stat",
        ],
        cwd=folder,
        env={**os.environ, **threads, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return (folder / "lcurve.out").read_text()


PREFACTORS = {"start_pref_e": 1, "limit_pref_e": 1, "start_pref_f": 1, "limit_pref_f": 1}


def test_crystals_train_with_virial(shared, tmp_path):
    path = shared / "crystals" / "random-TP.xyz.gz"
    out = tmp_path / "set"
    convert(open_source(path), out, limit=2, progress=False)
    type_map = json.loads((out / "dataset.json").read_text())["type_map"]
    loss = {**PREFACTORS, "start_pref_v": 1, "limit_pref_v": 1}
    curve = train_one_step(tmp_path, [str(out)], type_map, loss)
    assert "rmse_v_trn" in curve

    system = DeepmdData(str(out / "16"), type_map=type_map)
    system.add("energy", 1, must=True, high_prec=True).add("force", 3, atomic=True, must=True)
    system.add("virial", 9, must=True)
    batch = system._load_set(Path(out / "16" / "set.000"))
    for frame, atoms in enumerate(ase.io.iread(str(path), index=":2")):
        kinds = [type_map[i] for i in batch["type"][frame]]
        assert kinds == atoms.get_chemical_symbols()
        np.testing.assert_array_equal(batch["energy"][frame, 0], atoms.get_potential_energy())
        np.testing.assert_array_equal(batch["force"][frame].reshape(-1, 3), atoms.get_forces())
        np.testing.assert_array_equal(batch["box"][frame].reshape(3, 3), atoms.cell.array)


def test_molecules_train_from_lmdb(shared, tmp_path):
    path = shared / "molecules" / "spice_673.xyz.gz"
    out = tmp_path / "set.lmdb"
    convert(open_source(path, options=ReadOptions()), out, limit=20, progress=False)
    type_map = json.loads((out / "dataset.json").read_text())["type_map"]
    curve = train_one_step(tmp_path, str(out), type_map, PREFACTORS)
    last = curve.splitlines()[-1].split()
    assert np.isfinite([float(word) for word in last]).all()

    reader = LmdbDataReader(str(out), type_map)
    for frame, atoms in enumerate(ase.io.iread(str(path), index=":20")):
        read = reader[frame]
        assert read["energy"][0] == pytest.approx(atoms.get_potential_energy(), abs=0)
        np.testing.assert_array_equal(read["force"], atoms.get_forces())
        assert [type_map[i] for i in read["atype"]] == atoms.get_chemical_symbols()
    reader.close()
