"""Atomic masses, for centres of mass."""

from deepmd_mft.errors import UserError


def masses_of(type_map: list[str]) -> list[float]:
    """Return the mass of each type in u, from dpdata's periodic table.

    Parameters
    ----------
    type_map : list of str
        Chemical symbols.

    Raises
    ------
    UserError
        If a name is no chemical symbol.
    """
    # here, so that only the heads that need masses wait for dpdata
    from dpdata.periodic_table import ELEMENTS, Element  # noqa: PLC0415

    unknown = [name for name in type_map if name not in ELEMENTS]
    if unknown:
        raise UserError(
            f"type_map has {', '.join(unknown)}, which is no chemical symbol; this head needs "
            "atomic masses for the centre of mass, so every type must be an element"
        )
    return [float(Element(name).mass) for name in type_map]
