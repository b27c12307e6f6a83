# The README's two commands. Both make their own virtual environment in .venv and need nothing but Python 3.11 or newer.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test lint lint-web clean

demo: $(VENV)/.demo
	$(RUN)/quantscope demo

test: $(VENV)/.test lint
	$(RUN)/pytest

lint: $(VENV)/.test
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	@$(MAKE) --no-print-directory lint-web

# The front end's checks need Node where the build can find it; one that only the build fetched is gone with the build.
lint-web:
	@if node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 19) ? 0 : 1)' \
	    2>/dev/null && [ -x frontend/node_modules/.bin/tsc ]; \
	then cd frontend && npm run --silent typecheck && npm run --silent types:check && npm run --silent format:check && npm test --silent; \
	else echo "The front end was not checked: no Node 20.19 or newer with npm, or no frontend/node_modules. Next step: npm ci --ignore-scripts in frontend"; fi

$(RUN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "quantscope needs Python 3.11 or newer; this is $$($(PYTHON) --version 2>&1). Next step: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is incomplete. Next step: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

WEB := $(shell find frontend -type d -name node_modules -prune -o -type f -print)

$(VENV)/.%: $(RUN)/python pyproject.toml hatch_build.py $(WEB)
	$(RUN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@

clean:
	rm -rf $(VENV)
