"""What ``dp-mft check`` looks at beyond the checks that every training starts with.

The latter are :mod:`deepmd_mft.preflight`; both fill the same ``Findings``.
"""
