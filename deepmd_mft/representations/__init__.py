"""Representation analysis: embeddings, clusters, drift, transfer measures, domain advice.

One idea a file. :mod:`collapse` and :mod:`domains` put them together for ``dp-mft analyze``.
"""
