"""Several runs as one thing: folds, strategies and seeds, trained by a Makefile."""
