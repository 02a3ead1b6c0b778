# The commands of this repository; see CONTRIBUTING.md. `make demo` and `make test` set up .venv.
PYTHON ?= python3
BIN := .venv/bin
CODE := src tests

.PHONY: demo test quick lint format docs clean

demo: .venv/demo
	$(BIN)/spikefold run digits --overwrite

test: lint
	$(BIN)/pytest

quick: .venv/dev
	$(BIN)/pytest -m "not slow"

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

clean:
	rm -rf .venv build dist runs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# A stamp a set-up: redone when what is to be installed changes.
.venv/demo .venv/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$(@F)]"
	touch $@
