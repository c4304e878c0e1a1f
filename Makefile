# Needs git, make and Python 3.11 or newer. Everything else is installed into .venv, from uv.lock.
#
#   make render                 render a service into build/; ANSWERS="server=granian workers=4" answers
#   make demo                   render a service, test it and serve it; PORT chooses the port
#   make test                   every test that this machine can run
#   make test-fast              those that install nothing
#   make test-updates           services of every commit, updated, and more generated histories
#   make lint
#   make lock                   lock the rendered services' dependencies anew
#   make bench                  measure against others; NAME chooses what, such as NAME=throughput
#
# PYTHON=python3.13 chooses the interpreter, ARGS="..." reaches the command.

PYTHON ?= python3
# Not this shell's own virtual environment: the commands below belong to .venv.
RUN := env -u VIRTUAL_ENV PATH="$(CURDIR)/.venv/bin:$$PATH"
PYTEST := $(RUN) pytest --numprocesses auto --dist loadgroup

.PHONY: render demo test test-fast test-updates lint lock bench

render: .venv/installed
	@$(RUN) copier copy --defaults --overwrite --vcs-ref HEAD $(foreach answer,$(ANSWERS),--data $(answer)) . build/orders-api

demo: .venv/installed
	@$(RUN) python scripts/demo.py

test: .venv/installed
	$(PYTEST) $(ARGS)

test-fast: .venv/installed
	$(PYTEST) -m "not project and not docker and not update" $(ARGS)

test-updates: .venv/installed
	$(PYTEST) -m update --all-commits $(ARGS)

lint: .venv/installed
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) zizmor --offline --no-progress .github
	$(RUN) actionlint

lock: .venv/installed
	$(RUN) PYTHONPATH=scripts python -m lock $(ARGS)

bench: .venv/installed
	$(RUN) python -m benchmarks $(NAME) $(ARGS)

# The uv that installs the rest is the locked one.
.venv/installed: pyproject.toml uv.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or newer. Name one that is, for example: make PYTHON=python3.13 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@echo "Installing the tools into .venv"
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --quiet "uv==$$(sed -n '/^name = "uv"$$/{n;s/version = "\(.*\)"/\1/p;}' uv.lock)"
	@env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT=.venv UV_PYTHON="$(CURDIR)/.venv/bin/python" .venv/bin/uv sync --locked --quiet
	@touch $@
