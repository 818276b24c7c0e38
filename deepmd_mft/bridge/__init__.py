"""Every touch of names that deepmd-kit does not document as public, one file a subject.

One place to mend when deepmd-kit moves; ``tests/bridge`` fails when one of them does.
Nothing heavy is imported at the top of :mod:`.registration`: :mod:`deepmd_mft.plugin` loads it in
every ``import deepmd.pt``.
"""
