# The commands of this repository; see CONTRIBUTING.md. `make demo` and `make test` set up .venv.
PYTHON ?= python3
BIN := .venv/bin
BENCH := .venv-bench/bin
INTEROP := .venv-interop/bin
CODE := src tests benchmarks examples
JOBS ?= 2
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test quick lint format docs sanitize fuzz interop bench clean

demo: .venv/demo
	$(BIN)/spikefold run digits --overwrite

test: lint
	$(BIN)/pytest -n $(JOBS)

quick: .venv/dev
	$(BIN)/pytest -n $(JOBS) -m "not slow"

lint: .venv/dev
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/dev
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

docs: .venv/dev
	$(BIN)/pdoc spikefold --math --docformat google --output-directory build/docs

# The kernels' tests with the address and undefined-behaviour sanitizers compiled in (GCC).
sanitize: .venv/dev
	$(BIN)/python $(PIP) --no-deps --no-build-isolation --upgrade --target build/sanitize \
		-C build-dir=build/sanitize-cmake -C cmake.define.SPIKEFOLD_SANITIZE=ON .
	LD_PRELOAD="$$(for name in asan ubsan stdc++; do g++ -print-file-name=lib$$name.so; done | xargs)" \
		ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 \
		$(BIN)/python tests/sanitize.py $(CURDIR)/build/sanitize -m "not slow" tests/dynamics -k "kernels or statistics or pool"

# Damaged files, wrong settings and wrong arguments, for as long as one likes.
fuzz: SECONDS ?= 600
fuzz: SEED ?= 0
fuzz: .venv/dev
	$(BIN)/python -W ignore -m tests.dynamics.fuzzing $(SEED) $$(($(SECONDS) / 10))
	$(BIN)/python -m tests.fuzz --seconds $$(($(SECONDS) - $(SECONDS) / 10)) --seed $(SEED)

# Imports, exports and costs beside other libraries, in an environment of their own.
interop: .venv-interop/ready
	$(INTEROP)/python -m pytest -n $(JOBS) -m interop

# Against SpikingJelly, snnTorch and Norse, in an environment of its own (benchmarks/README.md).
bench: .venv-bench/ready
	$(BENCH)/python -m benchmarks

clean:
	rm -rf .venv .venv-interop .venv-bench build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp a set-up: redone when what is to be installed, or compiled, changes.
KERNELS := CMakeLists.txt $(wildcard src/spikefold/dynamics/csrc/*)
.venv/demo .venv/dev: pyproject.toml constraints.txt $(KERNELS)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python $(PIP) -c constraints.txt -e ".[$(@F)]"
	touch $@

.venv-bench/ready: pyproject.toml benchmarks/requirements.txt benchmarks/peers.txt $(KERNELS)
	test -x $(BENCH)/python || $(PYTHON) -m venv .venv-bench
	$(BENCH)/python $(PIP) -r benchmarks/requirements.txt
	$(BENCH)/python $(PIP) --no-deps -r benchmarks/peers.txt
	$(BENCH)/python $(PIP) --no-deps -e .
	touch $@

.venv-interop/ready: pyproject.toml constraints.txt tests/interop.txt benchmarks/peers.txt $(KERNELS)
	test -x $(INTEROP)/python || $(PYTHON) -m venv .venv-interop
	$(INTEROP)/python $(PIP) -c constraints.txt -e ".[dev]" -r tests/interop.txt
	$(INTEROP)/python $(PIP) --no-deps -r benchmarks/peers.txt neurobench==2.3.0
	touch $@
