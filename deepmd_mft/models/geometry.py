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
    total = torch.clamp(mass.sum(dim=1, keepdim=True), min=1e-6)  # a frame may have no atom
    center = (mass * coord).sum(dim=1, keepdim=True) / total
    return (coord - center) * real
