"""The documentation site: ``make docs``."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # printed.py

project = "deepmd-mft"
author = "the deepmd_mft developers"
project_copyright = author
version = release = installed("deepmd-mft")

extensions = ["myst_parser", "printed", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

default_role = "code"  # `this` is code in the options' texts, as in Markdown

html_theme = "furo"
html_title = "deepmd-mft"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["site.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autodoc_typehints = "none"  # the docstrings have them, in words
napoleon_google_docstring = False
napoleon_use_rtype = False

# Classes of one name in two rooms: plain text in a docstring is no link to either.
suppress_warnings = ["ref.python"]

# What a DOI or a publisher's page answers to a program tells nothing of the link.
linkcheck_ignore = [r"https://doi\.org/.*"]
