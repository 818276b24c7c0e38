"""The registry, and what every method says to a wrong option."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from deepmd_mft.data.convert import convert
from deepmd_mft.errors import UserError
from deepmd_mft.splits.columns import Columns
from deepmd_mft.splits.fold import amount, draw
from deepmd_mft.splits.registry import METHODS, OPTIONS, settle
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.frames import crystal, source

FLAGS = {option.flag: name for name, option in OPTIONS.items()}
#: What makes each method run on the forty crystals of `crystals`.
RUNS = {
    "boom": ["--target", "gap", "--ood", "6"],
    "loco": ["--clusters", "4"],
    "sparse-x-single": ["--clusters", "4", "--candidates", "20"],
    "sparse-x-cluster": ["--clusters", "4", "--candidates", "20", "--neighbours", "2"],
    "sparse-y-single": ["--target", "gap", "--clusters", "4", "--candidates", "20"],
    "sparse-y-cluster": [
        *("--target", "gap", "--clusters", "4", "--candidates", "20"),
        *("--neighbours", "2"),
    ],
    "random": [],
    "kfold": [],
    "matbench": ["--target", "gap"],
    "element-out": ["--elements", "K"],
    "size-out": ["--larger-than", "2"],
}


@pytest.fixture(scope="module")
def crystals(tmp_path_factory):
    """Forty different crystals; every fifth has potassium, every eighth four atoms."""
    rng = np.random.default_rng(5)
    frames = []
    for i in range(40):
        one = crystal(5.0 + 0.05 * i, f"c{i}-", gap=float(rng.normal()))
        if i % 5 == 0:
            one.numbers = np.array([19, 17])
        if i % 8 == 0:
            one.coords = np.concatenate([one.coords, one.coords + one.cells[0, 2]], axis=1)
            one.numbers = np.tile(one.numbers, 2)
            one.cells = one.cells * np.array([[1], [1], [2]])
            del one.labels["force"]
        frames.append(one)
    folder = tmp_path_factory.mktemp("options") / "set"
    convert(source(*frames), folder, progress=False)
    return folder


def split(method, data, out, *words):
    cache = ["--cache", str(out.parent / "cache")]
    words = [*words, *(cache if "features" in METHODS[method].needs else []), "--jobs", "1"]
    return main(["split", method, str(data), str(out), *words])


def test_each_entry_names_what_its_function_takes():
    for name, method in METHODS.items():
        taken = inspect.signature(method.make).parameters.values()
        places = [p.name for p in taken if p.kind is p.POSITIONAL_OR_KEYWORD]
        words = {p.name for p in taken if p.kind is p.KEYWORD_ONLY}
        assert len(places) == len(method.needs) + 1, name
        assert places[-1] == "groups", name
        assert set(method.options) <= words, name
        assert all(hasattr(Columns, need) for need in method.needs), name
        assert set(method.arguments) <= set(OPTIONS), name
        assert method.summary in method.summary


@pytest.mark.parametrize("method", RUNS)
def test_every_row_is_in_one_part_and_the_record_says_how(crystals, tmp_path, method):
    out = tmp_path / "split"
    assert split(method, crystals, out, *RUNS[method]) == 0
    record = json.loads((out / "split.json").read_text())
    assert record["method"] == method
    given = dict(zip(RUNS[method][::2], RUNS[method][1::2], strict=True))
    for flag, value in given.items():
        assert str(record["parameters"][FLAGS[flag]]).removesuffix(".0") == value
    assert record["parameters"]["duplicates"] == "together"
    assert isinstance(record["parameters"]["seed"], int)
    for fold in record["folds"]:
        rows = [row for part in ("train", "val", "id_test", "ood_test") for row in fold[part]]
        assert sorted(rows) == list(range(40))
    whole = StructureSet.open(crystals)
    fold = record["folds"][0]
    piece = StructureSet.open(out / fold["folder"] / "train")
    np.testing.assert_array_equal(piece.label("gap"), whole.label("gap")[fold["train"]])


@pytest.mark.parametrize(
    ("method", "words", "message"),
    [
        ("random", ["--ood", "3"], "random does not use --ood, which is for boom, scaffold, size-"),
        ("random", ["--target", "gap"], "random does not use --target"),
        ("kfold", ["--id-test", "0.1"], "kfold does not use --id-test"),
        ("boom", ["--clusters", "3"], "boom does not use --clusters, which is for loco, sparse-x-"),
        ("boom", ["--cache", "x"], "boom does not use --cache"),
        ("loco", ["--target", "gap"], "loco does not use --target"),
        ("sparse-y-single", ["--cache", "x"], "sparse-y-single does not use --cache"),
        ("sparse-x-single", ["--neighbours", "3"], "does not use --neighbours"),
        ("matbench", ["--folds", "4"], "matbench does not use --folds, which is for kfold;"),
        ("element-out", [], "element-out needs --elements: symbols, separated by commas"),
        ("from-file", [], "from-file needs --test-file"),
        ("rebuild", [], "rebuild needs --from"),
        ("rebuild", ["--from", "x", "--seed", "1"], "rebuild does not use --seed"),
        ("boom", [], "needs --target; the set has energy, "),
        (
            "size-out",
            ["--larger-than", "2", "--ood", "3"],
            "size-out does not use --ood with --larger-than, which takes its place",
        ),
        (
            "from-file",
            ["--test-file", "a", "--val-file", "b", "--val", "0.1"],
            "from-file does not use --val with --val-file",
        ),
    ],
)
def test_options_that_a_method_does_not_use_or_lacks(
    crystals, tmp_path, capsys, method, words, message
):
    assert main(["split", method, str(crystals), str(tmp_path / "out"), *words]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


SIZES = [(method, flag) for method in RUNS for flag in ("--ood", "--id-test", "--val")]
COUNTS = [
    (method, flag)
    for method in RUNS
    for flag in ("--folds", "--clusters", "--candidates", "--neighbours", "--larger-than")
]


def used(cases):
    return [(m, flag) for m, flag in cases if FLAGS[flag] in METHODS[m].arguments]


@pytest.mark.parametrize("value", ["-0.3", "nan", "inf", "1.5", "-3", "1000000"])
@pytest.mark.parametrize(("method", "flag"), used(SIZES))
def test_sizes_that_are_none(crystals, tmp_path, capsys, monkeypatch, method, flag, value):
    monkeypatch.setattr(
        "deepmd_mft.splits.ofm.orbital_field_matrices",
        lambda structures, **_: np.random.default_rng(0).normal(size=(40, 3)),
    )
    words = [word for word in RUNS[method] if flag != "--ood" or word not in ("--ood", "6")]
    words = [] if method == "size-out" and flag == "--ood" else words
    words += [f"{flag}={value}", "--duplicates", "ignore"]
    status = main(["split", method, str(crystals), str(tmp_path / "out"), *words])
    assert status == 1
    message = capsys.readouterr().err
    expected = "does not fit" if value == "1000000" else "is neither a count"
    assert expected in message
    assert flag in message
    assert not (tmp_path / "out").exists()


ZERO_IS_A_COUNT = ("--neighbours", "--larger-than")


@pytest.mark.parametrize(
    ("method", "flag", "value"),
    [
        (method, flag, value)
        for method, flag in used(COUNTS)
        for value in ("-1", "0")
        if value == "-1" or flag not in ZERO_IS_A_COUNT
    ],
)
def test_counts_that_are_none(crystals, tmp_path, capsys, monkeypatch, method, flag, value):
    monkeypatch.setattr(
        "deepmd_mft.splits.ofm.orbital_field_matrices",
        lambda structures, **_: np.random.default_rng(0).normal(size=(40, 3)),
    )
    given = dict(zip(RUNS[method][::2], RUNS[method][1::2], strict=True)) | {flag: value}
    words = ["--duplicates=ignore", *(f"{flag}={value}" for flag, value in given.items())]
    assert main(["split", method, str(crystals), str(tmp_path / "out"), *words]) == 1
    assert f"{flag} {value} is not a whole number from" in capsys.readouterr().err


@pytest.mark.parametrize("method", [m for m in RUNS if "features" not in METHODS[m].needs])
def test_seeds_that_are_none(crystals, tmp_path, capsys, method):
    words = [*RUNS[method], "--seed=-1"]
    assert main(["split", method, str(crystals), str(tmp_path / "out"), *words]) == 1
    assert "--seed -1 is not a whole number" in capsys.readouterr().err
    words[-1] = f"--seed={2**32}"
    assert main(["split", method, str(crystals), str(tmp_path / "out"), *words]) == 1
    assert "--seed 4294967296 is too large" in capsys.readouterr().err


def test_no_processes(crystals, tmp_path, capsys):
    assert main(["split", "random", str(crystals), str(tmp_path / "out"), "--jobs", "0"]) == 1
    assert "--jobs 0: at least one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wanted", "total", "count"), [(0, 9, 0), (0.0, 0, 0), (0.25, 9, 3), (1, 9, 1), (8.0, 9, 8)]
)
def test_amounts(wanted, total, count):
    assert amount(wanted, total, "--val") == count


def test_a_count_of_boom_s_id_test_is_that_many(crystals, tmp_path):
    out = tmp_path / "out"
    assert split("boom", crystals, out, "--target", "gap", "--ood", "6", "--id-test", "7") == 0
    (fold,) = json.loads((out / "split.json").read_text())["folds"]
    assert [len(fold[part]) for part in ("ood_test", "id_test", "val", "train")] == [6, 7, 2, 25]


def test_draw_takes_whole_groups():
    groups = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    drawn, rest = draw(np.arange(9), groups, 4, np.random.default_rng(0))
    assert len(drawn) == 6
    assert set(groups[drawn]).isdisjoint(groups[rest])


def test_an_unknown_method():
    with pytest.raises(UserError, match="no method 'bloom'; there are boom, loco"):
        settle("bloom", {})
