# One command a job; each sets itself up. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KERNEL := $(wildcard */kernel/*.py */kernel/*.pxd)
PROTOS := $(wildcard proto/kvatlas/*/*.proto)
PYTEST := $(BIN)/pytest

.PHONY: help demo test check bench soak engines serve format protos clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 10

$(VENV)/ready: pyproject.toml setup.py $(KERNEL)
	@echo "setting up $(VENV), which takes a minute or two the first time ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --upgrade "pip>=25.1"
	@$(BIN)/python -m pip install -q --editable . --group dev
	@touch $@

demo: $(VENV)/ready  ## simulated pods, a short workload and its scores
	$(BIN)/kvatlas demo

serve: $(VENV)/ready  ## the service, events bound on port 5557: make serve ARGS="--block-size 32"
	$(BIN)/kvatlas serve --bind 'tcp://*:5557' $(ARGS)

test: $(VENV)/ready  ## all tests
	$(PYTEST) $(ARGS)

check: $(VENV)/ready  ## format, lint, types, import floors, proto rules, fresh stubs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python tests/check_protos.py

bench: $(VENV)/ready  ## the targets, both sides measured in one run
	PYTHONPATH=tests $(BIN)/python -P -m benchmarks $(ARGS)

soak: $(VENV)/ready  ## the randomized tests, for longer
	$(PYTEST) -m soak --timeout 3600 $(ARGS)

engines: $(VENV)/ready  ## chats through real vLLM servers on a CPU: promised against reused (2 GB)
	PYTHON=$(PYTHON) tests/engines/setup.sh build/engines
	PYTHONPATH=tests $(BIN)/python -P tests/engines/play.py build/engines $(ARGS)

format: $(VENV)/ready  ## format what `make check` looks at
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	PATH=$(abspath $(BIN)):$$PATH buf format -w proto

protos: $(VENV)/ready  ## generate the stubs
	$(BIN)/python -m grpc_tools.protoc -Iproto --python_out=proto --pyi_out=proto --grpc_python_out=proto $(PROTOS)

clean:  ## forget everything that was made here
	rm -rf $(VENV) build dist *.egg-info
	find . -name '*.so' -not -path './.venv/*' -delete
