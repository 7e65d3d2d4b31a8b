# Each target first installs everything into .venv, once. Needs Python 3.11+, make and git.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
UV := $(BIN)/python -m uv
# Time limit for nvidia-smi, which hangs for ever if the driver does.
GPU_SECONDS ?= 20
GPU := $(shell limit=$$(command -v timeout) && limit="$$limit -k 5 $(GPU_SECONDS)"; $$limit nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
# Processes that run tests: two, or none beside the main one with a GPU, which two servers cannot share.
WORKERS := $(if $(GPU),0,2)
# The ways of docs/scaling.md to use several engines, servers and machines; test_scaling checks that the page has the same.
SCALE_TESTS := tests/serving/test_several_engines.py tests/serve/client/test_many_servers.py tests/client/pool/test_server_pool.py \
	tests/sampling/real_servers/test_nginx.py tests/sampling/real_servers/test_nginx_vllm.py tests/faults/trainer/test_two_nodes.py \
	tests/cli/cluster/test_dispatch.py tests/cli/cluster/test_trainings.py tests/cli/sweep/test_sweep_rows.py
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install demo test test-long scale-test check lint bench bench-quick gpu-check clean

install: $(READY)

$(READY): pyproject.toml Makefile tools/prerequisites.py
	@$(PYTHON) tools/prerequisites.py $(if $(GPU),--gpu)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
ifeq ($(GPU),yes)
	$(UV) pip install --no-config --python $(BIN)/python -e ".[train,serve,dev]"
else
	$(BIN)/python -m pip install --quiet "torch==2.13.0+cpu" || $(UV) pip install --python $(BIN)/python --torch-backend cpu "torch==2.13.0"
	$(UV) pip install --python $(BIN)/python -e ".[train,serve-cpu,dev]"
endif
	touch $@

demo: $(READY)
	$(BIN)/bench demo --out runs/demo

test: $(READY)
	$(BIN)/python -m pytest -m "not long" -n $(WORKERS) --dist loadscope --no-loadscope-reorder --durations=15

test-long: $(READY)
	$(BIN)/python -m pytest -m long -n $(WORKERS) --dist loadscope --no-loadscope-reorder --durations=15

# Names every test that it skips, with what is missing for it, and installs nothing for them.
scale-test: $(READY)
	$(BIN)/python -m pytest -rs --durations=15 $(SCALE_TESTS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/bandit -q -r harness trainers serve reports benchmarks -c pyproject.toml

check: lint
	$(BIN)/python -m pytest -m "not slow" -q -n auto

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-quick: $(READY)
	$(BIN)/python -m benchmarks --quick

gpu-check: $(READY)
	$(BIN)/python -m benchmarks.gpu

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
