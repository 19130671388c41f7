# make bench · make test · make check · make perf · make fuzz · make docs
# The first of them makes .venv and installs everything; after that nothing is installed again
# until pyproject.toml or constraints.txt changes.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
RELEASE := .venv-release
TOOLS := $(RELEASE)/.ready
SITE := $(VENV)/.ready-docs
ARGS ?=
# Tests run in one process for each core, at most eight; each computes with one thread.
PYTEST := OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder
PAGES := README.md CONTRIBUTING.md docs/your-model.md docs/attacks.md docs/verified.md docs/clusters.md docs/what-the-paper-could-not-see.md docs/the-paper.md docs/paper-table.md docs/training.md
PROSE := benchmark model_zoo tools examples setup.py README.md CONTRIBUTING.md docs CHANGELOG.md
SECONDS ?= 120
SEED ?= 0
# Of the runner, what computes numbers in ways of its own: chains of attacks, batches, survivors, what is kept.
PORTABLE := tests/attacks tests/api/test_evaluate.py tests/verify tests/conformance tests/models/test_ensemble.py \
	tests/metrics/test_transfer.py $(addprefix tests/runner/test_,$(addsuffix .py, adaptive_runs batch_loop chains \
	examinations execute forward_only kept_examples no_class target_rate))
RUNS := $(patsubst %/run.json,%,$(wildcard results/*/run.json))

.PHONY: bench test test-portable test-slow fuzz check perf readme records docs wheel release advisories clean \
	install-locked lock

bench: $(READY)
	$(BIN)/python run_benchmark.py run $(ARGS)

test: $(READY)
	$(PYTEST) -m "not slow" $(ARGS)

# Results must not depend on the processor: the plainest kernels of torch, and sums in another order.
test-portable: $(READY)
	ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
		$(PYTEST) -m "not slow" --other-kernels $(PORTABLE) $(ARGS)

test-slow: $(READY)
	$(PYTEST) -m slow $(ARGS)

# Mutants of the files that Gibbon reads: SECONDS are divided among the targets, or ARGS="--cases 1000"
# gives their number; ARGS may name targets.  Another SEED gives other mutants.
fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m tools.fuzz --seconds $(SECONDS) --seed $(SEED) $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tools.unused_code
	$(BIN)/codespell $(PROSE)
	$(BIN)/python -m pytest --doctest-modules benchmark/gibbon model_zoo/gibbon_zoo tools -q \
		--ignore tools/docs/site_docstrings.py
	for page in $(PAGES) $(RUNS); do $(BIN)/python -m tools.docs.regenerate $$page --check || exit 1; done
	$(BIN)/python -m tools.docs.flag_pages --check

perf: $(READY)
	$(BIN)/python -m pytest tests/performance --speed $(ARGS)

readme: $(READY)
	for page in $(RUNS) $(PAGES); do $(BIN)/python -m tools.docs.regenerate $$page || exit 1; done
	PYTHONPATH=. $(BIN)/python tests/performance/page.py docs/performance.md
	$(BIN)/python -m tools.docs.flag_pages

records: $(READY)
	$(BIN)/python -m tools.records.remake $(ARGS)

# The site, in site/, without a network; a broken link or a public name without a docstring fails.
docs: $(READY) $(SITE)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

wheel: $(READY)
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

# Wheel and source archive, the software bill of materials of what they need, and checksums, all in
# dist/; docs/security.md says what is checked by hand before they are published.
release: $(READY) $(TOOLS)
	rm -rf dist
	$(RELEASE)/bin/pyproject-build --outdir dist .
	$(BIN)/python -m tools.release.check_archives dist
	$(BIN)/python -m tools.release.runtime_requirements > dist/requirements.txt
	PYTHONWARNINGS=ignore $(RELEASE)/bin/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible \
		--output-format JSON --output-file dist/sbom.cdx.json dist/requirements.txt
	$(BIN)/python -m tools.release.dependency_graph dist/sbom.cdx.json
	cd dist && sha256sum *.whl *.tar.gz requirements.txt sbom.cdx.json > SHA256SUMS
	@echo "Sign-off list: docs/security.md, \"Releases\""

# Known vulnerabilities of the exact versions; needs a network with the advisory service, and fails
# if a package could not be looked up.
advisories: $(READY) $(TOOLS)
	$(BIN)/python -m tools.release.advisories $(RELEASE)/bin/pip-audit constraints.txt $(ARGS)

$(SITE): pyproject.toml constraints.txt
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check \
		--quiet --editable ".[docs]"
	@touch $(SITE)

$(TOOLS): tools/release/requirements.txt
	@test -x $(RELEASE)/bin/python || $(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --disable-pip-version-check --quiet --requirement $<
	@touch $(TOOLS)

$(READY): pyproject.toml constraints.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV) (torch and torchvision are large: this takes minutes once)"
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --disable-pip-version-check \
		--quiet --editable ".[dev]"
	@touch $(READY)

# The environment, of files whose hashes are in requirements-locked.txt alone; the build backend is among
# them, and nothing else is downloaded or built.
install-locked:
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --only-binary :all: \
		--requirement requirements-locked.txt
	$(BIN)/python -m pip install --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Writes requirements-locked.txt, after a change of constraints.txt; ARGS="--index URL" names the index.
lock: $(READY)
	$(BIN)/python -m tools.release.lock $(ARGS)

clean:
	rm -rf $(VENV) $(RELEASE) build dist site *.egg-info
