"""dp-mft interpolate: models between checkpoints, chosen on validation data alone."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch

from deepmd_mft.checkpoints.averaging import mean
from deepmd_mft.checkpoints.edit.alike import first_difference
from deepmd_mft.checkpoints.edit.interpolate import Mixture, parse_alphas, parts_of
from deepmd_mft.cli.main import main
from deepmd_mft.errors import UserError
from deepmd_mft.files.checksums import file_checksum
from deepmd_mft.inference.predictor import Predictor
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.dp import DATA, DESCRIPTOR, PROPERTY_NET, Dp
from tests.helpers.models import save_checkpoint
from tests.helpers.systems import write_system

BIAS = "model.Default.atomic_model.out_bias"
SCALE = "model.Default.atomic_model.out_std"


def property_model(path, seed=1, shift=None, **net):
    """Write a property model with random weights; with ``shift`` it is so far off the labels."""
    descriptor = {**DESCRIPTOR, "seed": seed}
    fitting = {**PROPERTY_NET, "seed": seed, **net}
    save_checkpoint(path, type="mft", descriptor=descriptor, fitting_net=fitting)
    whole = torch.load(path, weights_only=True)
    if shift is not None:
        whole["model"][BIAS].fill_(0.25 + shift)  # the labels: 0.25 Hartree, spread 0.05
        whole["model"][SCALE].fill_(1e-3)
    torch.save(whole, path)
    return path


def weights(path):
    state = torch.load(path, weights_only=True)["model"]
    return {name: value for name, value in state.items() if name != "_extra_state"}


def as_run(folder, model, train="train", valid="valid"):
    """Put a checkpoint into the folder of a run with data of its own."""
    folder.mkdir()
    shutil.copy(model, folder / "model.ckpt-3.pt")
    params = torch.load(model, weights_only=True)["model"]["_extra_state"]["model_params"]
    data = {"training_data": {"systems": str(DATA / train)}}
    if valid:
        data["validation_data"] = {"systems": str(DATA / valid)}
    (folder / "out.json").write_text(json.dumps({"model": params, "training": data}))
    return folder / "model.ckpt-3.pt"


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Two models of one network with other weights."""
    folder = tmp_path_factory.mktemp("ends")
    return property_model(folder / "a.pt"), property_model(folder / "b.pt", seed=2)


@pytest.fixture(scope="module")
def moved(tmp_path_factory):
    """Three copies of one model, whose predictions are +3, -1 and -4 off."""
    folder = tmp_path_factory.mktemp("moved")
    return [property_model(folder / f"{s}.pt", shift=s) for s in (3.0, -1.0, -4.0)]


# --- means ---------------------------------------------------------------------------------------


def test_ends_are_equal_to_the_bit_and_between_it_is_the_closed_form(ends, tmp_path):
    first, second = map(weights, ends)
    for alpha in (0, 1, 0.3):
        out = tmp_path / f"{alpha}.pt"
        assert main(["interpolate", *map(str, ends), "--alpha", str(alpha), "-o", str(out)]) == 0
        found = weights(out)
        assert list(found) == list(second)
        for name, value in found.items():
            if alpha in (0, 1):
                assert torch.equal(value, (first, second)[alpha][name]), name
                continue
            one, other = first[name].numpy(), second[name].numpy()
            np.testing.assert_allclose(value.numpy(), 0.7 * one + 0.3 * other, rtol=1e-14)
            assert value.dtype == first[name].dtype
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_float32_is_rounded_once():
    one, other = torch.tensor([0.1, 1e8]), torch.tensor([0.3, -1e8])
    found = mean([{"w": one}, {"w": other}], [0.4, 0.6])["w"]
    wanted = 0.4 * one.numpy().astype(np.float64) + 0.6 * other.numpy().astype(np.float64)
    np.testing.assert_array_equal(found.numpy(), wanted.astype(np.float32))


def test_what_is_equal_stays_and_one_tensor_of_two_names_stays_one():
    value, one, other = torch.tensor([0.1, np.inf]), torch.zeros(2), torch.ones(2)
    states = [{"x": value, "w": w, "alias": w} for w in (one, other)]
    found = mean(states, [0.3, 0.7])
    assert torch.equal(found["x"], value)
    assert found["w"] is found["alias"]


def test_integers_that_differ_are_refused():
    states = [{"n": torch.tensor([number])} for number in (1, 2)]
    with pytest.raises(UserError, match="n differs between the checkpoints"):
        mean(states, [0.5, 0.5])
    assert mean(states, [0.0, 1.0])["n"].item() == 2


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["0:1:0.1"], [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]),
        (["0.5"], [0.5]),
        (["1", "0.2", "0:0.2:0.1"], [0, 0.1, 0.2, 1]),
    ],
)
def test_alphas(texts, wanted):
    assert parse_alphas(texts) == wanted


@pytest.mark.parametrize("text", ["a", "1.5", "-0.1", "0:1:0.3", "0:1", "1:0:0.1", "0:1:0", "nan"])
def test_alphas_that_are_none(text):
    with pytest.raises(UserError, match="--alpha"):
        parse_alphas([text])


# --- different networks --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"fitting_net": {"neuron": [12, 8]}},
            "fitting_net/neuron is 12, 12 in the first and 12, 8",
        ),
        ({"fitting_net": {"readout": "max"}}, "fitting_net/readout"),
        (
            {"descriptor": {"activation_function": "silut"}},
            "descriptor/activation_function is 'tanh'",
        ),
        ({"type_map": ["C", "H", "N", "O", "F"]}, "type_map is H, C, N, O, F in the first"),
    ],
)
def test_the_first_difference_is_named(ends, tmp_path, capsys, change, message):
    change = copy.deepcopy(change)
    parts = {"descriptor": {**DESCRIPTOR}, "fitting_net": {**PROPERTY_NET}}
    for name in set(parts) & set(change):
        change[name] = {**parts[name], **change[name]}
    other = save_checkpoint(tmp_path / "other.pt", type="mft", **{**parts, **change})
    out = tmp_path / "out"
    assert main(["interpolate", str(ends[0]), str(other), "-o", str(out)]) == 1
    error = capsys.readouterr().err
    assert "are different networks" in error
    assert message in error
    assert not out.exists()


def test_how_a_network_is_trained_is_no_difference(ends, tmp_path):
    frozen = save_checkpoint(
        tmp_path / "lp.pt",
        type="mft",
        descriptor={**DESCRIPTOR, "trainable": False, "seed": 5},
        fitting_net={**PROPERTY_NET, "bias": "mean"},
    )
    arguments = [str(frozen), str(ends[1]), "--alpha", "0.5"]
    assert main(["interpolate", *arguments, "-o", str(tmp_path / "out.pt")]) == 0


def test_weights_are_compared_where_the_json_says_nothing():
    shapes = [{"w": torch.zeros(2)}, {"w": torch.zeros(3)}]
    assert "w is (2,)" in first_difference(({}, {}), tuple(shapes))
    assert first_difference(({}, {}), ({"w": 1}, {})) == "only the first has w"
    assert first_difference(({"a": {"seed": 1, "b": 2}}, {"a": {"seed": 2}}), ({}, {})) is None


# --- chosen on validation data -------------------------------------------------------------------


def test_the_best_point_of_the_line_is_written(moved, tmp_path, capsys):
    """+3 and -1 cancel at alpha 0.75."""
    out = tmp_path / "out"
    lines = ["--valid", str(DATA / "valid"), "--alpha", "0:1:0.25", "-o", str(out)]
    assert main(["interpolate", str(moved[0]), str(moved[1]), *lines]) == 0
    assert "alpha-0.75" in next(
        line for line in capsys.readouterr().out.splitlines() if "<- best" in line
    )
    assert sorted(path.name for path in out.iterdir()) == [
        "curve.png",
        "interpolation.json",
        "model.best.pt",
    ]
    record = json.loads((out / "interpolation.json").read_text())
    assert record["best"] == "alpha-0.75"
    assert [one["alpha"] for one in record["models"]] == [0, 0.25, 0.5, 0.75, 1]
    assert [one["rmse"] for one in record["models"]] == pytest.approx([3, 2, 1, 0, 1], abs=0.1)
    assert [one["sha256"] for one in record["inputs"]] == [file_checksum(p) for p in moved[:2]]
    assert record["validation"]["structures"] == 400
    made = torch.load(out / "model.best.pt", weights_only=True)["dp_mft"]
    assert made["mixture"]["weights"] == [0.25, 0.75]
    first, second = (weights(path)[BIAS] for path in moved[:2])
    torch.testing.assert_close(weights(out / "model.best.pt")[BIAS], 0.25 * first + 0.75 * second)


def test_soups(moved, tmp_path):
    """+3, -1, -4: the mean of all is -2/3, that of the first two +1, of the last two -2.5."""
    out = tmp_path / "out"
    paths = [str(path) for path in moved]
    lines = ["--soup", "--valid", str(DATA / "valid"), "--all", "-o", str(out)]
    assert main(["interpolate", *paths, *lines, "-q"]) == 0
    record = json.loads((out / "interpolation.json").read_text())
    found = {one["name"]: one for one in record["models"]}
    assert found["uniform"]["rmse"] == pytest.approx(2 / 3, abs=0.1)
    # -1 is the best alone (1), with +3 no better (1), with -4 worse
    assert "greedy" not in found or found["greedy"]["rmse"] < 1
    assert [found[name]["rmse"] for name in paths] == pytest.approx([3, 1, 4], abs=0.1)
    assert record["best"] == "uniform"
    written = {path.name for path in out.glob("*.pt")} - {"model.best.pt"}
    assert written == {f"model.{name}.pt" for name in found if name not in paths}


def test_sets_have_errors_of_their_own(moved, tmp_path, capsys):
    """Pooled, the squares of two sets are weighted by their structures."""
    out = tmp_path / "out"
    sets = [str(DATA / name) for name in ("valid_tail", "valid")]
    arguments = [*map(str, moved[:2]), "--alpha", "0.75", "1", "--valid", *sets, "-o", str(out)]
    assert main(["interpolate", *arguments]) == 0
    assert "rmse_valid_tail" in capsys.readouterr().out.splitlines()[0]
    for one in json.loads((out / "interpolation.json").read_text())["models"]:
        pooled = 300 * one["rmse_valid_tail"] ** 2 + 400 * one["rmse_valid"] ** 2
        assert one["rmse"] == pytest.approx((pooled / 700) ** 0.5)


def test_systems_of_one_table_have_their_own_rows(tmp_path):
    """A table is read in its order: the errors of one system were partly those of another."""
    home = tmp_path / "valid"
    for name, end in (("10", "H"), ("11", "O")):
        write_system(home / name, nframes=3, symbols=f"C {end}")
    places = [(system, frame) for frame in range(3) for system in ("10", "11")]
    rows = [f"{row},m{row},,,{row},{s},{f}" for row, (s, f) in enumerate(places)]
    header = "row,id,smiles,group,source_row,system,frame"
    (home / "rows.csv").write_text("\n".join([header, *rows]) + "\n")
    other = write_system(tmp_path / "other", nframes=2, symbols="C N")
    given = [home / "11", other, home / "10"]
    formulas = np.array(StructureSet("validation", given).formulas)
    found = {name: set(formulas[rows].tolist()) for name, rows in parts_of(given).items()}
    assert found == {"11": {"CO"}, "other": {"CN"}, "10": {"CH"}}


def test_force_fields_are_written_and_not_chosen(mft_run, tmp_path, capsys):
    branch = f"{mft_run / 'model.ckpt-6.pt'}:GFN2"
    out = tmp_path / "out"
    assert main(["interpolate", branch, branch, "--alpha", "0", "1", "-o", str(out)]) == 0
    assert (out / "model.alpha-1.pt").is_file()
    arguments = [branch, branch, "--valid", str(DATA / "aux_valid"), "-o", str(tmp_path / "other")]
    assert main(["interpolate", *arguments]) == 1
    assert "a force field is not chosen here" in capsys.readouterr().err


def test_validation_data_are_those_of_the_run(moved, tmp_path):
    runs = [as_run(tmp_path / str(i), path) for i, path in enumerate(moved[:2])]
    out = tmp_path / "out"
    assert main(["interpolate", *map(str, runs), "--alpha", "0.5", "-o", str(out), "-q"]) == 0
    record = json.loads((out / "interpolation.json").read_text())
    assert record["validation"]["path"] == str(DATA / "valid")


def test_without_validation_data_all_are_written(moved, tmp_path, capsys):
    out = tmp_path / "out"
    paths = map(str, moved[:2])
    assert main(["interpolate", *paths, "--alpha", "0", "1", "-o", str(out)]) == 0
    assert "none is chosen" in capsys.readouterr().out
    names = {path.name for path in out.iterdir()}
    assert names == {"interpolation.json", "model.alpha-0.pt", "model.alpha-1.pt"}


@pytest.mark.parametrize(
    ("valid", "message"),
    [
        (DATA / "ood_test", "ood_test is a test set by its name"),
        (DATA, "id_test is a test set by its name"),
        (DATA / "train", "is training data of the run"),
        (DATA / "nowhere", "is not a folder"),
    ],
)
def test_other_data_do_not_choose(moved, tmp_path, capsys, valid, message):
    run = as_run(tmp_path / "run", moved[0])
    arguments = [str(run), str(moved[1]), "--valid", str(valid), "-o", str(tmp_path / "out")]
    assert main(["interpolate", *arguments]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_without_the_label_do_not_choose(moved, tmp_path, capsys):
    shutil.copytree(DATA / "valid", tmp_path / "valid", ignore=shutil.ignore_patterns("gap.npy"))
    arguments = [*map(str, moved[:2]), "--valid", str(tmp_path / "valid")]
    assert main(["interpolate", *arguments, "-o", str(tmp_path / "out")]) == 1
    assert "have no labels of 'gap'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_runs_with_different_validation_data_do_not_choose(moved, tmp_path, capsys):
    runs = [
        as_run(tmp_path / valid, path, valid=valid)
        for path, valid in zip(moved, ("valid", "valid_tail"), strict=False)
    ]
    assert main(["interpolate", *map(str, runs), "-o", str(tmp_path / "out")]) == 1
    assert "have different validation data" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A"], "1 checkpoint(s)"),
        (["A", "B", "A"], "3 checkpoint(s)"),
        (["A", "B", "--soup", "--alpha", "0.5"], "give one"),
        (["A", "nowhere.pt"], "nowhere.pt does not exist"),
        (["A", "frozen.pth"], "is frozen; take the checkpoint"),
        (["A", "B", "-o", "model.pth"], "freeze one afterwards"),
        (["A", "B:property"], "is a single-task checkpoint and has no branch 'property'"),
    ],
)
def test_other_mistakes(ends, tmp_path, capsys, arguments, message):
    names = {"A": str(ends[0]), "B": str(ends[1]), "B:property": f"{ends[1]}:property"}
    names["frozen.pth"] = str(tmp_path / "frozen.pth")
    (tmp_path / "frozen.pth").touch()
    given = [names.get(one, one) for one in arguments]
    assert main(["interpolate", "-o", str(tmp_path / "out"), *given]) == 1
    assert message in capsys.readouterr().err


def test_one_file_is_not_chosen(ends, tmp_path, capsys):
    out = tmp_path / "out.pt"
    assert main(["interpolate", *map(str, ends), "-o", str(out)]) == 1
    assert "is the file of one model" in capsys.readouterr().err
    out.write_text("mine")
    arguments = [*map(str, ends), "--alpha", "0.5", "-o", str(out)]
    assert main(["interpolate", *arguments]) == 1
    assert "exists" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_no_number_is_no_best(ends, tmp_path, capsys):
    broken = property_model(tmp_path / "nan.pt", shift=float("nan"))
    arguments = [str(broken), str(broken), "--valid", str(DATA / "valid"), "--alpha", "0.5"]
    assert main(["interpolate", *arguments, "-o", str(tmp_path / "out")]) == 1
    assert "of every model is NaN" in capsys.readouterr().err


def test_a_mixture_of_some():
    assert Mixture.uniform([0, 2], 3, "x").weights == (0.5, 0.0, 0.5)


# --- as deepmd-kit reads it ----------------------------------------------------------------------


def test_a_branch_of_mft_and_a_single_task_run_freeze_and_test(mft_run, tmp_path):
    single = property_model(tmp_path / "ft.pt", seed=3)
    whole = mft_run / "model.ckpt-6.pt"
    out = tmp_path / "mixed.pt"
    arguments = [str(single), str(whole), "--alpha", "0.5", "-o", str(out)]
    assert main(["interpolate", *arguments]) == 0
    dp = Dp(tmp_path)
    dp("freeze", "-c", str(out), "-o", "mixed")
    dp("test", "-m", "mixed.pt", "-s", str(DATA / "valid"), "-n", "20", "-d", "told")
    told = [np.loadtxt(tmp_path / f"told.property.out.{row}")[1] for row in range(20)]
    frozen = Predictor.load(tmp_path / "mixed.pth")
    structures = StructureSet("valid", [DATA / "valid"])
    found = frozen.predict(frozen.batches(structures))["gap"][:20, 0]
    np.testing.assert_allclose(told, found, atol=1e-8)
