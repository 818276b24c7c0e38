"""ase calculators for tests, to be named on a command line."""

import os

import torch
from ase.calculators.calculator import Calculator, all_changes


class Springs(Calculator):
    """Every atom on a spring to the origin; gradients by torch."""

    implemented_properties = ("energy", "forces")

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        """Compute both."""
        super().calculate(atoms, properties, system_changes)
        positions = torch.tensor(self.atoms.positions, requires_grad=True)
        energy = (positions**2).sum()
        (gradient,) = torch.autograd.grad(energy, positions)
        self.results = {"energy": energy.item(), "forces": -gradient.numpy()}


class Dying(Calculator):
    """A program that ends its process."""

    implemented_properties = ("energy", "forces")

    def calculate(self, *_args, **_kwargs):
        """End."""
        os._exit(1)
