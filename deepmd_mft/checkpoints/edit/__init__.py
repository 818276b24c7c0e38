"""Rewriting checkpoints."""
