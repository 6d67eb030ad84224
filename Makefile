# One command for each job; each sets itself up. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNEL := $(wildcard */kernel/*.py */kernel/*.pxd)
PROTOS := $(wildcard proto/kvatlas/*/*.proto)
# Their generator is old on purpose: what it generates runs with every newer protobuf and grpcio.
STUBS := build/protos
STUB_GENERATOR := grpcio-tools==1.75.1
LOCK := requirements-dev.lock
PYTEST := $(BIN)/pytest
# The tests are independent of each other, and wait more than they compute.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help demo test check bench soak rollout engines serve format protos monitoring lock clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

$(VENV)/ready: pyproject.toml setup.py $(LOCK) $(KERNEL)
	@echo "setting up $(VENV): this takes a minute or two the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install -q --editable . --group dev --constraint $(LOCK)
	@touch $@

demo: $(VENV)/ready  ## run simulated pods and a short workload, and show its scores
	$(BIN)/kvatlas demo

serve: $(VENV)/ready  ## run the service, pods connect to port 5557: make serve ARGS="--block-size 32"
	$(BIN)/kvatlas serve --bind 'tcp://*:5557' $(ARGS)

test: $(VENV)/ready  ## run the tests: make test ARGS="tests/unit/test_keys.py"
	$(PYTEST) $(PARALLEL) $(ARGS)

check: $(VENV)/ready $(STUBS)/ready  ## check format, lint, types, import floors, proto rules, fresh stubs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python tests/check_protos.py

bench: $(VENV)/ready  ## measure the targets, both sides in one run
	PYTHONPATH=tests $(BIN)/python -P -m benchmarks $(ARGS)

soak: $(VENV)/ready  ## run the randomized tests with many more seeds
	$(PYTEST) -m soak --timeout 3600 $(ARGS)

rollout: $(VENV)/ready  ## update three replicas under load, and let one crash: what callers see
	PYTHONPATH=tests $(BIN)/python -P -m rollout $(ARGS)

engines: $(VENV)/ready  ## compare scores with what real vLLM servers reuse, on a CPU (2 GB)
	PYTHON=$(PYTHON) tests/engines/setup.sh build/engines
	PYTHONPATH=tests $(BIN)/python -P tests/engines/play.py build/engines $(ARGS)

format: $(VENV)/ready  ## format what `make check` checks
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	PATH=$(abspath $(BIN)):$$PATH buf format -w proto

protos: $(STUBS)/ready  ## generate the gRPC stubs
	$(STUBS)/bin/python -m grpc_tools.protoc -Iproto \
		--python_out=proto --pyi_out=proto --grpc_python_out=proto $(PROTOS)

monitoring: $(VENV)/ready  ## write the operator's alert rules and Grafana's dashboard from their sources
	$(BIN)/python deploy/monitoring/render.py

$(STUBS)/ready: Makefile
	@test -x $(STUBS)/bin/python || $(PYTHON) -m venv $(STUBS)
	@$(STUBS)/bin/python -m pip install -q --only-binary :all: $(STUB_GENERATOR)
	@touch $@

# The versions of all development packages, for every Python and platform that pyproject.toml allows.
# It has an environment of its own, because the lock file may not fit pyproject.toml any more.
lock:  ## update requirements-dev.lock: make lock ARGS=--upgrade
	@test -x build/lock/bin/python || $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -q uv
	build/lock/bin/uv pip compile -q --universal --python-version 3.11 --group dev \
		--custom-compile-command "make lock" --output-file $(LOCK) $(ARGS) pyproject.toml

clean:  ## delete everything that was made here
	rm -rf $(VENV) build dist *.egg-info client/build client/*.egg-info
	find . -name '*.so' -not -path './.venv/*' -delete
