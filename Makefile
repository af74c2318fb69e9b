# make demo        a .venv, the package, and answers about a bundled picture
# make test        the same .venv with the development extras, and the whole CPU suite
# make test-all    the suite with what make test leaves out: tests marked slow or gpu
# make lint        style and layers
# make docs        the parts of docs/ that are printed by running the code
# make compatibility    docs/compatibility.md: every comparison with another implementation, run anew

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := demo
.PHONY: demo test test-all lint docs compatibility clean

demo: .venv/.package
	@$(BIN)/llava chat examples/drawing.png < examples/questions.txt

test: .venv/.development
	$(PYTEST) -m "not slow and not gpu"

test-all: .venv/.development
	$(PYTEST)

lint: .venv/.development
	$(BIN)/ruff check .
	$(BIN)/lint-imports

docs: .venv/.package
	$(BIN)/python docs/make_map.py
	$(BIN)/python docs/make_rosetta.py
	$(BIN)/python docs/make_quantization.py
	$(BIN)/python docs/make_walkthrough.py

compatibility: .venv/.development
	OMP_NUM_THREADS=1 $(BIN)/python docs/make_compatibility.py

clean:
	rm -rf .venv build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache

# The files below are stamps: a second `make` finds them and installs nothing.

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "llavakit needs Python 3.11 or newer, and $(PYTHON) is not. Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# setuptools first and no build isolation: so constraints.txt pins the build as well.
.venv/.package: .venv/.python pyproject.toml constraints.txt
	@echo "Installing llavakit and PyTorch into .venv: a few minutes, once."
	$(PIP) setuptools
	$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.development: .venv/.package
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@
