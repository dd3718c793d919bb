# Every target makes what it needs by itself: .venv and, once per set of extras, the packages in it.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
WORKERS ?= 2
TYPED := build/typed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Two installations at a time would fight over one environment.
.NOTPARALLEL:
.PHONY: help demo test smoke torture check bench report docs clean

help: ## Say what the targets do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/examples.stamp ## Train on Fashion-MNIST and show the result (ARGS="--epochs 1", see ARGS=--help)
	$(RUN) examples/fashion_mnist/train.py $(ARGS)

test: $(VENV)/test.stamp $(VENV)/examples.stamp ## Run the whole test suite
	$(RUN) -m pytest -n $(WORKERS) $(ARGS)

smoke: $(VENV)/test.stamp $(VENV)/examples.stamp ## Run one short end-to-end test of each part, in seconds
	$(RUN) -m pytest -m smoke $(ARGS)

torture: $(VENV)/test.stamp ## Run the long tests of faults and odd input in full (ARGS="-k cache")
	$(RUN) -m pytest tests/torture --torture -n $(WORKERS) $(ARGS)

# Type checkers cannot follow the mapped editable install, so they read the wheel's files, unpacked elsewhere.
check: $(VENV)/test.stamp ## Check format, lint and, on the installed package, strict types
	$(RUN) -m ruff format --check .
	$(RUN) -m ruff check .
	rm -rf $(TYPED) build/lib
	$(RUN) -m pip install --quiet --no-build-isolation --no-deps --target $(TYPED) .
	MYPYPATH=$(TYPED) $(RUN) -m mypy -p gradloom

bench: $(VENV)/bench.stamp ## Measure everything beside other frameworks, into out/bench (ARGS="--quick", ARGS=darknet53)
	$(RUN) benchmarks/bench.py $(ARGS)

report: $(VENV)/test.stamp ## Write what the compiler makes of three programs into out/reports (ARGS=darknet53-train)
	$(RUN) examples/reports.py $(ARGS)

docs: $(VENV)/test.stamp $(VENV)/examples.stamp ## Run the code of the documentation
	$(RUN) -m pytest tests/docs $(ARGS)

clean: ## Remove everything that was made here
	rm -rf $(VENV) build out dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Expected Python 3.11 or newer. Received: " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# One stamp per extra; a changed pyproject.toml may mean other packages.
$(VENV)/%.stamp: pyproject.toml $(VENV)/made.stamp
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
