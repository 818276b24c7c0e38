"""Checkpoints of a run: list, select, average."""
