"""Names from files never lead out of their folder."""

from __future__ import annotations

import pytest

from deepmd_mft.errors import UserError
from deepmd_mft.files.names import path_below, path_component


@pytest.mark.parametrize("name", ["a", "7", "fold_00", "Li-Fe (2)", "é", "a.b"])
def test_names_of_folders(name):
    assert path_component(name, "f.json") == name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "/etc", "a/b", "a\\b", "C:x", ".x", " a", "a\n", "a\0", "b" * 300],
)
def test_names_that_lead_elsewhere(name):
    with pytest.raises(UserError, match=r"^f\.json, fold 2: .* cannot name a folder"):
        path_component(name, "f.json, fold 2")


@pytest.mark.parametrize("name", [3, None, ["a"], True])
def test_names_that_are_no_text(name):
    with pytest.raises(UserError, match="a name is a text"):
        path_component(name, "f.json")


@pytest.mark.parametrize("name", ["", "29", "29-2", "mp/29", "a..b"])
def test_systems_below_their_set(name):
    assert path_below(name, "rows.csv") == name


@pytest.mark.parametrize("name", ["..", "../29", "29/../../x", "/data/x", "a\0b"])
def test_systems_elsewhere(name):
    with pytest.raises(UserError, match=r"rows\.csv, column system: .* does not lie below its set"):
        path_below(name, "rows.csv, column system")
