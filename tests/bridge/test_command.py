"""The command line of `dp --pt` that the checks stand before."""

import inspect

from deepmd.pt.entrypoints import main as entrypoints


def test_main_is_wrapped_and_keeps_its_signature():
    assert entrypoints.main.__wrapped__ is not None
    assert "args" in inspect.signature(entrypoints.main).parameters
