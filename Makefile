# Needs git, make and Python 3.11 or newer. Everything else is installed into .venv, from uv.lock.
#
#   make playground             build the page that shows what the answers render to, into build/playground
#   make docs                   build the site of docs/ with that page in it, into build/docs
#   make address                write the addresses REPOSITORY and SITE into the pages
#   make render                 render a service into build/, with ANSWERS="server=granian workers=4"
#   make demo                   render a service, test it and serve it; PORT chooses the port
#   make test                   run the tests that this machine can run
#   make test-all               run them with every server, database and forge too
#   make test-fast              run the tests that install nothing
#   make test-updates           update services of every commit, and more generated histories
#   make lint                   check this repository's own code and workflows
#   make lock                   lock the dependencies of rendered services again
#   make recording              record the questions for README.md, into docs/pictures/questions.svg
#   make bench                  compare a service with others; NAME=throughput runs one comparison
#   make releases               release over services under load behind each proxy and count what is lost; needs Docker
#   make faults                 take parts of services away under load and count what is lost; needs Docker
#
# PYTHON=python3.13 chooses the interpreter. ARGS="..." is passed to the command.

PYTHON ?= python3
# The commands below belong to .venv, and not to a virtual environment of this shell.
RUN := env -u VIRTUAL_ENV PATH="$(CURDIR)/.venv/bin:$$PATH"
PYTEST := $(RUN) pytest --numprocesses auto --dist loadgroup

.PHONY: render playground docs address demo test test-all test-fast test-updates lint lock recording bench releases faults

render: .venv/installed
	@$(RUN) copier copy --defaults --overwrite --vcs-ref HEAD $(foreach answer,$(ANSWERS),--data $(answer)) . build/orders-api

playground: .venv/installed
	@$(RUN) python scripts/build_playground.py $(ARGS)

docs: .venv/installed
	@$(RUN) python scripts/build_docs.py $(ARGS)

address: .venv/installed
	@$(RUN) python scripts/set_address.py "$(REPOSITORY)" "$(SITE)"
	@$(RUN) python scripts/record_questions.py

demo: .venv/installed
	@$(RUN) python scripts/demo.py

test: .venv/installed
	$(PYTEST) $(ARGS)

test-all: .venv/installed
	$(PYTEST) --variants $(ARGS)

test-fast: .venv/installed
	$(PYTEST) -m "not project and not docker and not update" $(ARGS)

test-updates: .venv/installed
	$(PYTEST) -m update --all-commits --variants $(ARGS)

lint: .venv/installed
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) zizmor --offline --no-progress --persona=auditor .github
	$(RUN) actionlint

lock: .venv/installed
	$(RUN) PYTHONPATH=scripts python -m lock $(ARGS)

recording: .venv/installed
	@$(RUN) python scripts/record_questions.py

bench: .venv/installed
	$(RUN) python -m benchmarks $(NAME) $(ARGS)

releases: .venv/installed
	$(RUN) python -m benchmarks.releases $(ARGS)

faults: .venv/installed
	$(RUN) python -m benchmarks.faults $(ARGS)

# The locked uv installs the rest.
.venv/installed: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or newer. Choose another, for example: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@echo "Installing the tools into .venv"
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet "uv==$$(sed -n '/^name = "uv"$$/{n;s/version = "\(.*\)"/\1/p;}' uv.lock)"
	@env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON="$(CURDIR)/.venv/bin/python" .venv/bin/uv sync --locked --quiet
	@touch $@
