PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo check test test-one-core test-other-core docs demo-weights

demo: $(VENV)/.installed
	$(BIN)/python tools/demo.py

OF_CODECS := tests/test_*.py $(patsubst %,tests/%,bitstream classical encoder entropy io models runtime zoo)

# For the loop of writing: minutes, on one core.
check: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --quick $(OF_CODECS)

# The second environment lies over the first and replaces its OpenMMLab packages. What is
# run in both takes the longest: two cores have about half of all tests each.
test: $(VENV)/.installed $(VENV)-upstream/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(MAKE) --jobs 2 test-one-core test-other-core

OF_OTHER_CORE := tests/docs tests/evaluation tests/tools

test-one-core:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests $(OF_OTHER_CORE:%=--ignore=%)
	$(BIN)/python -m pytest tests --gpu

test-other-core:
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(OF_OTHER_CORE)
	OMP_NUM_THREADS=1 $(VENV)-upstream/bin/python -m pytest tests/detection tests/compat

$(VENV)/.installed: setup.py
	@echo "Installing into $(VENV): 7 GB, some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e .[openmmlab,dev]
	touch $@

$(VENV)-upstream/.installed: $(VENV)/.installed
	$(PYTHON) -m venv $(VENV)-upstream
	$(BIN)/python -c "import site; print(site.getsitepackages()[0])" \
		> $$($(VENV)-upstream/bin/python -c "import site; print(site.getsitepackages()[0])")/base.pth
	$(VENV)-upstream/bin/pip install --quiet -e .[openmmlab-upstream]
	touch $@

# Of sources alone, in an environment of its own without torch. build/docs/index.html
docs: $(VENV)-docs/.installed
	NO_MKDOCS_2_WARNING=1 $(VENV)-docs/bin/mkdocs build --strict --quiet

$(VENV)-docs/.installed: setup.py
	$(PYTHON) -m venv $(VENV)-docs
	$(VENV)-docs/bin/pip install --quiet mkdocs-material "mkdocstrings[python]>=1"  # setup.py: DOCS
	touch $@

# Makes compressai_hm/zoo/weights/demo_*.pth again: 1 to 2 hours on 2 cores.
demo-weights: $(VENV)/.installed
	$(BIN)/python tools/train_weights.py demo
