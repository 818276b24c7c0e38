"""The commands of the tutorial "From a CSV to a report", run as they stand on a small table."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import product
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from tests.helpers.dp import ONE_THREAD, ROOT

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("rdkit")
pytest.importorskip("jinja2")

PAGE = ROOT / "docs" / "tutorials" / "csv.md"
#: What fits the numbers to a small table; the tutorial's own are for a thousand molecules.
SHORTER = {
    "--val 0.1": "--val 0.25",
    "--steps 1000": "--steps 4",
    "--seeds 1 2": "--seeds 1",
    " study/ft-s2": "",
}


def molecules() -> pd.DataFrame:
    """Fifty small molecules, with a number that is no property of anything."""
    chains, ends = ["C", "CC", "CCC", "C(C)C", "CCCC"], ["O", "N", "F", "C=O", "C#N", "OC", "NC"]
    smiles = [f"{end}{chain}" if end in {"O", "N", "F"} else f"{chain}{end}"
              for chain, end in product(chains, ends)]  # fmt: skip
    # So crowded that the template's neighbour lists are too short, as for the tutorial's molecules.
    smiles += [f"CC(C)(C)C(C)(C)C(C)(C)C{end}" for end in ("", "C", "O", "N", "F")]
    smiles += [f"C1CC1{end}" for end in ends] + [f"c1ccccc1{end}" for end in ends]
    values = [0.8 + 0.05 * len(one) + 0.1 * one.count("O") for one in smiles]
    return pd.DataFrame({"smiles": smiles, "density": values})


def commands_of(text: str) -> list[str]:
    for said, short in SHORTER.items():
        text = text.replace(said, short)
    return text.replace("\\\n", " ").strip().splitlines()


TO_REPORT, WITHOUT_NUMBER = (
    commands_of(text) for text in re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands have been run."""
    folder = tmp_path_factory.mktemp("tutorial")
    table = molecules()
    table.to_csv(folder / "molecules.csv", index=False)
    pd.DataFrame({"smiles": ["CCO", "CCCCN"]}).to_csv(folder / "new.csv", index=False)
    bins = folder / "bin"
    bins.mkdir()
    script = f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m deepmd_mft "$@"\n'
    (bins / "dp-mft").write_text(script)
    (bins / "dp-mft").chmod(0o755)
    path = f"{bins}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **ONE_THREAD, "PATH": path, "PYTHONPATH": str(ROOT)}
    for line in [*TO_REPORT, *WITHOUT_NUMBER]:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return folder


def test_it_takes_six_commands_at_most():
    assert len(TO_REPORT) <= 6
    for said in SHORTER:
        assert said in PAGE.read_text()


def test_there_is_a_report(folder):
    page = (folder / "study" / "report.html").read_text()
    assert "g/cm^3" in page
    assert "ood_test" in page or "out of distribution" in page.lower()


def test_new_molecules_have_intervals_and_distances(folder):
    table = pd.read_csv(folder / "predictions.csv")
    assert len(table) == 2
    assert (table["density_low"] <= table["density_high"]).all()
    assert {"density", "density_std", "ood_knn"} <= set(table.columns)
