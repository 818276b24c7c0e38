"""`dp-mft analyze` as a user calls it."""

import csv
import json

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.io import write

from deepmd_mft.cli import main
from tests.helpers.dp import DATA

SMALL = ["--structures", "60", "--seed", "1"]
QUICK = ["--per-class", "60", "--atoms", "300", "--bootstrap", "5", "--drift-bootstrap", "1"]
NEAR = ["--middle", "2", "3", "--far", "3.2", "3.9"]
SETS = ["-s", f"id={DATA / 'id_test'}", "-s", f"ood={DATA / 'ood_test'}"]


def table(path):
    with path.open() as handle:
        return list(csv.DictReader(handle))


def picture(path):
    return path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000


@pytest.fixture(scope="module")
def linear_probe(pretrained, tmp_path_factory):
    """The pretrained checkpoint with another head and the same descriptor."""
    state = torch.load(pretrained, weights_only=True)
    for name, value in state["model"].items():
        if ".fitting_net." in name:
            state["model"][name] = value + 1.0
    path = tmp_path_factory.mktemp("lp") / "lp.pt"
    torch.save(state, path)
    return path


def test_collapse(pretrained, mft_run, linear_probe, tmp_path):
    out = tmp_path / "out"
    models = [
        *("-m", f"pre={pretrained}:GFN2", "-m", f"lp={linear_probe}"),
        *("-m", f"mft={mft_run / 'model.ckpt-6.pt'}:property"),
    ]
    command = ["analyze", "collapse", *models, *SETS, "-o", str(out), "--property", "gap", "--bins"]
    assert main([*command, "4", *SMALL, *QUICK, *NEAR]) == 0
    for name in ("tsne_atoms", "tsne_edges", "drift", "layers", "elements"):
        assert picture(out / f"{name}.png"), name
    drift = {(row["model"], row["set"]): row for row in table(out / "drift.csv")}
    assert drift.keys() == {(m, s) for m in ("lp", "mft") for s in ("id", "ood")}
    for name in ("id", "ood"):
        for quantity in ("wasserstein", "low", "high", "relative", "sliced"):
            assert float(drift["lp", name][quantity]) == 0.0, "linear probing moves nothing"
            assert float(drift["mft", name][quantity]) > 0.0
    layers = {
        (r["quantity"], r["model"], r["layer"]): float(r["value"])
        for r in table(out / "layers.csv")
    }
    assert layers["weight drift", "lp", "all"] == 0.0
    assert layers["weight drift", "mft", "all"] > 0.0
    assert layers["CKA", "lp", "layer 2"] == pytest.approx(1.0)
    assert layers["TransRate", "pre", "layer 1"] == layers["TransRate", "lp", "layer 1"]
    scores = {(r["kind"], r["space"], r["model"]): r for r in table(out / "clusters.csv")}
    assert len(scores) == 2 * 2 * 3
    assert float(scores["atoms", "raw", "lp"]["relative"]) == 1.0
    record = json.loads((out / "summary.json").read_text())
    assert record["models"]["mft"]["branch"] == "property"
    assert len(record["sets"]["ood"]["sha256"]) == 64
    assert "seed=1" in record["options"]
    points = np.load(out / "tsne_atoms.npz", allow_pickle=False)
    assert points["points"].shape == (3, len(points["labels"]), 2)
    assert main([*command, "4", *SMALL, *QUICK, *NEAR]) == 1, "nothing is overwritten silently"


def test_what_is_left_out_is_said(pretrained, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["analyze", "collapse", "-m", f"pre={pretrained}", *SETS, "-o", str(out)]
    assert main([*command, *SMALL, *QUICK]) == 0
    notes = "\n".join(json.loads((out / "summary.json").read_text())["notes"])
    assert "classes with too few members left out" in notes
    assert "edges 'C-H far': 0 of 60 are in the neighbour lists" in notes  # cutoff 4 Angstrom
    assert "C-H far" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-m", "pre={pre}:gap"], "no branch 'gap'; it has GFN2"),
        (["-m", "pre={pre}.none"], "does not exist"),
        (["-m", "pre={pre}", "-m", "pre={pre}"], "used once"),
        (["-m", "pre={pre}", "-m", "wide={wide}"], "12 and 16 columns"),
        (["-m", "pre={pre}", "--clusters-on", "train"], "no such set (there: id, ood)"),
        (["-m", "pre={pre}", "--pairs", "C-Si"], "no C-Si pair"),
        (["-m", "pre={pre}", "--least", "100000"], "only 0 class(es)"),
        (["-m", "pre={pre}", "--property", "homo"], "homo"),
        (["-m", "pre={pre}", "-s", "none=/nowhere"], "/nowhere does not exist"),
    ],
)
def test_mistakes(pretrained, wide, tmp_path, capsys, options, words):
    out = tmp_path / "out"
    options = [o.format(pre=pretrained, wide=wide) for o in options]
    assert (
        main(["analyze", "collapse", *SETS, *options, "-o", str(out), *SMALL, *QUICK, *NEAR]) == 1
    )
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A checkpoint of another width."""
    from tests.helpers.dp import DESCRIPTOR
    from tests.helpers.models import save_checkpoint

    repflow = {**DESCRIPTOR["repflow"], "n_dim": 16}
    path = tmp_path_factory.mktemp("wide") / "wide.pt"
    return save_checkpoint(path, descriptor={**DESCRIPTOR, "repflow": repflow})


def test_domains_rank_molecules_before_crystals(pretrained, tmp_path, capsys):
    crystals = [bulk("C", "diamond", a=3.5 + 0.01 * i) for i in range(20)] + [bulk("Si")]
    write(tmp_path / "crystals.xyz", crystals)
    write(tmp_path / "water.xyz", [molecule("H2O")] * 40)
    out = tmp_path / "out"
    command = [
        *("analyze", "domains", "-m", f"pre={pretrained}", "--target", f"ood={DATA / 'ood_test'}"),
        *("-s", f"crystals={tmp_path / 'crystals.xyz'}", "-s", f"id={DATA / 'id_test'}"),
        *("-s", f"water={tmp_path / 'water.xyz'}", "-o", str(out), "--structures", "300"),
    ]
    assert main(command) == 0
    rows = table(out / "domains.csv")
    assert rows[0]["name"] == "id"
    assert rows[0]["missing_elements"] == ""
    by_name = {row["name"]: row for row in rows}
    assert by_name["crystals"]["missing_elements"] == "H N O F"
    assert float(by_name["crystals"]["usable"]) == pytest.approx(20 / 21)
    assert float(rows[0]["distance"]) < float(by_name["crystals"]["distance"])
    assert picture(out / "map.png")
    words = capsys.readouterr().out
    assert "1. id: nothing speaks against it" in words
    assert (
        "crystals: negative transfer is a risk: what was looked at of it has no H, N, O, F" in words
    )


def test_embed(pretrained, tmp_path, capsys):
    out = tmp_path / "out.npz"
    command = ["analyze", "embed", "-m", f"pre={pretrained}", "-s", f"id={DATA / 'id_test'}"]
    command += ["-o", str(out), "--layers", "--pairs", "C-H", *SMALL]
    assert main(command) == 0
    arrays = np.load(out, allow_pickle=False)
    natoms = len(arrays["number"])
    assert arrays["node"].shape == (natoms, 12)
    assert arrays["layers"].shape == (2, natoms, 12)
    assert arrays["edge"].shape == (len(arrays["edge_class"]), 8)
    assert len(arrays["atom_class"]) == natoms
    assert json.loads(str(arrays["record"]))["set"]["structures"] == 60
    assert main(command) == 1
    assert "give --overwrite" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.npz"]


def test_embed_writes_every_set(pretrained, tmp_path, capsys):
    command = ["analyze", "embed", "-m", f"pre={pretrained}", "--structures", "5"]
    for name in ("id_test", "ood_test"):
        assert main([*command, "-s", f"{name}={DATA / name}", "-o", str(tmp_path / name)]) == 0
    both = [word for name in ("ood_test", "id_test") for word in ("-s", f"{name}={DATA / name}")]
    assert main([*command, *both, "-o", str(tmp_path / "both")]) == 0
    assert sorted(p.name for p in (tmp_path / "both").glob("*.npz")) == [
        "id_test.npz",
        "ood_test.npz",
    ]
    for name in ("id_test", "ood_test"):
        alone = np.load(tmp_path / name, allow_pickle=False)
        np.testing.assert_array_equal(
            np.load(tmp_path / "both" / f"{name}.npz", allow_pickle=False)["node"], alone["node"]
        )
    assert main([*command, *both, "-o", str(tmp_path / "both"), "--overwrite"]) == 0
    (tmp_path / "both" / "mine.npz").touch()
    assert main([*command, *both, "-o", str(tmp_path / "both"), "--overwrite"]) == 1
    assert "mine.npz" in capsys.readouterr().err
    twice = ["-s", f"a={DATA / 'id_test'}", "-s", f"a={DATA / 'ood_test'}"]
    assert main([*command, *twice, "-o", str(tmp_path / "twice")]) == 1
    assert "every name must be used once" in capsys.readouterr().err
    assert main([*command, "-s", f"../a={DATA / 'id_test'}", "-o", str(tmp_path / "b")]) == 1
    assert "cannot name a folder" in capsys.readouterr().err


def test_collapse_and_domains_leave_out_unknown_elements_alike(pretrained, tmp_path, capsys):
    waters = [molecule("CH3CH2OH") for _ in range(30)]
    for number, one in enumerate(waters):
        one.rattle(0.05, seed=number)
    write(tmp_path / "all.xyz", [bulk("Si", cubic=True), *waters, molecule("SiH4")])
    note = "all: 2 of 32 structures have Si"
    some = ["-m", f"pre={pretrained}", "-s", f"all={tmp_path / 'all.xyz'}"]
    out = tmp_path / "collapse"
    assert main(["analyze", "collapse", *some, "-o", str(out), *SMALL, *QUICK, *NEAR]) == 0
    assert note in "\n".join(json.loads((out / "summary.json").read_text())["notes"])
    assert note in (out / "summary.md").read_text()
    target = ["--target", f"id={DATA / 'id_test'}", "--structures", "40"]
    assert main(["analyze", "domains", *some, *target, "-o", str(tmp_path / "domains")]) == 0
    assert note in (tmp_path / "domains" / "summary.md").read_text()
    assert note in capsys.readouterr().out
