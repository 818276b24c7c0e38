"""Labels that mislead, in every component of a vector and in every set."""

import json

import numpy as np
import pytest

from deepmd_mft.cli import main
from tests.helpers.dp import single_input
from tests.helpers.systems import write_system

N = 200
RNG = np.random.default_rng(3)


@pytest.fixture
def warnings(tmp_path, capsys):
    """Check labels of given sets of several columns; return the warnings."""

    def run(train, valid, name="gap", record=None):
        config = single_input()
        net = {"property_name": name, "task_dim": train.shape[1]}
        config["model"]["fitting_net"] |= net
        config["loss"] = {"type": "mft_property"}
        for section, values in (("training_data", train), ("validation_data", valid)):
            folder = tmp_path / section
            write_system(folder / "5", nframes=len(values), seed=len(section), **{name: values})
            if record is not None:
                (folder / "dataset.json").write_text(json.dumps(record))
            config["training"][section]["systems"] = str(folder)
        path = tmp_path / "input.json"
        path.write_text(json.dumps(config))
        main(["check", str(path), "--json"])
        found = json.loads(capsys.readouterr().out)
        assert found["errors"] == []
        return [text for text in found["warnings"] if "the model: " in text and name in text]

    return run


def vectors(n=N, columns=3, scale=0.1):
    return RNG.normal(0.3, scale, size=(n, columns))


def test_sound_vectors(warnings):
    assert warnings(vectors(), vectors(50)) == []


def test_an_outlier_in_the_last_component(warnings):
    train = vectors()
    train[17, 2] = 40.0
    texts = warnings(train, vectors(50))
    assert any("gap[2] of 1 structures of training_data" in t and "40" in t for t in texts)
    assert any("gap[2] varies by" in text for text in texts)
    assert not any("gap[0]" in text or "gap[1]" in text for text in texts)


def test_units_of_the_components(warnings):
    train, valid = vectors(), vectors(50)
    train[:, 1] *= 27.2114
    texts = warnings(train, valid)
    assert any("median |gap[1]| in training_data" in text for text in texts)
    assert any("gap[1] varies by" in text and "same unit" in text for text in texts)


def test_missing_components_are_left_out(tmp_path, capsys):
    """One frame lacks one component: the others of it count."""
    config = single_input()
    values = vectors(3)
    values[0, 0] = np.nan
    values[:, 2] = 0.5
    system = write_system(tmp_path / "m", nframes=3, gap=values)
    config["model"]["fitting_net"]["task_dim"] = 3
    config["loss"] = {"type": "mft_property", "missing_labels": "mask"}
    for section in ("training_data", "validation_data"):
        config["training"][section]["systems"] = str(system)
    path = tmp_path / "input.json"
    path.write_text(json.dumps(config))
    assert main(["check", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert any("gap[2] is 0.5 in all 3 training structures" in text for text in found["warnings"])
    assert any("1 of 9 labels of property gap are missing" in text for text in found["warnings"])
