# `make` lists the targets. Needs GNU make, Python 3.11 or newer and a package index.

PYTHON ?= python3
# What `make demo` reads: every file below this directory.
DIR ?= $(shell .venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
# More for pytest, as in `make unit ARGS="-k hooks -x"`.
ARGS ?=

# What the fan-out may cost: the tests hold it to that.
BASELINE := benchmarks/baseline.json
# Only what exists: a checker refuses a path that does not.
TYPED := $(wildcard engine examples tests/typing)
SOURCES := pyproject.toml README.md $(shell find engine -name '*.py')

.DEFAULT_GOAL := help
# The steps share environments and the terminal; in turn, their output stays readable.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help demo test lint types suites unit cover kills faults oldest format bench baseline clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.installed ## Run examples/inventory.py on DIR (default: Python's standard library).
	@echo "==> demo: examples/inventory.py $(DIR)"
	@.venv/bin/python examples/inventory.py "$(DIR)"

test: lint types suites ## Run everything: lint, types, tests on each Python, a thousand kills.
	@echo "==> all is well"

lint: .venv/.dev ## Check style and formatting with ruff.
	@echo "==> lint: ruff"
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .

types: .venv/.dev ## Check types with mypy and pyright, both strict.
	@echo "==> types: mypy"
	@.venv/bin/mypy $(TYPED)
	@echo "==> types: pyright"
	@.venv/bin/basedpyright --warnings $(TYPED)

unit: .venv/.dev ## Run the tests without coverage; ARGS goes to pytest.
	@echo "==> unit: pytest"
	@.venv/bin/pytest $(ARGS)

cover: .venv/.dev ## Run the tests with branch coverage.
	@echo "==> cover: pytest with branch coverage"
	@.venv/bin/coverage erase
	@.venv/bin/coverage run -m pytest $(ARGS)
	@.venv/bin/coverage combine --quiet
	@.venv/bin/coverage report

kills: .venv/.dev ## Kill processes with a journal a thousand times; look for what was lost.
	@echo "==> kills: a thousand"
	@ENGINE_TEST_KILLS=1000 .venv/bin/pytest -rP tests/journal/test_journal_kill.py

faults: .venv/.dev ## Try each fault of the journal at full size; takes half an hour.
	@echo "==> faults: 10,000 kills, 10,000 cuts of power, a kill at every system call"
	@ENGINE_TEST_KILLS=10000 ENGINE_TEST_CUTS=10000 ENGINE_TEST_SYSCALLS=all \
		.venv/bin/pytest -rP tests/journal/test_journal_power_loss.py \
		tests/journal/test_journal_syscalls.py tests/journal/test_journal_kill.py

suites: .venv/.dev ## Run cover, kills and the tests on other Pythons, side by side.
	@echo "==> suites: the tests with coverage, on each other Python found here, and the kills"
	@MAKE="$(MAKE)" .ci/together cover $$(.ci/pythons $(PYTHON) | sed s/^/unit-/) kills

oldest: .venv-oldest/.installed ## Run the tests with the oldest dependencies that are allowed.
	@echo "==> oldest: pytest, with the oldest dependencies"
	@.venv-oldest/bin/pytest $(ARGS)

format: .venv/.dev ## Format, and repair what ruff can repair.
	@.venv/bin/ruff check --fix-only .
	@.venv/bin/ruff format .

bench: .venv/.installed ## Run each benchmark in turn.
	@for bench in benchmarks/[!_]*.py; do \
		echo "==> $$bench"; .venv/bin/python "$$bench" || exit 1; \
	done

baseline: .venv/.installed ## Keep what a run costs now as what the tests hold it to.
	@.venv/bin/python -m engine bench --gate $(BASELINE) --write
	@for version in $$(.ci/pythons $(PYTHON)); do \
		$(MAKE) --no-print-directory baseline-$$version || exit 1; \
	done

baseline-%: .venv-%/.installed
	@.venv-$*/bin/python -m engine bench --gate $(BASELINE) --write

clean: ## Remove the environments and everything else that the targets made.
	rm -rf .venv .venv-* build dist .coverage* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# .installed: the project alone. .dev: with the tools. Both are editable installs.
.venv/.installed: pyproject.toml
	@.ci/venv $(PYTHON) .venv --editable .
	@touch $@

.venv/.dev: pyproject.toml
	@.ci/venv $(PYTHON) .venv --editable '.[dev]'
	@touch .venv/.installed $@

# These test the built wheel, as users get it, so they follow the sources.
unit-%: .venv-%/.installed
	@echo "==> unit: pytest on Python $*"
	@.venv-$*/bin/pytest $(ARGS)

.PRECIOUS: .venv-%/.installed
.venv-%/.installed: $(SOURCES)
	@.ci/venv "$$(.ci/pythons $(PYTHON) $*)" .venv-$* '.[test]'
	@touch $@

.venv-oldest/.installed: .ci/oldest.txt $(SOURCES)
	@.ci/venv $(PYTHON) .venv-oldest --constraint .ci/oldest.txt '.[test]'
	@touch $@
