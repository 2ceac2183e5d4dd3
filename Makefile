# `make demo` and `make test` set everything up by themselves; both can be run again.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin

.PHONY: demo test bench check format reference clean

# Written last, so that a broken installation is never taken for a whole one.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,slurm]'
	touch $@

demo: .venv/installed
	$(BIN)/snakemake --cores $(CORES) --configfile config/demo.yaml --quiet rules
	@echo; cat results/table1.md
	@echo; echo "Tables:  results/table1.md, results/table1.csv, results/table1.tex"
	@echo "Figures: results/demo/figures/"

test: .venv/installed
	$(BIN)/pytest

# Times of the fast and the plain path, in ResNet-50 passes; six to ten minutes on 2 cores.
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py

# What a change must pass besides the tests.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

reference: .venv/installed
	$(BIN)/python -m cdfss reference

clean:
	rm -rf .venv .snakemake results data/everyday data/objects data/landcover data/lesions data/lungs
