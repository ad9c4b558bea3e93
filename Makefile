# make demo  create the environment and run the notebook on generated recordings: every output of the project
# make test  create the environment, run the checks, and run all tests except the slow ones in JOBS processes
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin/python
JOBS   ?= 2
PTBXL  := artifacts/ptbxl100

.PHONY: help bench bench-gpu env demo docs notebook examples jupyterlab test test-slow lint smoke clean fuzz soak wheel audit ptbxl

help:
	@echo "make demo       run the notebook on generated recordings; outputs in artifacts/ and figures/"
	@echo "make test       check style, types and unused code, and run all tests except the slow ones"
	@echo "make lint       check style, types, docstrings and unused code"
	@echo "make smoke      run the 10-record check"
	@echo "make docs       update docs/settings.md and docs/commands.md, build the documentation in build/site and check its links"
	@echo "make notebook   run the notebook again for docs/notebook.ipynb (the copy with outputs) and the pictures of README and guide"
	@echo "make examples   run every example of README, guide and pages on small generated collections"
	@echo "make test-slow  run the slow tests, including make examples and make jupyterlab"
	@echo "make jupyterlab run the notebook in JupyterLab in headless Chromium; picture in build/jupyterlab.png"
	@echo "make fuzz       try 20,000 broken and hostile files on every reader, and measure expensive ones"
	@echo "make soak       kill runs fifty times, process 100,000 records and a day-long record; takes a quarter of an hour"
	@echo "make wheel      install the package into an empty environment and predict with it; needs a package index"
	@echo "make audit      look up known vulnerabilities of the installed packages; needs a network"
	@echo "make bench      compare the speed with a plain script (DATA=DIR for real records)"
	@echo "make bench-gpu  measure training on a CUDA device (PROCESSED=DIR to time the PTB-XL recipe)"
	@echo "make ptbxl      train and evaluate on PTB-XL from its folder (DATA=DIR, 100 Hz); takes three quarters of an hour on one core"
	@echo "make clean      remove the demo's outputs; keeps artifacts/runs, the environment, your data and your label mapping"

env: $(VENV)/.complete

$(VENV)/.complete: requirements.txt requirements-formats.txt requirements-export.txt requirements-tracking.txt requirements-remote.txt requirements-docs.txt requirements-dev.txt pyproject.toml
	@echo "== creating the environment in $(VENV) (a few minutes the first time)"
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Python 3.11 or newer is needed, this is " + sys.version'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

demo: env
	@echo "== running notebooks/ecg_tensor_pipeline.ipynb on generated recordings"
	$(RUN) -m src demo

docs: env
	@echo "== building the documentation"
	$(RUN) docs/reference.py
	$(RUN) -m sphinx -q -W --keep-going -E -j $(JOBS) -c docs . build/site
	@echo "open build/site/index.html"

notebook: env
	@echo "== running the notebook on generated recordings, in a copy of the project"
	rm -rf build/notebook && mkdir -p build/notebook && cp -r src notebooks build/notebook
	cd build/notebook && $(abspath $(RUN)) -m src demo --out $(CURDIR)/docs/notebook.ipynb
	$(RUN) docs/pictures.py

examples: env
	$(RUN) -m pytest -q -m slow tests/test_examples.py

jupyterlab: env
	$(RUN) -m pytest -q -m slow tests/test_jupyterlab.py

test: env
	@echo "== running the tests"
	$(MAKE) --no-print-directory lint
	$(RUN) -m compileall -q src # once, because the tests start many commands and some environments forbid them to cache bytecode
	OMP_NUM_THREADS=1 $(RUN) -m pytest -q -m "not slow" -n $(JOBS) --dist worksteal

test-slow: env
	$(RUN) -m pytest -q -m slow

bench: env
	@echo "== comparing the speed with a plain script; DATA=DIR takes real WFDB records"
	$(RUN) -m benchmarks $(if $(DATA),--data $(DATA))

bench-gpu: env
	@echo "== measuring training on a CUDA device; PROCESSED=DIR takes a processed PTB-XL to time the recipe"
	$(RUN) -m benchmarks.gpu $(if $(PROCESSED),--processed $(PROCESSED))

fuzz: env
	@echo "== trying broken and hostile files"
	$(RUN) -m tests.fuzz --inputs 20100
	@echo "== measuring what expensive files cost as their size doubles"
	$(RUN) -m tests.fuzz.costs --most 40

soak: env
	@echo "== killing runs, and processing large inputs"
	ECG_SOAK=1 ECG_SOAK_KILLS=50 $(RUN) -m pytest -q -s tests/test_crashes.py tests/test_load.py

wheel: env
	@echo "== installing the wheel into an empty environment, and predicting with it"
	$(RUN) tests/wheel.py

audit: env
	$(RUN) tests/audit.py

lint: env
	$(RUN) -m ruff format --check --quiet src tests benchmarks experiments docs
	$(RUN) -m ruff check src tests benchmarks experiments docs
	$(RUN) -m mypy
	$(RUN) -m vulture

ptbxl: env
	@test -n "$(DATA)" || { echo "give DATA=DIR, the folder records100 of PTB-XL"; exit 2; }
	@echo "== training on PTB-XL and evaluating on fold 9; runs in artifacts/runs"
	$(RUN) -m src labels ptbxl --root $(DATA) --rate 100 --task superclass+all --out logs/ptbxl.csv
	$(RUN) -m src preprocess --mapping logs/ptbxl.csv --data ptbxl=$(DATA) --fs 100 --n-samples 1000 --out $(PTBXL)
	$(RUN) -m src train --processed $(PTBXL) --config recipes/ptbxl_base.json --run ptbxl_base --resume
	$(RUN) -m src train --processed $(PTBXL) --config recipes/ptbxl_all.json --run ptbxl_all --resume
	$(RUN) -m experiments.keep_classes artifacts/runs/ptbxl_base/models/best.pth artifacts/runs/ptbxl_base/models/superclass.pth NORM MI STTC CD HYP
	$(RUN) -m experiments.keep_classes --without artifacts/runs/ptbxl_all/models/best.pth artifacts/runs/ptbxl_all/models/statements.pth MI STTC CD HYP
	for network in ptbxl_base/superclass ptbxl_all/statements; do \
	    run=artifacts/runs/$$(dirname $$network) name=$$(basename $$network).pth; \
	    $(RUN) -m src recalibrate --checkpoint $$run/models/$$name --processed $(PTBXL) --coverage 0.9 --out $$run/$$name && \
	    $(RUN) -m src evaluate --checkpoint $$run/$$name --processed $(PTBXL) --split val --intervals 1000 --unlike --save $$run/$$name --out $$run || exit 1; \
	done

smoke: env
	$(RUN) -m src smoke

clean:
	rm -rf artifacts/processed artifacts/models artifacts/logs artifacts/tensorboard artifacts/mlruns artifacts/mlflow_run.txt artifacts/*.json artifacts/*.npz artifacts/*.ipynb artifacts/*.html figures/*.png figures/*.pdf figures/*.svg
