# `make demo` and `make test` set everything up by themselves; both can be run again.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu)
BIN := .venv/bin

.PHONY: demo test test-lowest bench check format reference site clean

# Written last, so that a broken installation is never taken for a whole one.
.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,slurm]'
	touch $@

demo: .venv/installed
	$(BIN)/snakemake --cores $(CORES) --configfile config/demo.yaml --quiet rules
	@echo; cat results/table1.md
	@echo; echo "Everything on one page: results/index.html"
	@echo "Tables: results/table1.md to table9.md (.csv, .tex, .html); figures: results/demo/figures/"

# As many tests at once as there are cores, each on one: threads of several would wait for each other.
test: .venv/installed
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/pytest -n $(CORES) --dist worksteal

# The same with the oldest versions that pyproject.toml allows, for the tests that take seconds.
LONG := adaptation gpu rates documentation page
.venv-lowest/installed: pyproject.toml .ci/lowest.py
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) .ci/lowest.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet --disable-pip-version-check --constraint .venv-lowest/constraints.txt \
		--editable . pytest pytest-xdist hypothesis playwright
	touch $@

test-lowest: .venv-lowest/installed
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 .venv-lowest/bin/pytest -n $(CORES) --dist worksteal \
		$(filter-out $(LONG:%=tests/test_%.py),$(wildcard tests/test_*.py)) \
		tests/test_adaptation.py::test_compiled_steps_agree_or_are_refused_in_words \
		tests/workflow/test_plan.py::test_a_run_without_a_model_ends_in_a_table_and_starts_nothing_twice \
		tests/workflow/test_plan.py::test_lint_finds_nothing

# Times of the fast and the plain path, in ResNet-50 passes; six to ten minutes on 2 cores.
bench: .venv/installed
	$(BIN)/python benchmarks/bench.py

# What a change must pass besides the tests.
check: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

reference: .venv/installed
	$(BIN)/cdfss reference

# The site of docs/, in site/; a link or a name that leads nowhere fails it.
site: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf .venv .venv-lowest .snakemake results site data/everyday data/objects data/landcover data/lesions data/lungs
