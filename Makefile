# Every target sets up what it needs; `make demo` and `make test` work on a fresh machine.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: venv demo test check vllm bridge nemo ray slurm browser sandbox eval-env swe smoke-vllm smoke-browser smoke-swe integration bench clean

venv: $(READY)

$(READY): pyproject.toml requirements/main.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --constraint requirements/main.txt --editable '.[megatron,transformers,report,dev]'
	touch $@

demo: $(READY)
	$(BIN)/mira run recipes/demo.yaml

test: $(READY)
	$(BIN)/python -m pytest -m 'not integration'

# What takes too long for every change, or needs components of its own.
integration: $(READY) vllm bridge nemo ray slurm browser eval-env swe
	$(BIN)/python -m pytest -m integration

# A real vLLM server on the CPU, in an environment of its own outside the clone (3.4 GB, minutes).
vllm:
	MIRA_PYTHON=$(PYTHON) tests/environments/vllm.sh

# Megatron-Bridge 0.3.1 and NeMo 2.7.3, for which no one environment can hold both (minutes, 3 GB).
bridge:
	MIRA_PYTHON=$(PYTHON) tests/environments/bridge.sh

nemo:
	MIRA_PYTHON=$(PYTHON) tests/environments/nemo.sh

# Ray and what scoring needs beside it (a minute, 1 GB).
ray:
	MIRA_PYTHON=$(PYTHON) tests/environments/ray.sh

# SLURM and munge from the distribution, where they are missing (as root, seconds).
slurm:
	tests/environments/slurm.sh

# What drives the machine's Chromium (Debian: apt-get install chromium) through the report: seconds.
browser:
	MIRA_PYTHON=$(PYTHON) tests/environments/browser.sh

# bubblewrap from the distribution, where it is missing (as root, seconds).
sandbox:
	tests/environments/eval.sh --sandbox

# The compilers and interpreters of the benchmarks' languages too (as root, minutes, 700 MB).
eval-env:
	tests/environments/eval.sh

# SWE-bench's own grader and what `mira swe` needs beside it (a minute, 520 MB).
swe:
	MIRA_PYTHON=$(PYTHON) tests/environments/swe.sh

smoke-swe: $(READY) swe
	$(BIN)/python -m pytest -m integration tests/integration/test_swe_official.py

smoke-browser: $(READY) browser
	$(BIN)/python -m pytest -m integration tests/integration/test_report_page.py \
	    tests/integration/test_comparison_page.py

smoke-vllm: $(READY) vllm
	$(BIN)/python -m pytest -m integration tests/integration/test_vllm_teacher.py \
	    tests/integration/test_vllm_scorer.py

bench: $(READY)
	$(BIN)/python benchmarks/run_all.py

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf runs
