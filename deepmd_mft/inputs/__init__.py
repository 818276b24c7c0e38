"""A JSON input: its branches, filling a template, and everything that is wrong with it."""
