# Two commands do everything on a fresh machine: `make find` and `make test`.
#
#   TORCH      which PyTorch to install            make find TORCH=torch==2.11.0
#   PIP_ARGS   more arguments for pip              make find PIP_ARGS="--index-url ADDRESS"
#   PYTHON     the Python that makes the virtual environment (3.11 or newer)

TORCH ?= torch==2.13.0
PIP_ARGS ?=
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: find test lint docs bench trainers clean

find: $(VENV)/.installed
	$(BIN)/rightbatch find digits --threads 1 --study out/digits.study.db
	$(BIN)/rightbatch report out/digits.study.db --out out/digits.html
	@echo "Open out/digits.html in a browser. Run the command again: it continues the study."

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs out/site
	@echo "Open out/site/index.html in a browser."

bench: $(VENV)/.installed-dev
	$(BIN)/python benchmarks/engine_overhead.py
	$(BIN)/python benchmarks/tradeoff_coverage.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/kill_campaign.py

# The Trainers of Lightning and of transformers, for real: what they bring along is too much for every test run.
trainers: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[lightning,transformers]"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/trainers

clean:
	rm -rf $(VENV) out

# torch first and by itself: with it installed, nothing else pulls in another build of it.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt "$(TORCH)"
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[torch]"
	@mkdir -p out
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e ".[torch,parquet,examples,dev,docs]"
	@touch $@
