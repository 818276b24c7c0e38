"""One set of structures, on disk and in memory: batches, fingerprints, duplicates."""
