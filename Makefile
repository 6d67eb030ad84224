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
# What runs the service, without development tools: seconds to set up, and a fifth of the size.
RUN := build/run
RUN_LOCK := requirements.lock
PYTEST := $(BIN)/pytest
# The tests are independent of each other, and wait more than they compute.
PARALLEL := -n auto --maxprocesses 4 --dist worksteal

.PHONY: help demo test check bench soak rollout engines serve format protos monitoring lock image clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

$(VENV)/ready: pyproject.toml setup.py $(LOCK) $(KERNEL)
	@echo "setting up $(VENV): this takes a minute or two the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install -q --editable . --group dev --constraint $(LOCK)
	@touch $@

$(RUN)/ready: $(RUN_LOCK)
	@echo "setting up $(RUN): this takes half a minute the first time ..."
	@test -x $(RUN)/bin/python || $(PYTHON) -m venv $(RUN)
	@$(RUN)/bin/python -m pip install -q --no-compile --no-deps --require-hashes -r $(RUN_LOCK)
	@touch $@

$(RUN)/compiled: $(RUN)/ready pyproject.toml setup.py $(KERNEL)
	@echo "compiling the kernel ..."
	@$(RUN)/bin/python -m pip install -q --no-deps --editable .
	@touch $@

# From the source, compiled or not: a few simulated pods are no work for either form. Where there is
# a compiled kernel it is that of the source.
demo: $(if $(wildcard */kernel/*.so),$(RUN)/compiled,$(RUN)/ready)  ## run simulated pods and a short workload, and show its scores
	PYTHONPATH=.:client:proto $(RUN)/bin/python -m service demo

serve: $(RUN)/compiled  ## run the service, pods connect to port 5557: make serve ARGS="--block-size 32"
	$(RUN)/bin/kvatlas serve --bind 'tcp://*:5557' $(ARGS)

test: $(VENV)/ready  ## run the tests: make test ARGS="tests/unit/test_keys.py"
	IMAGE_DIR=$(IMAGE_DIR) $(PYTEST) $(PARALLEL) $(ARGS)

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

# The versions of all packages, for every Python and platform that pyproject.toml allows: first the
# development packages, then of these what the service needs, traces included, with hashes. hf-xet is left out: it
# makes downloads of huge files faster, and those of tokenizers work without it.
# It has an environment of its own, because the lock file may not fit pyproject.toml any more.
COMPILE := build/lock/bin/uv pip compile -q --universal --python-version 3.11 \
	--custom-compile-command "make lock"
lock:  ## update both lock files: make lock ARGS=--upgrade
	@test -x build/lock/bin/python || $(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install -q uv
	$(COMPILE) --group dev --output-file $(LOCK) $(ARGS) pyproject.toml
	$(COMPILE) --extra traces --generate-hashes --constraint $(LOCK) --no-emit-package hf-xet \
		--output-file $(RUN_LOCK) $(ARGS) pyproject.toml

image:  ## build the image with buildah, as root: make image STAND_IN=1 makes its base image, too
	STAND_IN=$(STAND_IN) deploy/image/build

clean:  ## delete everything that was made here
	rm -rf $(VENV) build dist *.egg-info client/build client/*.egg-info
	find . -name '*.so' -not -path './.venv/*' -delete
