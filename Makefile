# The book's commands. `make help` lists them.
PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
# another-python where PYTHON was given and is not the one that .venv was made with
OTHER := $(shell [ "$(origin PYTHON)" = file ] || [ ! -e $(STAMP) ] || $(PYTHON) -c 'import sys; sys.exit(open("$(STAMP)").read() != sys.version)' 2>/dev/null || echo another-python)
NBVAL := --nbval-lax --nbval-current-env --nbval-cell-timeout 120 --nbval-sanitize-with tests/sanitize.cfg
export OMP_NUM_THREADS ?= 1
export TQDM_DISABLE ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup book offline pdf test colab lab demo class slides record results mutants bench gpu tidy lint publish-as clean another-python

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "Variables: PYTHON=python3.12 (3.11 to 3.13), TORCH_INDEX=https://download.pytorch.org/whl/cpu (a smaller torch)"

setup: $(STAMP)  ## a virtual environment in .venv with everything the book needs

$(STAMP): requirements.txt tests/peers.txt pyproject.toml $(OTHER)
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "There is no '$(PYTHON)' here: install Python 3.11, 3.12 or 3.13, or say where it is, as in 'make $(or $(MAKECMDGOALS),setup) PYTHON=/usr/bin/python3.12'."; exit 1; }
	@$(PYTHON) book/tools/setup_env.py "$(VENV)" "$(STAMP)" "$(TORCH_INDEX)"

book: $(STAMP)  ## execute the chapters that changed and build the pages into _build/html
	@$(PY) book/tools/build.py

offline: $(STAMP)  ## the whole book as one zip that opens from a stick, without a network
	@$(PY) book/tools/offline.py

pdf: $(STAMP)  ## the whole book as one PDF, printed by Chromium (ONLY="01 02": some chapters)
	@$(PY) book/tools/print_book.py $(ONLY)

# not reordered: files of few but slow tests, those of the browser, would come last and keep one of two cores
test: $(STAMP)  ## every test: lib, the chapters under nbval, the rendered pages in a browser
	@failed=0; \
	PYTHONPATH=book/tools $(PY) -m pytest -q -n 2 --dist loadfile $(NBVAL) -p keep chapters || failed=1; \
	$(PY) book/tools/build.py || failed=1; \
	$(PY) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests || failed=1; \
	exit $$failed

colab: $(STAMP)  ## every chapter alone in an environment like Colab's (ENV=oldest: the oldest versions lib claims; ONLY="01 04")
	@env -u TQDM_DISABLE $(PY) book/tools/colab.py --env $(or $(ENV),colab) $(ONLY)

lab: $(STAMP)  ## JupyterLab at the chapters
	@env -u TQDM_DISABLE $(PY) -m jupyterlab chapters

demo: $(STAMP)  ## the explorable figures, live and full screen (Voila); ONLY="09 10" for some chapters
	@env -u TQDM_DISABLE $(PY) book/tools/demo.py $(ONLY)

class: $(STAMP)  ## load test: N=12 students on a real JupyterHub on this machine (needs npm, and root for separate students); not part of make test
	@$(PY) tests/benchmarks/classroom.py $(or $(N),12)

slides: $(STAMP)  ## a deck of slides for each chapter, in _build/slides
	@$(PY) book/tools/slides.py $(ONLY)

record: $(STAMP)  ## execute the chapters and store the prints that the tests compare
	@$(PY) book/tools/record.py $(ONLY)

results: $(STAMP)  ## train every model of the book three times and write chapter 13's table (half an hour of two cores)
	@$(PY) -m lib.results $(ARGS)

mutants: $(STAMP)  ## plant faults in lib and in the chapters, count what the checks catch (hours; ONLY="lib/flows/coupling.py 04" SAMPLE=200: minutes)
	@$(PY) -m tests.mutants --only "$(ONLY)" $(if $(SAMPLE),--sample $(SAMPLE) --cells $(SAMPLE))

seeds: $(STAMP)  ## run every chapter with its seeds moved, count the checks that go red (ONLY="04": some)
	@$(PY) -m tests.mutants.seeds --only "$(ONLY)"

bench: $(STAMP)  ## time lib beside zuko, nflows, normflows, torchdiffeq and diffusers (QUICK=1: three rounds)
	@$(PY) -m tests.benchmarks $(if $(QUICK),--quick)

gpu: $(STAMP)  ## tests, chapters, speed, limits and recipes' steps on a machine with an NVIDIA card (PARTS="tests limits": some)
	@$(PY) -m tests.gpu $(PARTS)

tidy: $(STAMP)  ## format, then strip from the chapters all that is not theirs; executes nothing
	@$(PY) -m ruff format -q .
	@$(PY) book/tools/tidy.py

lint: $(STAMP)  ## what tidy would change, and which chapter breaks which rule
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check -q .
	@$(PY) book/tools/tidy.py --check
	@$(PY) book/tools/policy.py

publish-as: $(STAMP)  ## say where the book is published, everywhere: URL=https://github.com/me/book [REF=v1]
	@$(PY) book/tools/publish_as.py $(URL) $(REF)

clean:  ## remove _build, with downloaded data and checkpoints; keep .venv
	rm -rf _build .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
