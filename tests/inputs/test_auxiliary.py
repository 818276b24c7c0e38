"""Any number of auxiliary branches: found from the data, filled, trained, the main one judged."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from deepmd_mft.checkpoints.branch import main_branches, mft_strategy
from deepmd_mft.checkpoints.run import TrainingRun
from deepmd_mft.cli import main
from deepmd_mft.errors import UserError
from deepmd_mft.inputs.auxiliary import parse_auxiliary
from deepmd_mft.inputs.shares import choose_shares
from deepmd_mft.plots.style import LINES, MARKERS, STRATEGY_COLOURS
from deepmd_mft.report.runs import Wanted, load_runs
from deepmd_mft.report.strategy import STRATEGIES
from tests.helpers.dp import DATA, Dp, mft_input, single_input
from tests.helpers.models import save_checkpoint
from tests.helpers.systems import write_system

N = 4
GAP = np.arange(N, dtype=float)[:, None]
ENERGY = {"energy": GAP, "force": np.zeros((N, 15))}


@pytest.fixture
def fill(fill_template):
    """Fill the template of MFT, or another."""

    def run(*arguments, template=None, ok=True):
        return fill_template(mft_input() if template is None else template, *arguments, ok=ok)

    return run


@pytest.fixture
def data(tmp_path):
    """Folders of auxiliary data by what they hold."""
    labels = {
        "field": ENERGY,
        "gap": {"xtb_gap": GAP},
        "both": {"xtb_gap": GAP, **ENERGY},
        "several": {"xtb_gap": GAP, "xtb_homo": GAP},
        "energies": {"energy": GAP},
        "nothing": {},
        "vector": {"spectrum": np.ones((N, 7))},
        "reserved": {"dipole": np.ones((N, 3))},
    }
    return {n: write_system(tmp_path / "d" / n, nframes=N, **own) for n, own in labels.items()}


def with_branches(path, names):
    """Write a checkpoint with force-field branches of these names and one descriptor."""
    state = torch.load(save_checkpoint(path), weights_only=True)["model"]
    extra = state.pop("_extra_state")
    found = {k.replace(".Default.", f".{name}."): v for name in names for k, v in state.items()}
    params = {"model_dict": dict.fromkeys(names, extra["model_params"])}
    torch.save({"model": {**found, "_extra_state": {**extra, "model_params": params}}}, path)
    return path


def test_a_force_field_and_a_cheap_property_beside_the_property(fill, data, tmp_path):
    checkpoint = with_branches(tmp_path / "model.pt", ["GFN2", "other"])
    config, told = fill(
        *("--checkpoint", checkpoint, "--train", DATA / "train", "--valid", DATA / "valid"),
        *("--aux-train", f"force_field={data['field']}", f"cheap_gap={data['gap']}"),
        *("--aux-valid", f"cheap_gap={data['gap']}", "--share", "property=0.5", "cheap_gap=0.2"),
        *("--aux-batch-size", "cheap_gap=7", "auto:9"),
    )
    branches, losses = config["model"]["model_dict"], config["loss_dict"]
    parts = config["training"]["data_dict"]
    assert set(branches) == set(losses) == set(parts) == {"force_field", "cheap_gap", "property"}
    field, cheap, own = branches["force_field"], branches["cheap_gap"], branches["property"]
    # the only force field stands for the template's: its head, its loss
    assert field["finetune_head"] == "GFN2"
    assert losses["force_field"] == mft_input()["loss_dict"]["GFN2"]
    assert cheap["finetune_head"] == own["finetune_head"] == "RANDOM"
    assert cheap["type"] == "mft"
    net, main_net = cheap["fitting_net"], own["fitting_net"]
    assert {**net, "property_name": "gap"} == {"task_dim": 1, **main_net}
    assert losses["cheap_gap"] == {**losses["property"], "property_name": "xtb_gap"}
    assert {b["descriptor"] for b in branches.values()} == {"dpa3_descriptor"}
    assert (own["info"], "info" in cheap, "info" in field) == ({"main": True}, False, False)
    shares = config["training"]["model_prob"]
    assert shares == {"force_field": pytest.approx(0.3), "cheap_gap": 0.2, "property": 0.5}
    sizes = {name: part["training_data"]["batch_size"] for name, part in parts.items()}
    assert sizes == {"force_field": "auto:9", "cheap_gap": 7, "property": "auto:64"}
    assert parts["cheap_gap"]["validation_data"]["systems"] == "d/gap"
    assert "validation_data" not in parts["force_field"]
    assert "branch cheap_gap learns xtb_gap, from a new head, intensive: true" in told
    assert "branch force_field learns energies and forces, from head 'GFN2'" in told


def test_a_head_is_inherited_by_name_by_choice_or_not_at_all(fill, data, tmp_path):
    checkpoint = with_branches(tmp_path / "model.pt", ["GFN2", "other"])
    start = ("--checkpoint", checkpoint, "--aux-train")

    def heads(*words):
        config, told = fill(*start, *words)
        branches = config["model"]["model_dict"]
        return {name: branch["finetune_head"] for name, branch in branches.items()}, told

    field = data["field"]
    found, _ = heads(f"other={field}", f"x={field}")
    assert found == {"other": "other", "x": "GFN2", "property": "RANDOM"}
    found, told = heads(f"x={field}", f"y={field}")
    assert found == {"x": "RANDOM", "y": "RANDOM", "property": "RANDOM"}
    assert "branch x starts with a new head; the checkpoint has GFN2, other" in told
    found, _ = heads(f"x={field}", f"y={field}", "--aux-head", "y=other")
    assert found["y"] == "other"
    assert heads(field, "--aux-head", "other")[0] == {"other": "other", "property": "RANDOM"}
    assert heads(f"x={field}", "--aux-head", "other")[0]["x"] == "other"
    assert heads(f"x={field}", "--aux-head", "x=RANDOM")[0]["x"] == "RANDOM"
    # a folder without a name is the template's branch, beside others
    found, _ = heads(field, f"cheap={data['gap']}")
    assert found == {"GFN2": "GFN2", "cheap": "RANDOM", "property": "RANDOM"}
    found, told = heads(f"cheap={data['gap']}")
    assert found == {"cheap": "RANDOM", "property": "RANDOM"}
    assert "branch GFN2 of the template is left out" in told


def test_what_the_data_have_or_what_is_said(fill, data):
    def net(text):
        config, _ = fill("--aux-train", text)
        return config["model"]["model_dict"]["x"]["fitting_net"]

    assert net(f"x={data['field']}")["type"] == "ener"
    assert net(f"x:energy={data['both']}")["type"] == "ener"
    assert net(f"x:xtb_gap={data['both']}")["property_name"] == "xtb_gap"
    assert net(f"x:xtb_homo={data['several']}")["property_name"] == "xtb_homo"
    assert net(f"x:xtb_homo,xtb_gap={data['several']}")["property_name"] == ["xtb_homo", "xtb_gap"]
    assert net(f"x={data['vector']}")["task_dim"] == 7


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x={both}"], ("energies and forces, and the labels xtb_gap; say what it is to learn: "
                       "x:energy=DIR or x:xtb_gap=DIR")),
        (["x={several}"], "x:xtb_gap=DIR or x:xtb_homo=DIR"),
        (["x={energies}"], "its data have energies but no forces"),
        (["x={nothing}"], "no label in every system"),
        (["x:homo={gap}"], ("learns homo, but not every system of its data has homo; the labels "
                           "there are: xtb_gap")),
        (["x={field}", "x={gap}"], "no label in every system"),
        (["{gap}"], "learns a force field, but not every system of its data has energy, force"),
        (["GFN2={gap}"], "the auxiliary branch 'GFN2' learns a force field, but"),
        (["x:dipole={reserved}"], "'dipole' is a name of deepmd-kit's own"),
        (["GFN2:xtb_gap={both}"], "energies and forces, as in the template or checkpoint, not"),
        (["property={gap}"], "'property' is the template's property branch"),
        (["x:a={several}", "x:b={several}"], "x:a,b=DIR"),
        (["a.b={gap}"], "'a.b' cannot be the name of a branch"),
        (["loss={gap}"], "(it is a name of deepmd-kit or torch)"),
        (["items={gap}"], "(it is a name of deepmd-kit or torch)"),
        (["x=/no/such/place"], "/no/such/place holds no deepmd-kit systems"),
        (["x={gap}", "--aux-head", "x=GFN2"], "give --checkpoint too"),
        (["x={gap}", "--aux-batch-size", "y=3"], "no auxiliary branch 'y' (x)"),
        (["x={gap}", "--share", "property=0.6", "x=0.6"], "add up to 1.2; they are parts of 1"),
        (["x={gap}", "y={gap}", "--share", "0.6", "x=0.4"], "leaves nothing for y"),
        (["x={gap}", "--share", "z=0.6"], "--share: there is no branch 'z'"),
        (["x={gap}", "--share", "x=0"], "--share 0: a share is a number between 0 and 1"),
        (["x={gap}", "--share", "x=.1", "x=.2"], "'x' has one already"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_is_refused(fill, data, words, message):
    words = [word.format(**data) for word in words]
    assert message in fill("--aux-train", *words, ok=False)


def test_branches_that_do_not_fit(fill, data, tmp_path):
    start = ("--checkpoint", with_branches(tmp_path / "model.pt", ["GFN2", "other"]))
    told = fill(*start, "--aux-valid", f"x={data['gap']}", ok=False)
    assert "has no training data; give --aux-train x=DIR" in told
    words = ("--aux-train", f"x={data['gap']}", f"y={data['gap']}", "--aux-head", "other")
    assert "which of x, y starts from it? Write NAME=HEAD" in fill(*start, *words, ok=False)
    words = ("--aux-train", f"x={data['field']}", "--aux-head", "x=third")
    assert "has no head 'third'; it has GFN2, other" in fill(*start, *words, ok=False)
    words = ("--aux-train", f"x={data['gap']}", "--aux-head", "x=other")
    assert "learns a force field, but" in fill(*start, *words, ok=False)
    clash = with_branches(tmp_path / "clash.pt", ["property", "other"])
    told = fill("--checkpoint", clash, "--aux-head", "property", ok=False)
    assert "two branches are called 'property'" in told
    words = ("--aux-train", f"x={data['gap']}")
    assert "take an MFT template" in fill(*words, template=single_input(), ok=False)


def test_a_template_of_several_branches_says_its_main_one(fill, data):
    config, _ = fill("--aux-train", data["field"], f"cheap={data['gap']}")
    again, _ = fill(template=config)  # the filled input is a template
    assert again == config
    assert again["model"]["model_dict"]["property"]["info"] == {"main": True}
    told = fill("--aux-train", data["field"], template=config, ok=False)
    assert "2 auxiliary branches (GFN2, cheap); say which the data are for" in told
    del config["model"]["model_dict"]["property"]["info"]
    assert 'or one of several with "info": {"main": true}' in fill(template=config, ok=False)


def test_shares():
    train = {name: [] for name in ("a", "b", "main")}

    def shares(old, **given):
        return choose_shares(old, "main", train, given, None)

    assert shares({"a": 0.2, "b": 0.2, "main": 0.6}) is None
    assert shares({"old": 0.6, "main": 0.4}) == {"a": 0.3, "b": 0.3, "main": 0.4}
    assert shares({"old": 6, "main": 2}) == {"a": 0.375, "b": 0.375, "main": 0.25}
    assert shares(None) == pytest.approx(dict.fromkeys(train, 1 / 3))
    assert choose_shares(None, "main", train, {"": 0.5}, None) == {
        "a": 0.25,
        "b": 0.25,
        "main": 0.5,
    }
    assert shares(None, a=0.5) == {"a": 0.5, "b": 0.25, "main": 0.25}
    assert shares(None, a=0.5, b=0.25, main=0.25)["main"] == 0.25


def test_shares_by_temperature(fill, data, tmp_path):
    train = write_system(tmp_path / "t", nframes=16, gap=np.arange(16.0)[:, None])
    words = ("--aux-train", f"x={data['gap']}", "--temperature", "2")
    config, _ = fill("--train", train, *words)
    assert config["training"]["model_prob"] == pytest.approx({"x": 1 / 3, "property": 2 / 3}, 1e-5)
    assert "property is given none: give --train" in fill(*words, ok=False)


def test_names_with_an_equals_sign(tmp_path):
    folder = tmp_path / "a=b"
    folder.mkdir()
    (one,) = parse_auxiliary([str(folder)], [f"x={folder}"])[:1]
    assert (one.name, one.train) == ("", [folder])
    assert parse_auxiliary([f"x={folder}"], [])[0].train == [folder]


# --- which branch a training is for ---------------------------------------------------------------


def test_the_main_branch():
    heads = {"f": "ener", "a": "mft_property", "b": "property"}
    branches = {name: {"fitting_net": {"type": kind}} for name, kind in heads.items()}
    assert main_branches(branches) == ["a", "b"]
    branches["b"]["info"] = {"main": True}
    assert main_branches(branches) == ["b"]
    branches["f"]["info"] = {"main": True}  # no property: not judged by one
    assert main_branches(branches) == ["b"]


def test_kinds_of_mft_are_not_seeds_of_each_other():
    field, cheap = {"fitting_net": {"type": "ener"}}, {"fitting_net": {"type": "mft_property"}}
    found = [mft_strategy(one) for one in ([field], [cheap], [field, cheap], [field, field])]
    assert found == ["mft", "mft-property", "mft-both", "mft"]
    for styles in (*STRATEGY_COLOURS.values(), LINES, MARKERS):
        assert styles.keys() == STRATEGIES.keys()
        assert len(set(map(str, styles.values()))) == len(styles) or styles is LINES


@pytest.fixture(scope="module")
def run(tmp_path_factory, pretrained):
    """Three branches of the embedded data, filled by `dp-mft input` and trained for six steps."""
    folder = tmp_path_factory.mktemp("three")
    template = folder / "template.json"
    template.write_text(json.dumps(mft_input()))
    cheap = {}
    for name in ("train", "valid"):
        source = DATA / name / "set.000"
        gap = np.load(source / "gap.npy")
        cheap[name] = folder / f"cheap_{name}"
        (cheap[name] / "set.000").mkdir(parents=True)
        for file in ("type.raw", "type_map.raw", "nopbc"):
            (cheap[name] / file).write_bytes((DATA / name / file).read_bytes())
        for file in ("coord.npy", "real_atom_types.npy"):
            (cheap[name] / "set.000" / file).write_bytes((source / file).read_bytes())
        np.save(cheap[name] / "set.000" / "xtb_gap.npy", 0.7 * gap + 0.01)
    words = ["--checkpoint", pretrained, "--train", DATA / "train", "--valid", DATA / "valid"]
    words += ["--aux-train", f"field:energy={DATA / 'aux_train'}", f"cheap={cheap['train']}"]
    words += ["--aux-valid", f"cheap={cheap['valid']}"]
    out = folder / "input.json"
    assert main(["input", str(template), *map(str, words), "-o", str(out)]) == 0
    log = Dp(folder).train(json.loads(out.read_text()), "--finetune", str(pretrained))
    assert "Model branch cheap will be fine-tuned" in log
    return folder


def test_check_of_three_branches(run, pretrained, capsys, monkeypatch):
    monkeypatch.chdir(run)
    assert main(["check", "input.json", "--finetune", str(pretrained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"] == []
    assert set(found["facts"]) == {"field", "cheap", "property", "memory_gib"}
    assert [found["facts"][name]["share"] for name in ("field", "cheap", "property")] == [
        0.25, 0.25, 0.5,
    ]  # fmt: skip
    config = json.loads((run / "input.json").read_text())
    del config["model"]["model_dict"]["property"]["info"]
    (run / "unsaid.json").write_text(json.dumps(config))
    main(["check", "unsaid.json", "--finetune", str(pretrained), "--json"])
    (told,) = [
        text for text in json.loads(capsys.readouterr().out)["warnings"] if "none is said" in text
    ]
    assert "2 branches learn a property (cheap, property)" in told


def test_select_evaluate_and_report_take_the_main_branch(run, capsys):
    assert main(["select", str(run), "-q"]) == 0
    record = json.loads((run / "selection.json").read_text())
    assert (record["branch"], record["property"]) == ("property", "gap")
    out = run / "both"
    words = [f"a={run}", f"b={run}:cheap", "--split", DATA / "id_test", "-o", out, "-q"]
    assert main(["evaluate", *map(str, words)]) == 0
    assert "id_test has no labels of xtb_gap" in capsys.readouterr().err
    table = pd.read_csv(out / "metrics.csv").set_index("model")["property"]
    assert table.to_dict() == {"a": "gap", "b": "xtb_gap"}
    (loaded,) = load_runs([Wanted(run)], [DATA / "id_test"], ["id_test"], progress=False)
    assert (loaded.branch, loaded.property_name, loaded.share) == ("property", "gap", 0.5)
    assert loaded.strategy == "mft-both"


def test_a_run_that_does_not_say_its_main_branch(run, tmp_path):
    config = json.loads((run / "out.json").read_text())
    model = config["model"]["model_dict"]
    del model["property"]["info"]
    (tmp_path / "out.json").write_text(json.dumps(config))
    unsaid = TrainingRun(tmp_path)
    with pytest.raises(UserError, match=r"cheap: xtb_gap, property: gap.*choose by --property"):
        unsaid.property_branch()
    assert unsaid.property_branch(name="gap").name == "property"
    assert unsaid.property_branch("cheap").name == "cheap"
    with pytest.raises(UserError, match="no property branch 'field'; it has cheap, property"):
        unsaid.property_branch("field")
