# The two commands of the README, and what they need.
#   make quickstart   install into .venv, fine-tune with and without MFT, test ID and OOD
#   make test         install into .venv, run the checks and the tests
# And of those who work on it (CONTRIBUTING.md).
#   make test-lowest  a fast part of the tests, with the oldest dependencies that are allowed
#   make docs         the site, in docs/_build/html
#   make links        ask every external link of the site; needs a network

VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: quickstart test test-lowest docs links install templates clean

quickstart: $(VENV)/.installed
	$(BIN)/python examples/qm9_gap/quickstart.py

test: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python input_templates/make_templates.py --check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --cov --cov-report term

# What shows that a dependency is too old: reading, splitting, heads and losses, figures. No `dp` run.
FAST := tests/data/test_tables.py tests/data/test_smiles.py tests/evaluation/test_metrics.py \
	tests/files tests/models/test_statistics.py tests/representations/test_clusters.py \
	tests/schema tests/splits/test_splits.py tests/structures/test_same_rows.py \
	tests/training/test_property.py tests/uncertainty/test_probabilities.py

test-lowest: $(VENV)-lowest/.installed
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -q $(FAST)

$(VENV)-lowest/.installed: pyproject.toml tests/lowest.txt
	$(PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install -e ".[test]" -c tests/lowest.txt
	touch $@

# -W: a broken link between pages, or to a heading, is an error. -E: what is printed from the code is new.
docs: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -E -W --keep-going -b html docs docs/_build/html

links: $(VENV)/.docs
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/links

install: $(VENV)/.installed

# deepmd-kit brings its own torch, 5.6 GB with CUDA; minutes the first time, nothing after.
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e ".[test]"
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -e ".[docs]"
	touch $@

templates: $(VENV)/.installed
	$(BIN)/python input_templates/make_templates.py

clean:
	rm -rf $(VENV) $(VENV)-lowest examples/qm9_gap/runs docs/_build
