# `make setup`, `make demo` and `make test` each start from a bare clone: Python >= 3.11 and a C++ compiler are enough.
#   PYTHON=python3.12           the interpreter the environment is made with
#   PIXELBERT_FAST_TORCH_INDEX  where torch comes from (README.md, "Environment variables")

SHELL := /bin/bash
PYTHON ?= $(shell for p in python3 python python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)
BIN := .venv/bin
TESTS ?= tests
PYTEST_FLAGS ?=

.PHONY: setup demo test lint format kernels-static cuda-static bench gpu-report asan fuzz-ops \
	fuzz-ops-asan fuzz-data broken-images zero-equality bench-engine kill-test matrix soak coverage pages audit clean

setup:
	@if [ -z "$(PYTHON)" ]; then echo "No Python >= 3.11 found; name one: make setup PYTHON=/path/to/python" >&2; exit 2; fi
	@$(PYTHON) .ci/environment.py

demo: setup
	@$(BIN)/deepspeed pixelbert_fast/train.py
	@$(BIN)/pixelbert attend pixelbert_fast/pretrained/pictures/7.jpg "a red square above a white heart" \
		--checkpoint runs/demo --layer 2 --out runs/demo/attention.html >/dev/null
	@echo "where each word looks, to open in a browser: $(CURDIR)/runs/demo/attention.html"

# Two threads unless told otherwise: the computations are small, and more threads spend their time waiting.
test: setup
	@start=$$(date +%s); status=0; \
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
		$(BIN)/python -m pytest --durations=15 $(PYTEST_FLAGS) $(TESTS) || status=$$?; \
	echo "tests: $$(( $$(date +%s) - start )) s"; exit $$status

lint: setup
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

format: setup
	@$(BIN)/ruff check --fix-only --quiet . && $(BIN)/ruff format .

# What is written from the code: configuration.md and environment.md of docs, and the picture of the architecture.
pages: setup
	@$(BIN)/python .ci/reference_pages.py --write
	@$(BIN)/python .ci/directions.py --write

# Needs no GPU, but triton, which `make setup` installs on Linux.
kernels-static: setup
	@$(BIN)/python benchmarks/kernels_static.py

# Needs no GPU, but nvcc.
cuda-static: setup
	@$(BIN)/python benchmarks/cuda_static.py

# Every figure of speed on a CPU, to benchmarks/results/: at most fifteen minutes on two cores, left alone meanwhile.
bench: setup
	@$(BIN)/python benchmarks/bench.py

# On a GPU, by the Python it is given (PYTHON=...): nothing is installed. At most eight minutes.
gpu-report:
	@$(PYTHON) benchmarks/gpu_report.py

# 100,000 random calls of the ops, to docs/results/fuzz-ops.md; Ctrl-C, and the same command goes on.
fuzz-ops: setup
	@$(BIN)/python tests/fuzz_ops.py --report

# 40,000 others with kernels built to report bad reads, writes and arithmetic, to docs/results/fuzz-ops-asan.md.
fuzz-ops-asan: setup
	@$(BIN)/python .ci/sanitized.py --fuzz 40000

# 10,000 random inputs of the processor, the builders and the readers, to docs/results/fuzz-data.md; Ctrl-C, and it goes on.
fuzz-data: setup
	@$(BIN)/python -m tests.fuzz_data --report

# 1,000 mutated image files through a build and through runs, to docs/results/broken-images.md.
broken-images: setup
	@$(BIN)/python -m tests.broken_images --report

# Every ZeRO stage in one and two processes against plain PyTorch, to docs/results/training-zero.md.
zero-equality: setup
	@$(BIN)/python tests/zero_equality.py

# What DeepSpeed costs beside the plain loop in one process, to docs/results/training-engine.md.
bench-engine: setup
	@$(BIN)/python benchmarks/bench_engine.py

# Runs killed at random moments and resumed, to docs/results/training-kills.md: 20 minutes.
kill-test: setup
	@$(BIN)/python tests/kill_runs.py --report

# Two hours of training and what it holds meanwhile, to docs/results/soak.md; Ctrl-C, and the same command goes on.
#   SOAK="--minutes 20"         for as long as is wanted, say on a GPU
soak: setup
	@$(BIN)/python tests/soak.py --report $(SOAK)

# The wheel on every Python here with the oldest and the newest versions, to docs/results/matrix.md: some five minutes
# and, where torch's CPU build cannot be had, several GB each. MATRIX="3.11:oldest 3.12:newest" runs some.
matrix: setup
	@$(BIN)/python .ci/matrix.py $(MATRIX)

# The tests of the C++ kernels with a library built to report bad reads, writes and arithmetic.
asan: setup
	@$(BIN)/python .ci/sanitized.py

# What of the package the tests run, to docs/results/coverage.md.
coverage: setup
	@rm -f .coverage .coverage.*
	@OMP_NUM_THREADS=$${OMP_NUM_THREADS:-2} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 \
		$(BIN)/python -m coverage run -m pytest $(PYTEST_FLAGS) $(TESTS)
	@$(BIN)/python -m coverage combine --quiet && $(BIN)/python -m coverage json --quiet -o .coverage.json
	@$(BIN)/python .ci/coverage_page.py .coverage.json; rm -f .coverage .coverage.*

# Known holes in what is installed, by pip-audit from an environment of its own; it asks an advisory database.
audit: setup
	@$(PYTHON) -m venv build/audit && build/audit/bin/pip install --quiet pip-audit || \
		{ echo "audit: pip-audit cannot be installed here, so nothing was checked" >&2; exit 1; }
	@rm -f build/audit/found.json; build/audit/bin/pip-audit --skip-editable --progress-spinner off --format json \
		--output build/audit/found.json --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
		>/dev/null 2>build/audit/said.txt || true
	@$(BIN)/python .ci/audit.py build/audit/found.json || { tail -n 3 build/audit/said.txt >&2; exit 1; }

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .benchmarks .coverage .coverage.*
	rm -f pixelbert_fast/*.so pixelbert_fast/_build_record.json
	find pixelbert_fast kernels tests -name __pycache__ -type d -prune -exec rm -rf {} +
