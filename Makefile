# make demo     serve the example at http://127.0.0.1:5000 (PORT=8000 make demo for another port)
# make test     everything that must pass: style, types, js, pytest
# make          this list
#
# make style    ruff, check and format        make unit     pytest, no process and no port
# make types    mypy --strict                 make integration  pytest, one process or Redis
# make js       node --test                   make e2e      pytest, servers and browsers, in parts
# make fuzz     many more examples (COUNT=1000000)
# make docs     docs/_build/html              make soak     cuts and rude peers (SECONDS=600)
# make clean    forget what was built         make bench    the figures of the documentation
# make sim      simulated histories, until one breaks a promise (COUNT=10000, SEED=7, KIND=cluster)
# make sim-mutants  a fault in the package at a time: which broken promise gives it away, and when
# make matrix   the README's application on each Python, with the lowest and the newest versions
#               (ARGS="--python 3.12 --versions lowest")
#
# PYTHON=python3.12 makes the virtualenv with another Python, VENV=... makes it elsewhere.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 5000
COUNT ?= 1000000
SECONDS ?= 600
JOBS ?= 2
BIN := $(VENV)/bin
# Parts of the end-to-end tests, the longest first, so that the last to end are short.
E2E := browser cluster servers client wire hostile sente soak
PYTEST := $(BIN)/python -m pytest
SIM := PYTHONHASHSEED=0 $(BIN)/python -m tests.sim --jobs $(JOBS)
SIDE_BY_SIDE := $(if $(filter output-sync,$(.FEATURES)),--jobs=$(JOBS) --output-sync=target)
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq

.PHONY: help demo test style types js unit integration e2e $(addprefix e2e-,$(E2E)) fuzz sim sim-mutants soak matrix bench docs tools clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

demo: $(VENV)/.demo
	@sh scripts/demo.sh $(VENV) $(PORT)

# Two parts at a time (JOBS=1: one), each a process of its own: what one leaves running is not the
# next one's concern. A part prints what it has to say when it is done.
test: tools
	@$(MAKE) --no-print-directory $(SIDE_BY_SIDE) style types js unit integration e2e

style: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

js: $(VENV)/.dev
	@sh scripts/js.sh

unit: $(VENV)/.dev
	$(PYTEST) tests/unit $(wildcard tests/sim)

integration: $(VENV)/.dev tools
	$(PYTEST) tests/integration example_app

e2e: $(addprefix e2e-,$(E2E))

$(addprefix e2e-,$(E2E)): e2e-%: $(VENV)/.dev tools
	$(PYTEST) tests/e2e/$*

fuzz: $(VENV)/.dev
	$(PYTEST) -m "hypothesis and not e2e" --hypothesis-profile=fuzz
	@for program in frames http packers wire; do \
		echo "tests.fuzz.$$program"; \
		$(BIN)/python -m tests.fuzz.$$program --count $(COUNT) || exit 1; \
	done
	$(BIN)/python -m tests.fuzz.cost --count $$(($(COUNT) / 100))

sim: $(VENV)/.dev
	$(SIM) $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS)) $(if $(KIND),--kind $(KIND)) \
		$(if $(filter environment command,$(word 1,$(origin COUNT))),--count $(COUNT))

sim-mutants: $(VENV)/.dev
	$(SIM) --mutants

soak: $(VENV)/.dev
	$(BIN)/python -m tests.e2e.soak --clients 200 --seconds $(SECONDS)
	$(BIN)/python -m tests.e2e.soak --clients 1000 --rude 300 --seconds $(SECONDS)
	$(BIN)/python -m tests.e2e.cluster.cluster_soak --seconds $(SECONDS)
	$(BIN)/python -m tests.e2e.cluster.cluster_soak --seconds $(SECONDS) --redis
	$(BIN)/python -m tests.e2e.cluster.anew --seconds $(SECONDS)
	CONNECTS=1000 $(PYTEST) tests/e2e/servers/test_every_server.py -k nothing_is_left
	SIGN_INS=50 $(PYTEST) tests/e2e/browser/test_sessions.py
	PAGE_LOADS=1000 $(PYTEST) -o faulthandler_timeout=0 tests/e2e/browser/test_pages.py

matrix: $(VENV)/.dev
	$(BIN)/python -m tests.matrix $(ARGS)

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W -b html docs docs/_build/html
	@echo docs/_build/html/index.html

tools: $(VENV)/.dev
	@sh scripts/tools.sh $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info docs/_build tests/js/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find flask_chsk tests example_app benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# One stamp for each extra of setup.py: a second run installs nothing, a changed setup.py again.
$(VENV)/.python:
	@sh scripts/venv.sh $(PYTHON) $(VENV)
	@touch $@

$(VENV)/.%: setup.py | $(VENV)/.python
	@echo "installing flask_chsk[$*] into $(VENV)"
	@$(PIP) --editable '.[$*]'
	@touch $@
