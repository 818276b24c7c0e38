"""Positions relative to the centre of mass, for heads of molecules.

No ``from __future__ import annotations`` here: TorchScript reads the annotations.
"""

import torch


def relative_to_center_of_mass(
    coord: torch.Tensor, atype: torch.Tensor, masses: torch.Tensor
) -> torch.Tensor:
    """Return r_i - r_com with the mass-weighted centre; zero for padding.

    Parameters
    ----------
    coord : torch.Tensor
        nf x nloc x 3, in Angstrom.
    atype : torch.Tensor
        nf x nloc; -1 marks padding.
    masses : torch.Tensor
        ntypes, in u.

    Returns
    -------
    torch.Tensor
        nf x nloc x 3, in Angstrom.
    """
    real = (atype >= 0).unsqueeze(-1)
    mass = masses[torch.clamp(atype, min=0)].unsqueeze(-1) * real
    center = (mass * coord).sum(dim=1, keepdim=True) / mass.sum(dim=1, keepdim=True)
    return (coord - center) * real


def refuse_box(box: torch.Tensor | None, head: str) -> None:
    """Raise if there is a periodic cell.

    Parameters
    ----------
    box : torch.Tensor, optional
        nf x 9
    head : str
        For the message.
    """
    if box is not None:
        raise RuntimeError(
            head
            + " is defined for molecules: its value depends on the origin in a periodic cell. "
            + "Give systems without a cell (a file `nopbc` in each), or use another head."
        )
