# `make` lists the targets. The environment is .venv, made on demand; servers and a browser for the tests are found,
# or installed and started by tests/services.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
SERVICES := $(BIN)/python -m tests.services

PORT ?= 8000
export PORT
ORIGIN := http://127.0.0.1:$(PORT)

PYTEST_ARGS ?=
BENCH_ARGS ?=

.PHONY: help
help:
	@echo "make demo          the example project at $(ORIGIN)/ (PORT=8000), its data kept between runs"
	@echo "make demo-reset    the same from scratch"
	@echo "make test          all tests: SQLite, PostgreSQL, MariaDB, Redis, browser (PYTEST_ARGS='-k lease')"
	@echo "make verify        format, lint, types, migrations, docs and all tests; no test may be skipped for a service"
	@echo "make interop       the tests with the official clients alone"
	@echo "make matrix        the unit tests on every pair of Python and Django that this machine has"
	@echo "                   (WORKFLOW_TEST_EVERYTHING=1 make test: as much on every database)"
	@echo "make bench         what a step costs, in one table (BENCH_ONLY='sqlite sqlite-admin'; BENCH_ARGS=--list)"
	@echo "make bench-peers   the same in turn with the peers of a harness, and the ratios (PEERS=folder)"
	@echo "make profile       where the time of a step goes, as a flame graph"
	@echo "make test-faults   the long tests: killed workers, lost databases"
	@echo "make docs          the documentation, in docs/_build/html"
	@echo "make translations  takes new texts into the catalogues, and compiles them"
	@echo "make format        format the code and repair what the linter can"
	@echo "make lint          formatting and lint, changing nothing"
	@echo "make types         mypy, strict"

# --- environment ---

$(INSTALLED): pyproject.toml constraints.txt
	@# Debian has the module that makes environments in a package of its own.
	@$(PYTHON) -c "import ensurepip" 2>/dev/null || $(PYTHON) -m tests.services install --packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,docs,redis,postgres,mysql]"
	@touch $@

.PHONY: clients
clients: $(INSTALLED)
	@$(SERVICES) install-clients

.PHONY: install-newest
install-newest:
	@$(PYTHON) -m tests.services install-newest

# --- demo ---

define DEMO_HELP

  Page       $(ORIGIN)/
  Admin      $(ORIGIN)/admin/ (admin / admin)
  Trigger    curl -u admin:admin -H 'Content-Type: application/json' -d '{"order_id": 1}' \
               $(ORIGIN)/workflows/api/workflows/fulfil_order/trigger/
  or         $(BIN)/python manage.py workflow_trigger fulfil_order '{"order_id": 1}' --wait
  Engine API $(ORIGIN)/workflows/qstash for other SDKs; its keys: $(BIN)/python manage.py workflow_keys --url $(ORIGIN)
  Stop       Ctrl-C; at the next start the runs go on where they were

endef
export DEMO_HELP

.PHONY: demo
demo: $(INSTALLED)
	$(BIN)/python manage.py migrate
	$(BIN)/python manage.py load_demo
	@echo "$$DEMO_HELP"
	@exec $(BIN)/daphne -b 127.0.0.1 -p $(PORT) example_project.asgi:application

.PHONY: demo-reset
demo-reset: $(INSTALLED)
	@$(BIN)/python -c "from example_project.settings import DATABASES as d; \
	  print(d['default']['NAME'] if d['default']['ENGINE'].endswith('sqlite3') else '')" | \
	  while read -r file; do test -z "$$file" || rm -fv "$$file" "$$file-wal" "$$file-shm" "$$file-journal"; done
	@$(MAKE) --no-print-directory demo

# --- checks ---

.PHONY: format
format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: lint
lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: types
types: $(INSTALLED)
	@# The plugin imports the settings, which a console script would not find by itself.
	PYTHONPATH=. $(BIN)/mypy -p django_workflow

# In memory: looking for missing migrations connects, and that alone would leave an empty database file behind.
.PHONY: migrations
migrations: $(INSTALLED)
	DEMO_DB=:memory: $(BIN)/python -W error manage.py check
	DEMO_DB=:memory: $(BIN)/python -W error manage.py makemigrations --check --dry-run
	DJANGO_SETTINGS_MODULE=tests.settings $(BIN)/python -W error -m django makemigrations --check --dry-run

.PHONY: docs
docs: $(INSTALLED)
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

# Texts into the catalogues, and catalogues into what is read; needs gettext's tools (Debian: gettext).
.PHONY: translations
translations: $(INSTALLED)
	cd django_workflow && ../$(BIN)/django-admin makemessages --all --no-location --no-obsolete
	@# The date of the run would be a change each time.
	sed -i '/^"POT-Creation-Date:/d; /^"Report-Msgid-Bugs-To:/d' django_workflow/locale/*/LC_MESSAGES/django.po
	cd django_workflow && ../$(BIN)/django-admin compilemessages

# --- tests ---

.PHONY: test
test: $(INSTALLED)
	@$(SERVICES) suite -- $(PYTEST_ARGS)

.PHONY: interop
interop: clients
	$(BIN)/python -m pytest -q tests/interop $(PYTEST_ARGS)

.PHONY: test-faults
test-faults: $(INSTALLED)
	@$(SERVICES) suite --slow -- $(PYTEST_ARGS)

.PHONY: matrix
matrix: $(INSTALLED)
	@$(SERVICES) matrix -- $(PYTEST_ARGS)

# --- what it costs; tests/benchmarks/__init__.py lists the variables ---

export PEERS

.PHONY: bench
bench: $(INSTALLED)
	@$(SERVICES) run --durable --only postgresql,redis -- $(BIN)/python -m tests.benchmarks $(BENCH_ARGS)

.PHONY: bench-peers
bench-peers: $(INSTALLED)
	@$(SERVICES) run --durable --only postgresql,redis -- $(BIN)/python -m tests.benchmarks.peers

.PHONY: profile
profile: $(INSTALLED)
	@$(SERVICES) run --durable --only postgresql -- $(BIN)/python -m tests.benchmarks.profile $(BENCH_ARGS)

.PHONY: verify
verify:
	@$(MAKE) --no-print-directory -j2 clients install-newest
	@$(MAKE) --no-print-directory -j2 lint types migrations docs
	@WORKFLOW_REQUIRE_ALL=1 $(SERVICES) suite --newest -- $(PYTEST_ARGS)
