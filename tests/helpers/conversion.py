"""`dp-mft convert` in one call, and a crystal as an object and as text."""

from __future__ import annotations

import json

import ase
import numpy as np

from deepmd_mft.cli import main

#: A cubic cell; ``sites`` are lines such as those of FULL.
CIF = """data_{name}
_cell_length_a 5.6
_cell_length_b 5.6
_cell_length_c 5.6
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'P 1'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
{sites}
"""
FULL = "Na1 Na 0 0 0 1.0\nCl1 Cl 0.5 0.5 0.5 {}"


def convert(source, out, *options: str) -> dict:
    """Convert through the command line; return the summary."""
    assert main(["convert", str(source), str(out), *map(str, options)]) == 0
    return json.loads((out / "dataset.json").read_text())["summary"]


def salt(**kwargs) -> ase.Atoms:
    """Rock salt, primitive cell."""
    cell = 2.82 * (1 - np.eye(3))
    return ase.Atoms("NaCl", [[0, 0, 0], [2.82] * 3], cell=cell, pbc=True, **kwargs)
