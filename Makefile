# Everything a person types here. The first call installs into .venv, later ones only what changed.
#
#   make run     install, then the whole experiment on the demonstration's images
#   make test    install, then all tests
#   make viz     the pipelines in kedro-viz            make lab    the catalog in JupyterLab
#   make lint    ruff, mypy, clang-format              make bench  benchmarks against peers
#   make figures    figures of the pages, outputs of notebooks, anew (PARTS=… some of them)

SHELL := /bin/sh
PYTHON ?= python3
CC ?= cc
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# What an installation depends on: the code itself is installed in place.
SOURCES := pyproject.toml setup.py $(wildcard src/lowshot_kedro/native/*.c) \
	$(wildcard src/lowshot_kedro/native/*.h) src/lowshot_kedro/native/build_native.py
C_FILES := $(wildcard src/lowshot_kedro/native/*.[ch] tests/native/*.c)

# A process for each core, up to four, which hold 2 GB each. One runs all tests of a file, which
# share what they are about.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

export KEDRO_DISABLE_TELEMETRY = 1
export DO_NOT_TRACK = 1

.PHONY: help run test arm-tools viz lab lint bench figures clean
.DEFAULT_GOAL := help

help:
	@sed -n '3,7s/^# *//p' Makefile

run: $(VENV)/.installed
	$(BIN)/kedro run

test: $(VENV)/.installed-dev arm-tools
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# With these the tests also run the kernels for Arm, which are left out without them. Only on the
# machines of continuous integration are packages of the system installed unasked.
ARM_TOOLS := gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
arm-tools:
	@if test -n "$(CI)" && test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
		! { command -v aarch64-linux-gnu-gcc && command -v qemu-aarch64; } >/dev/null; then \
		echo "make: installing $(ARM_TOOLS)"; \
		{ apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 \
			--yes --no-install-recommends $(ARM_TOOLS); } >/dev/null 2>&1 || \
			echo "make: they cannot be installed; kernels for Arm are not tested" >&2; \
	fi

# The browser shows the pipelines alone at first; what lies between them is a click away.
viz: $(VENV)/.installed
	BROWSER="$${BROWSER:-env -u BROWSER $(BIN)/python -m webbrowser %s?types=nodes}" \
		$(BIN)/kedro viz run --include-hooks

lab: $(VENV)/.installed-lab
	KEDRO_LOGGING_CONFIG=$(CURDIR)/conf/logging.yml $(BIN)/kedro jupyter lab

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $(C_FILES)

bench: $(VENV)/.installed-bench
	@for script in $(wildcard benchmarks/*.py); do $(BIN)/python "$$script" || exit 1; done

# All that the demonstration gives; PARTS="label_diffusion fashion_mnist" take longer.
figures: $(VENV)/.installed-dev
	$(BIN)/python docs/make_figures.py $(PARTS)

clean:
	rm -rf $(VENV) build src/*.egg-info src/lowshot_kedro/native/_native.* .viz sessions

# A prerequisite that is missing is named in one line, before anything is downloaded.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null 2>&1 || \
		{ echo "make: $(PYTHON) is missing; install Python 3.10 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "make: $(PYTHON) is older than 3.10; name a newer one: make PYTHON=python3.11" >&2; exit 1; }
	@command -v $(CC) >/dev/null 2>&1 || \
		{ echo "make: the C compiler $(CC) is missing; install gcc or clang" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(os.path.join(sysconfig.get_paths()["include"], "Python.h")))' || \
		{ echo "make: Python.h is missing; install the headers of $(PYTHON) (Debian: python3-dev)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "make: the venv module of $(PYTHON) is missing (Debian: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# faiss-cpu, which the package asks for, and faiss-gpu own the same module: never both. Where there
# is a GPU, the one takes the place of the other, after every installation, which brings it back.
ON_GPU = nvidia-smi -L 2>/dev/null | grep -q GPU
install = echo "make: installing lowshot-kedro[$(1)]"; \
	$(PIP) --quiet uninstall --yes faiss-gpu; \
	$(PIP) install --editable '.[$(1)]'; status=$$?; \
	if $(ON_GPU); then \
		$(PIP) --quiet uninstall --yes faiss-cpu; $(PIP) install 'faiss-gpu>=1.15' || status=1; \
	fi; \
	test $$status -eq 0

$(VENV)/.installed: $(VENV)/bin/python $(SOURCES)
	@$(call install,all)
	@# Compiles itself when it is imported for the first time, a quarter of a minute.
	@$(BIN)/python -c "import pacmap" >/dev/null 2>&1 || true
	@touch $@

$(VENV)/.installed-lab: $(VENV)/.installed
	@$(call install,lab)
	@touch $@

# Without a peer that cannot be installed the benchmarks run all the same, and say so.
$(VENV)/.installed-bench: $(VENV)/.installed
	@$(call install,bench) \
		&& touch $@ || echo "make: not all peers could be installed; they are left out" >&2

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(call install,dev)
	@touch $@
