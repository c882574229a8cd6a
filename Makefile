# Everything happens in .venv, with the versions in requirements.lock; what checks the JavaScript is in node_modules.
# Paths are relative and tools are started as `python -m`, so that the folder may be called anything.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules
SHELL := /bin/sh

# What an activated environment or a shell's profile may say about another Python than ours.
unexport VIRTUAL_ENV CONDA_PREFIX PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONUSERBASE PYTHONDONTWRITEBYTECODE
unexport PIP_TARGET PIP_PREFIX PIP_USER PIP_CONSTRAINT UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_CONSTRAINT

PYTHON := .venv/bin/python
UV := $(PYTHON) -m uv
READY := .venv/.ready
NODE_READY := node_modules/.ready
BUILD := .build

say = @printf '==> %s\n' '$(1)'

.PHONY: help demo test test-all lab bench bench-ray bench-server bench-views pictures lint format lock clean

help: ## Print this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  %-16s %s\n' "$$target" "$$text"; done

demo: $(READY) ## Run the quickstart notebook here, with its progress shown
	@$(PYTHON) -m tools.demo $(ARGS)

lab: $(READY) ## Open the quickstart in JupyterLab
	$(call say,JupyterLab on this machine only; Ctrl-C ends it)
	@$(PYTHON) -m jupyterlab --ServerApp.ip=127.0.0.1 $$([ "$$(id -u)" != 0 ] || echo --allow-root) \
		$(ARGS) notebooks/01_quickstart.ipynb

test: $(READY) $(NODE_READY) ## Run the linters and all tests, the browser's too (ARGS= goes to pytest)
	$(call say,browser)
	@$(PYTHON) -m tools.browser
	@$(MAKE) lint
	$(call say,pytest)
	@$(PYTHON) -m tools.testing $(ARGS)

test-all: $(READY) ## Run all of them, those that take long as well: every pipeline in every way on every backend
	@SAGE_NB_TESTS=all $(MAKE) test

bench: $(READY) ## Measure sage_nb beside hand-written loops and other libraries (ARGS="--only W2")
	@$(PYTHON) -m benchmarks $(ARGS)

bench-ray: $(READY) ## Measure sage_nb on Ray beside what is written with Ray by hand
	@$(PYTHON) -m benchmarks --ray $(ARGS)

bench-server: $(READY) ## Measure jobs on a JobManager server: latencies, throughput, memory
	@$(PYTHON) -m benchmarks --server $(ARGS)

bench-views: $(READY) ## Measure live views of thirty jobs in JupyterLab: throughput, messages, clicks, Stop
	@$(PYTHON) -m benchmarks --views $(ARGS)

pictures: $(READY) ## Take the pictures of the README anew
	@$(PYTHON) -m tools.pictures

lint: $(READY) $(NODE_READY) ## Check style and types
	$(call say,ruff check)
	@$(PYTHON) -m ruff check .
	$(call say,ruff format --check)
	@$(PYTHON) -m ruff format --check .
	$(call say,mypy --strict sage_nb and jupyter_extension)
	@$(PYTHON) -m mypy --strict sage_nb jupyter_extension/sage_nb_jupyter
	$(call say,tsc --checkJs --strict)
	@$(PYTHON) -m tools.node check

format: $(READY) ## Mend what the linters can mend
	@$(PYTHON) -m ruff check --fix .
	@$(PYTHON) -m ruff format .

COMPILE := $(UV) pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate \
	--no-emit-index-url --no-emit-find-links
lock: .venv/bin/uv ## Renew the pins from pyproject.toml (ARGS=--upgrade takes newer versions)
	$(call say,requirements.lock)
	@$(COMPILE) $(ARGS) --extra test pyproject.toml -o requirements.lock
	$(call say,binder/requirements.txt)
	@$(COMPILE) --extra demo -c requirements.lock pyproject.toml -o binder/requirements.txt

clean: ## Remove .venv and everything that was made
	rm -rf .venv node_modules $(BUILD) .bench dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What Jupyter reads is copied when the package is installed, also where the package itself is not.
SHARED := $(wildcard jupyter_extension/*.json jupyter_extension/labextension/*.json jupyter_extension/labextension/*/*)

# `uv pip sync` leaves pip and uv alone and removes what is no longer locked; the package itself comes after it.
$(READY): pyproject.toml requirements.lock $(SHARED) | .venv/bin/uv
	$(call say,packages from requirements.lock)
	@$(UV) pip sync --python $(PYTHON) requirements.lock
	@$(UV) pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	@touch $@

# By the node and npm that are in .venv.
$(NODE_READY): package.json package-lock.json .npmrc | $(READY)
	$(call say,node_modules from package-lock.json)
	@$(PYTHON) -m tools.node install
	@touch $@

.venv/bin/uv: | $(PYTHON)
	$(call say,uv)
	@$(PYTHON) -m pip --disable-pip-version-check --quiet install --constraint requirements.lock uv

$(PYTHON):
	@python=$$(sh tools/find_python.sh) && printf '==> %s\n' ".venv with $$python" && "$$python" -m venv --clear .venv
