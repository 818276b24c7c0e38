"""Predictions over split folders, errors with intervals, and tables that compare models."""
