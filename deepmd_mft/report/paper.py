"""The errors that the MFT paper (arXiv 2601.08486) prints for its own targets, to stand beside.

They are those of DPA-3.1-3M after long training on all training data: Table 3 (QM9, BOOM splits,
RMSE) and Table 4 (MatBench, splits after Omee et al., MAE averaged over folds).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """The paper's errors on one target.

    Attributes
    ----------
    metric : {"rmse", "mae"}
    errors : dict
        By strategy: ID and OOD error; None where the paper has none.
    note : str
        Where they are from.
    """

    metric: str
    errors: dict[str, tuple[float | None, float | None]]
    note: str

    def improvements(self) -> dict[tuple[str, str], float]:
        """Return by strategy and kind (ID, OOD) how much lower the error is than from scratch.

        In percent; empty if the paper has no error from scratch.
        """
        found = {}
        for strategy, pair in self.errors.items():
            for kind, error, scratch in zip(
                ("ID", "OOD"), pair, self.errors.get("scratch", (None, None)), strict=True
            ):
                if error is not None and scratch is not None:
                    found[strategy, kind] = 100 * (1 - error / scratch)
        return found


def published(property_name: str, unit: str | None, split_method: str | None) -> Published | None:
    """Return the paper's errors, if the property is one of its targets in its unit.

    Parameters
    ----------
    property_name : str
        As the templates call it, for instance ``gap`` or ``n``.
    unit : str or None
        Unit of the labels; None if it is not known: the paper's errors then stand nowhere.
    split_method : str or None
        Method of ``dp-mft split`` that made the test sets, for MatBench's five.
    """
    if unit is None:
        return None
    if property_name in _QM9:
        own_unit, numbers = _QM9[property_name]
        errors = dict(zip(("scratch", "lp", "ft", "mft"), numbers, strict=True))
        note = "Table 3: BOOM's split of QM9, DPA-3.1-3M, the full training set, three seeds"
        found = Published("rmse", dict(errors), note)
    elif property_name in _MATBENCH:
        own_unit, by_split = _MATBENCH[property_name]
        ood = by_split.get(split_method or "", (None, None))
        inside = by_split["random"]
        names = ("ft", "mft")
        pairs: dict[str, tuple[float | None, float | None]] = {
            name: (inside[i], ood[i]) for i, name in enumerate(names)
        }
        note = "Table 4: MatBench, mean over folds, ID is the random split"
        note += f", OOD {split_method}" if ood[0] is not None else ""
        found = Published("mae", pairs, note)
    else:
        return None
    spelt = _SPELLINGS.get(unit.lower(), unit.lower())
    return found if spelt == own_unit.lower() else None


_SPELLINGS = {"ha": "hartree", "debye": "d", "bohr^2": "a0^2", "bohr^3": "a0^3"}


#: Table 3: unit, then (ID, OOD) RMSE from scratch, of LP, FT and MFT.
_QM9: dict[str, tuple[str, tuple[tuple[float, float], ...]]] = {
    "homo": ("Hartree", ((0.0030, 0.0155), (0.0046, 0.0125), (0.0022, 0.0156), (0.0021, 0.0134))),
    "lumo": ("Hartree", ((0.0029, 0.0130), (0.0054, 0.0128), (0.0023, 0.0135), (0.0024, 0.0107))),
    "gap": ("Hartree", ((0.0045, 0.0244), (0.0077, 0.0193), (0.0034, 0.0201), (0.0034, 0.0171))),
    "zpve": (
        "Hartree",
        ((0.00013, 0.00029), (0.00016, 0.00029), (0.00010, 0.00026), (0.00010, 0.00025)),
    ),
    "r2": ("a0^2", ((8.5, 21.4), (8.8, 14.2), (8.1, 18.7), (8.3, 13.7))),
    "alpha": ("a0^3", ((0.365, 1.907), (0.458, 1.641), (0.297, 1.639), (0.296, 1.536))),
    "mu": ("D", ((0.294, 2.087), (0.309, 1.747), (0.276, 2.267), (0.278, 2.087))),
    "cv": ("cal/mol/K", ((0.116, 0.200), (0.149, 0.281), (0.097, 0.188), (0.097, 0.181))),
}

#: Table 4: unit, then MAE of FT and MFT by split.
_MATBENCH: dict[str, tuple[str, dict[str, tuple[float, float]]]] = {
    "n": (
        "1",
        {
            "random": (0.3082, 0.2639),
            "loco": (0.5305, 0.4690),
            "sparse-x-cluster": (0.6069, 0.4806),
            "sparse-x-single": (1.5335, 1.2463),
            "sparse-y-cluster": (0.3354, 0.2688),
            "sparse-y-single": (0.2008, 0.1790),
        },
    ),
    "log_gvrh": (
        "log10(GPa)",
        {
            "random": (0.0627, 0.0609),
            "loco": (0.0806, 0.0774),
            "sparse-x-cluster": (0.0754, 0.0689),
            "sparse-x-single": (0.0783, 0.0782),
            "sparse-y-cluster": (0.0529, 0.0527),
            "sparse-y-single": (0.0477, 0.0435),
        },
    ),
    "e_form": (
        "eV/unit cell",
        {
            "random": (0.0272, 0.0270),
            "loco": (0.0350, 0.0341),
            "sparse-x-cluster": (0.0384, 0.0403),
            "sparse-x-single": (0.0370, 0.0358),
            "sparse-y-cluster": (0.0322, 0.0300),
            "sparse-y-single": (0.0235, 0.0212),
        },
    ),
}
