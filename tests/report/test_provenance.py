"""What a report says of where models and test sets come from."""

import json
from types import SimpleNamespace

import numpy as np

from deepmd_mft.report.provenance import leaks
from deepmd_mft.structures.structure_set import StructureSet
from tests.helpers.systems import write_system


def test_a_test_set_of_several_systems_that_chose_the_model(tmp_path):
    """A training names each system, an evaluation the folder of all: nothing was found."""
    for name, end in (("a", "H"), ("b", "O")):
        write_system(tmp_path / "ood_test" / name, symbols=f"C {end}", gap=np.ones((3, 1)))
    write_system(tmp_path / "id_test" / "a", symbols="C N", gap=np.ones((3, 1)))
    sets = {
        name: {"folders": StructureSet(name, [tmp_path / name]).checksum()}
        for name in ("id_test", "ood_test")
    }
    systems = [tmp_path / "ood_test" / name for name in ("a", "b")]
    chosen = {"validation": StructureSet("validation", systems).checksum()}
    (tmp_path / "selection.json").write_text(json.dumps(chosen))
    (tmp_path / "model.ckpt-1.pt").touch()
    (tmp_path / "model.best.pt").symlink_to("model.ckpt-1.pt")
    model = {"path": str(tmp_path / "model.ckpt-1.pt")}
    run = SimpleNamespace(folder=tmp_path, model=model, record={"sets": sets})
    (note,) = leaks([run])
    assert "was chosen on ood_test itself" in note
