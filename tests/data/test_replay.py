"""``dp-mft replay``: what it chooses, leaves out, writes and records."""

import json

import numpy as np
import pytest
from ase.io import write as write_ase

from deepmd_mft.checkpoints.model_file import ModelFile
from deepmd_mft.cli import main
from deepmd_mft.data.frames import Skipped
from deepmd_mft.data.labelling import labelled
from deepmd_mft.data.pool import Pool, read_pool
from deepmd_mft.data.replay import _frames
from deepmd_mft.data.teachers import open_teacher
from deepmd_mft.data.teachers.xtb import XtbTeacher
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.structures.structure import Structure
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, Dp, pretrain_input
from tests.helpers.models import save_checkpoint

XTB = ["--teacher", "gfn2", "--jobs", "1", "-q"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("teacher") / "model.pt")


@pytest.fixture
def xyz(tmp_path):
    """Twelve of the embedded molecules as a structure file."""
    molecules = StructureSet("some", [DATA / "valid"], most=12)
    path = tmp_path / "some.xyz"
    write_ase(path, [one.atoms() for one in molecules])
    return path


def sets(folder):
    return {part: StructureSet(part, [folder / part]) for part in ("train", "valid")}


def test_a_set_by_the_checkpoint_trains(checkpoint, tmp_path):
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(DATA / "valid"), "-o", str(out), "--number", "20"]
    assert main([*words, "--copies", "1", "--max-force", "1e4", "-q"]) == 0
    record = json.loads((out / "train" / "dataset.json").read_text())
    assert record["teacher"]["checkpoint_sha256"] == file_checksum(checkpoint)
    assert record["drawn"]["structures"] == 400
    assert record["drawn"]["chosen"] == 20
    found = sets(out)
    assert len(found["train"]) + len(found["valid"]) == 40
    names = {part: {one.partition("~")[0] for one in data.ids} for part, data in found.items()}
    assert not names["train"] & names["valid"]  # copies stay together
    assert [len(one) for one in names.values()] == [18, 2]
    config = pretrain_input()
    for data in config["training"]["data_dict"].values():
        data["training_data"]["systems"] = str(out / "train")
        data["validation_data"]["systems"] = str(out / "valid")
    Dp(tmp_path).train(config)
    assert (tmp_path / "model.ckpt-6.pt").is_file()


def test_xtb_labels_and_what_is_left_out(checkpoint, tmp_path, xyz, capsys):
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(xyz), "-o", str(out), *XTB, "--label", "gap,dipole"]
    assert main([*words, "--copies", "2", "--rattle", "0.1", "0.3", "--valid", "0.2"]) == 0
    printed = capsys.readouterr().out
    assert "a force above 30 eV/A" in printed
    found = sets(out)
    whole = found["train"]
    assert whole.units["gap"] == "Hartree"
    assert whole.units["mu"] == "D"
    teacher = XtbTeacher("gfn2", ["gap", "dipole"])
    again = teacher.label(list(whole), np.zeros(len(whole)))
    np.testing.assert_allclose(whole.label("gap"), again["gap"], rtol=1e-6)
    np.testing.assert_allclose(whole.label("mu"), again["mu"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(whole.label("energy"), again["energy"], rtol=1e-9)
    skipped = json.loads((out / "train" / "dataset.json").read_text())["summary"]["skipped"]
    left_out = 36 - len(whole) - len(found["valid"])
    assert left_out > 0
    assert "a force above 30 eV/A" in json.dumps(skipped)


def test_an_interrupted_run_goes_on(checkpoint, tmp_path, xyz, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(XtbTeacher, "piece", 4)
    words = ["replay", str(checkpoint), str(xyz), *XTB, "-o"]
    assert main([*words, str(tmp_path / "first")]) == 0
    pieces = sorted((tmp_path / "cache").rglob("*.npz"))
    assert len(pieces) == 3
    pieces[0].unlink()
    times = [one.stat().st_mtime_ns for one in pieces[1:]]
    assert main([*words, str(tmp_path / "second")]) == 0
    assert [one.stat().st_mtime_ns for one in pieces[1:]] == times
    for part in ("train", "valid"):
        first, second = (sets(tmp_path / name)[part] for name in ("first", "second"))
        np.testing.assert_array_equal(first.label("energy"), second.label("energy"))


def test_a_table_of_smiles_and_a_set_in_one_pool(checkpoint, tmp_path):
    table = tmp_path / "pool.csv"
    table.write_text("name,SMILES\na,CCO\nb,C[NH2+]C\nc,not-a-molecule\nd,CC(=O)C\n")
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(table), str(DATA / "train"), "-o", str(out), *XTB]
    assert main([*words, "--valid", "0.05"]) == 0
    record = json.loads((out / "replay.json").read_text())
    assert record["drawn"]["structures"] == 128 + 3
    assert len(record["files"]) == 2
    assert all("sha256" in one for one in record["files"])
    unread = record["drawn"]["unread"]
    assert [(one["structures"], one["examples"]) for one in unread.values()] == [
        (1, ["pool.csv:3"])
    ]
    assert "cannot parse" in json.dumps(unread)
    assert "cannot parse" not in json.dumps(record["sets"])  # counted once


def test_an_lmdb(checkpoint, tmp_path, xyz):
    pool, out = tmp_path / "pool.lmdb", tmp_path / "aux"
    assert main(["convert", str(xyz), str(pool), "--quiet"]) == 0
    words = ["replay", str(checkpoint), str(pool), "-o", str(out), "-q", "--max-force", "1e4"]
    assert main(words) == 0
    found = sets(out)
    made = [one for part in ("train", "valid") for one in found[part]]
    assert sum(len(one.numbers) for one in made) == sum(
        len(one.numbers) for one in StructureSet("some", [xyz])
    )
    again = open_teacher("pretrained", ModelFile("", checkpoint)).label(made, np.zeros(12))
    energies = np.concatenate([found[part].label("energy") for part in ("train", "valid")])
    np.testing.assert_allclose(energies, again["energy"], rtol=1e-6)


def test_structure_files_say_their_charge(checkpoint, tmp_path):
    ammonium = (
        'total_charge=1 Properties=species:S:1:pos:R:3 pbc="F F F"\nN 0 0 0\nH 0.6 0.6 0.6\n'
        "H -0.6 -0.6 0.6\nH -0.6 0.6 -0.6\nH 0.6 -0.6 -0.6\n"
    )
    for name, text in (("one", f"5\n{ammonium}"), ("two", f"5\n{ammonium.replace('0.6', '0.61')}")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ion.xyz").write_text(text)
    out = tmp_path / "aux"
    files = [str(tmp_path / name / "ion.xyz") for name in ("one", "two")]
    assert main(["replay", str(checkpoint), *files, "-o", str(out), *XTB]) == 0
    found = sets(out)
    for data in found.values():
        ion = next(iter(data))
        charged = XtbTeacher("gfn2").label([ion], np.ones(1))["energy"]
        neutral = XtbTeacher("gfn2").label([ion], np.zeros(1))["energy"]
        np.testing.assert_allclose(data.label("energy"), charged, rtol=1e-6)
        assert abs(charged - neutral)[0] > 1
    names = [data.ids[0] for data in found.values()]
    assert len(set(names)) == 2  # two files of one name
    assert all(name.endswith("ion.xyz:0") for name in names)


def test_smiles_say_their_charge(checkpoint, tmp_path):
    table, data, out = (tmp_path / name for name in ("ions.csv", "ions", "aux"))
    table.write_text("smiles\nC[NH3+]\nCC(=O)[O-]\n")
    assert main(["convert", str(table), str(data), "--jobs", "1", "-q"]) == 0
    for source in (table, data):
        pool = read_pool([source])
        assert pool.charges == [1.0, -1.0]
        words = [str(source), "-o", str(out), *XTB, "--overwrite", "--valid", "0.5"]
        assert main(["replay", str(checkpoint), *words]) == 0
        parts = sets(out).values()
        found = {one.ids[0]: one.label("energy")[0] for one in parts}
        charged = XtbTeacher("gfn2").label(pool.structures, np.array([1.0, -1.0]))["energy"]
        np.testing.assert_allclose([found[name] for name in pool.ids], charged, rtol=1e-6)
        neutral = XtbTeacher("gfn2").label(pool.structures, np.zeros(2))["energy"]
        assert (abs(charged - neutral) > 1).all()


def test_the_limit_is_of_a_forces_length(tmp_path):
    structure = Structure(np.array([1, 1]), np.array([[0.0, 0, 0], [0, 0, 0.7]]))
    pool = Pool()
    pool.add(structure, "a", "")
    labels = {"energy": np.zeros(1), "force": np.array([[20.0, 20, 20], [-20, -20, -20]])}
    labels |= {"virial": np.full((1, 9), np.nan), "reason": np.array([""])}
    rows = np.zeros(1, dtype=int)
    ((item, _),) = _frames(pool, labels, rows, 30.0)  # |F| is 34.6
    assert isinstance(item, Skipped)
    ((item, _),) = _frames(pool, labels, rows, 35.0)
    assert not isinstance(item, Skipped)
    labels["virial"][:] = 500.0
    ((item, _),) = _frames(pool, labels, rows, 35.0)  # 250 eV per atom
    assert "a virial above 200 eV per atom" in item.reason


def test_other_programs_work_beside_the_checkpoint(checkpoint):
    """The processes are no forks of one that has computed gradients, nor do they take it along."""
    water = Structure(
        np.array([8, 1, 1]), np.array([[0.0, 0, 0.1], [0, 0.8, -0.5], [0, -0.8, -0.5]])
    )
    pool = Pool()
    for number in range(3):
        pool.add(water._replace(positions=water.positions * (1 + number / 20)), str(number), "")
    ours = labelled(pool, open_teacher("pretrained", ModelFile("", checkpoint)))
    assert np.isfinite(ours["energy"]).all()
    theirs = labelled(
        pool, open_teacher("tests.helpers.calculators:Springs", ModelFile("", checkpoint))
    )
    assert theirs["reason"].tolist() == [""] * 3
    positions = np.array([one.positions for one in pool.structures])
    np.testing.assert_allclose(theirs["energy"], (positions**2).sum((1, 2)))
    np.testing.assert_allclose(theirs["force"], -2 * positions.reshape(-1, 3))
    with pytest.raises(UserError, match="a process that labels with Dying has died"):
        labelled(pool, open_teacher("tests.helpers.calculators:Dying", ModelFile("", checkpoint)))


def test_two_teachers_have_a_folder_each(checkpoint, tmp_path, xyz):
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(xyz), "-o", str(out), "-q", "--max-force", "1e4"]
    assert main([*words, "--teacher", "pretrained", "gfn2", "--label", "gap", "--jobs", "1"]) == 0
    ours, xtb = (sets(out / name)["train"] for name in ("pretrained", "gfn2"))
    assert ours.ids == xtb.ids
    assert "gap" in xtb.label_names()
    assert "gap" not in ours.label_names()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--label", "gap"], "take --teacher gfn2"),
        (["--copies", "-1"], "--copies -1: 0 or more is needed"),
        (["--rattle", "0.2", "0.1", "--copies", "1"], "--rattle 0.2 0.1"),
        (["--strain", "0.1"], "give --copies N"),
        (["--valid", "1"], "a fraction between 0 and 1"),
        (["--number", "1"], "at least 2 structures"),
        (["--teacher", "gfn2", "gfn2"], "named twice"),
        (["--teacher", "gfn9"], "no such teacher"),
        (["some.xyz"], "one is named twice"),
    ],
)
def test_arguments_that_make_no_sense(
    checkpoint, tmp_path, xyz, capsys, monkeypatch, words, message
):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "aux"
    assert main(["replay", str(checkpoint), str(xyz), *words, "-o", str(out), "-q"]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize("more", [[], ["--teacher", "gfn2", "--number", "2"]])
def test_an_element_that_the_checkpoint_does_not_know(checkpoint, tmp_path, capsys, more):
    path = tmp_path / "salt.xyz"
    path.write_text("2\n\nNa 0 0 0\nCl 0 0 2.4\n1\n\nH 0 0 0\n")
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(path), "-o", str(out), "-q"]
    assert main([*words, *more]) == 1
    message = capsys.readouterr().err
    assert "Na (salt.xyz:0)" in message
    assert "Cl (salt.xyz:0)" in message
    assert not out.exists()
