# The tasks of pixi.toml for a machine without pixi; `make help` lists them.
# Each one first brings what it needs into .venv, once: a second run starts at once.
#   make demo PYTHON=python3.12        choose the Python that .venv is made with
#   make transcribe ARGS="clip.wav"    hand arguments on

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
ARGS ?=

# A stamp is touched only when its step has succeeded, so a broken-off installation is resumed.
MADE := $(VENV)/.made
RUN := $(VENV)/.run-ready
DEV := $(VENV)/.dev-ready
RAY := $(VENV)/.ray-ready
EXTRA := $(VENV)/.extra-ready
DEFAULT_MODEL := $(VENV)/.default-model-ready
TEST_MODELS := $(VENV)/.test-models-ready

.DEFAULT_GOAL := help
.PHONY: help demo transcribe engines engines-extra test test-cpu test-gpu test-max test-slow test-space test-cross graph-test gpu-check compare-simple browser bad-input load-check audit lint \
	debug-encoder why benchmark benchmark-json benchmark-save figures evaluate evaluate-ray constraints clean checkpoint checkpoints structure

help: ## list the tasks
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: $(RUN) $(DEFAULT_MODEL) ## open the page: one clip, every engine, side by side
	$(PY) app.py $(ARGS)

engines-extra: $(EXTRA) ## install the optional engines: faster-whisper, whisper.cpp, OpenVINO, transformers

transcribe: $(RUN) ## print one engine's transcript: ARGS="CLIP --engine cpu --model base"
	$(PY) -m engines.transcribe $(ARGS)

engines: $(RUN) ## list the engines, and why one is unavailable on this machine
	$(PY) -m engines.cli engines $(ARGS)

test: $(DEV) $(TEST_MODELS) browser ## run the quick tests: about ten minutes on two quick cores
	$(PY) -m pytest $(ARGS)

test-slow: $(DEV) $(TEST_MODELS) browser ## run the tests that take longer: about forty minutes; PROMPTS=100 compares more speech
	$(PY) -m pytest -m "slow and not space and not cross" $(ARGS)

test-cpu: $(DEV) $(TEST_MODELS) browser ## run the quick tests that need neither a GPU nor MAX
	$(PY) -m pytest -m "not gpu and not max and not slow and not cross" $(ARGS)

test-gpu: $(DEV) $(TEST_MODELS) ## run the tests that need a CUDA device
	$(PY) -m pytest -m gpu $(ARGS)

test-max: $(DEV) $(TEST_MODELS) browser ## run all tests that need MAX
	$(PY) -m pytest -m "max and not cross" $(ARGS)

test-space: $(DEV) $(TEST_MODELS) ## run the page in a new environment, as a Space starts it
	$(PY) -m pytest -m space $(ARGS)

test-cross: $(DEV) $(TEST_MODELS) ## compile MAX's graphs for GPUs that this machine lacks: up to two hours
	$(PY) -m pytest -m cross $(ARGS)

graph-test: $(RUN) ## what is here and whether it works: packages, GPU, MAX's compiler, equal encoders
	$(PY) -m engines.cli doctor $(ARGS)

gpu-check: $(RUN) ## what PyTorch and MAX see of a GPU, and whether it works
	$(PY) -m engines.cli doctor --gpu $(ARGS)

compare-simple: $(RUN) ## what every engine wrote, differences marked: ARGS="CLIP"
	$(PY) -m engines.cli compare $(ARGS)

debug-encoder: $(RUN) ## compare encoders, or with --part decoder decoders, stage by stage: ARGS="cpu max_full --clip CLIP"
	$(PY) -m engines.cli layers $(ARGS)

why: $(RUN) ## where two engines' tokens part, and who is right: ARGS="CLIP cpu max_full --margin 0.1"
	$(PY) -m engines.cli why $(ARGS)

benchmark: $(RUN) ## time the engines: medians of runs that take turns, as tables
	$(PY) -m engines.cli benchmark $(ARGS)

benchmark-json: $(RUN) ## the same as one JSON object
	$(PY) -m engines.cli benchmark --json - $(ARGS)

benchmark-save: $(RUN) ## measure every engine here with tiny.en and base, greedy and beam 5, into docs/benchmark.json: half an hour for each two runs
	$(PY) -m engines.cli benchmark --engines all --models tiny.en,base --clips columbia,jfk --beams 1,5 --json docs/benchmark.json $(ARGS)

bad-input: $(DEV) ## make hundreds of odd and broken clips and put each through the reader
	$(PY) -m pytest -s -m "slow or not slow" tests/bad_input $(ARGS)

load-check: $(DEV) ## put fifty visitors on the page at once, then 300 comparisons, with VISITORS=9 fewer
	$(PY) -m pytest -s tests/load/check.py $(ARGS)

structure: $(DEV) ## print the size of the code, its imports, and the targets for both
	$(PY) -m tests.structure $(ARGS)

audit: $(DEV) ## ask a public database for known faults in what is installed
	$(PY) -m pip_audit --local $(ARGS)

figures: $(RUN) ## write the tables of the records in docs/ into docs/benchmarks.md and docs/benchmarks-amx.md
	$(PY) -m engines.cli benchmark --show docs/benchmark.json --markdown > docs/benchmarks.md && $(PY) -m engines.cli benchmark --show docs/benchmark-amx.json --markdown > docs/benchmarks-amx.md

evaluate: $(RUN) ## word error rate and real-time factor over many clips: ARGS="FOLDER"
	$(PY) -m engines.cli evaluate $(ARGS)

evaluate-ray: $(RAY) ## the same on a Ray started here, or on a cluster: ARGS="FOLDER --address ADDRESS"
	$(PY) -m engines.cli evaluate --ray $(ARGS)

lint: $(DEV) ## ruff and mypy
	$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

checkpoint: $(RUN) ## bring the default checkpoint to this machine: ARGS="small" for another one
	$(PY) -m engines.checkpoints $(ARGS)

checkpoints: $(RUN) ## bring the checkpoints that the tests use: tiny.en and base
	$(PY) -m engines.checkpoints tiny.en base

browser: $(DEV) ## bring a Chromium for the page's tests, unless there is one
	$(PY) -m tests.install_browser

constraints: $(DEV) ## write constraints.txt anew from what .venv holds
	@{ echo '# Versions of everything beneath requirements*.txt, as tested; "make constraints" writes this.'; \
	   echo '# What torch pins by itself is left to torch.'; \
	   $(PIP) freeze -r requirements.txt -r requirements-dev.txt -r requirements-ray.txt 2>/dev/null \
	   | sed -n '/^## The following/,$$ { /^#/d; /^\(triton\|setuptools\|nvidia-\|cuda-\)/d; s/$$/; python_version >= "3.11"/; p; }'; \
	 } > constraints.new && mv constraints.new constraints.txt

clean: ## remove .venv and the caches of the tools
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	  || { echo "Python 3.10 or newer is needed as $(PYTHON): name another, as in PYTHON=python3.12"; exit 1; }
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(RUN): $(MADE) requirements.txt constraints.txt
	@echo "Installing what the app runs on: minutes, the first time."
	$(PIP) install -r requirements.txt -c constraints.txt
	@touch $@

$(DEV): $(MADE) requirements.txt requirements-dev.txt requirements-ray.txt constraints.txt
	@echo "Installing what the app and its tests run on: minutes, the first time."
	$(PIP) install -r requirements-dev.txt -c constraints.txt
	@touch $(RUN) $(RAY) $@

$(DEFAULT_MODEL): | $(RUN)
	@echo "Bringing Whisper's base checkpoint, unless it is here: 140 MB, once."
	@$(PY) -m engines.checkpoints && touch $@ \
	  || echo "The page starts without it; choose another model, or a file of your own."

$(TEST_MODELS): | $(RUN)
	@$(PY) -m engines.checkpoints tiny.en base
	@touch $(DEFAULT_MODEL) $@

$(EXTRA): $(RUN) requirements-extra.txt
	@echo "Installing the optional engines: a few hundred megabytes."
	$(PIP) install --no-deps -r requirements-extra.txt
	@touch $@

$(RAY): $(RUN) requirements-ray.txt
	$(PIP) install -r requirements-ray.txt -c constraints.txt
	@touch $@
