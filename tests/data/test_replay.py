"""``dp-mft replay``: what it chooses, leaves out, writes and records."""

import json

import numpy as np
import pytest
from ase.io import write as write_ase

from deepmd_mft.cli import main
from deepmd_mft.data import replay as replaying
from deepmd_mft.data.teachers.xtb import XtbTeacher
from deepmd_mft.files.checksums import file_checksum
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
    monkeypatch.setattr(replaying, "_PIECE", 4)
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
    table.write_text("name,SMILES\na,CCO\nb,C[NH2+]C\nc,not a molecule\nd,CC(=O)C\n")
    out = tmp_path / "aux"
    words = ["replay", str(checkpoint), str(table), str(DATA / "train"), "-o", str(out), *XTB]
    assert main([*words, "--valid", "0.05"]) == 0
    record = json.loads((out / "replay.json").read_text())
    assert record["drawn"]["structures"] == 128 + 3
    assert len(record["files"]) == 2
    assert all("sha256" in one for one in record["files"])
    assert "cannot parse" in json.dumps(record["sets"]["train"]["skipped"])


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
    ],
)
def test_arguments_that_make_no_sense(checkpoint, tmp_path, xyz, capsys, words, message):
    out = tmp_path / "aux"
    assert main(["replay", str(checkpoint), str(xyz), "-o", str(out), "-q", *words]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_an_element_that_the_checkpoint_does_not_know(checkpoint, tmp_path, capsys):
    path = tmp_path / "salt.xyz"
    path.write_text("2\n\nNa 0 0 0\nCl 0 0 2.4\n1\n\nH 0 0 0\n")
    out = tmp_path / "aux"
    assert main(["replay", str(checkpoint), str(path), "-o", str(out), "-q"]) == 1
    assert "Na" in capsys.readouterr().err
    assert not out.exists()
