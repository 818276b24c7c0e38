"""One page that compares runs: figures, tables, configuration and provenance."""
