"""What is installed without a clone: the wheel's files, and that they are found."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.helpers.dp import DATA, ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy, since building writes beside pyproject.toml."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "deepmd_mft", folder / "deepmd_mft", symlinks=True)
    shutil.copytree(ROOT / "input_templates", folder / "input_templates")
    shutil.copytree(
        ROOT / "examples" / "qm9_gap" / "pretrained", folder / "examples" / "qm9_gap" / "pretrained"
    )
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", "dist", "."],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return next((folder / "dist").glob("*.whl"))


def test_it_holds_code_templates_and_the_checkpoint(wheel):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {one.filename: one.file_size for one in archive.infolist()}
    package = {name for name in sizes if name.startswith("deepmd_mft/")}
    tracked = {str(one.relative_to(ROOT)) for one in (ROOT / "deepmd_mft").rglob("*.py")}
    tracked = {name for name in tracked if "-" not in name.split("/")[1]}
    templates = {
        f"deepmd_mft/input-templates/{one.relative_to(ROOT / 'input_templates')}"
        for one in (ROOT / "input_templates").rglob("*.json")
    }
    pages = {str(one.relative_to(ROOT)) for one in (ROOT / "deepmd_mft" / "report").glob("*.html")}
    assert "deepmd_mft/report/page.html" in pages
    others = {
        *pages,
        "deepmd_mft/embedded-checkpoint/model.pt",
        "deepmd_mft/embedded-checkpoint/provenance.json",
    }
    assert package == tracked | templates | others
    assert {name.split("/")[0] for name in sizes} == {"deepmd_mft", "deepmd_mft-0.1.0.dist-info"}
    assert {name for name, size in sizes.items() if size > 100_000} == {
        "deepmd_mft/embedded-checkpoint/model.pt"
    }


def test_an_input_is_filled_outside_a_clone(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    command = ["input", "small/ft", "--checkpoint", "embedded", "--no-tighten"]
    data = ["--train", DATA / "train", "--valid", DATA / "valid", "-o", "run.json"]
    done = subprocess.run(
        [sys.executable, "-m", "deepmd_mft", *command, *data],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run.json").read_text())["_dp_mft_input"]
    assert record["strategy"] == "ft"
    assert Path(record["checkpoint"]).is_relative_to(tmp_path / "site")


def test_the_lowest_versions_are_the_lower_bounds():
    """What `make test-lowest` installs is what pyproject.toml allows."""
    tomllib = pytest.importorskip("tomllib")  # not in Python 3.10
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    asked = [*project["dependencies"], *extras]
    bounds = {Requirement(one).name.lower(): Requirement(one).specifier for one in asked}
    lines = (ROOT / "tests" / "lowest.txt").read_text().splitlines()
    pins = dict(line.lower().split("==") for line in lines if not line.startswith("#"))
    for name, pin in pins.items():
        if name == "dargs":  # deepmd-kit's
            continue
        (bound,) = [one for one in bounds[name] if one.operator == ">="]
        released, allowed = Version(pin).release, Version(bound.version).release
        assert released[: len(allowed)] == allowed, f"{name}: {pin}, but {bound} is allowed"
    no_pin = {"deepmd-mft", "pytest", "pytest-cov", "pytest-xdist", "ruff", "mypy"}
    docs = {"furo", "myst-parser", "sphinx"}
    assert set(bounds) - set(pins) == no_pin | docs
