# make demo        a .venv, the package, and answers about a bundled picture
# make test        the same .venv with the development extras, and the whole CPU suite
# make test-all    the suite with what make test leaves out: tests marked slow or gpu
# make native      the native kernels, compiled anew where their sources changed; the targets above do so too
# make sanitize    the kernels' own tests, under the sanitizers for addresses and undefined behaviour
# make lint        style and layers
# make docs        the parts of docs/ that are printed by running the code
# make bench       us beside llama.cpp, transformers and OpenVINO at LLaVA-1.5-7B shapes, and alone, part by part: into
#                  benchmarks/ and the pages that show it, some 25 minutes; the first time it builds llama.cpp (minutes
#                  more); PEERS="llama.cpp" chooses among them
# make compatibility    docs/compatibility.md: every comparison with another implementation, run anew

PYTHON ?= python3
BIN := .venv/bin
PIP_ARGUMENTS := --disable-pip-version-check install --quiet
PIP := $(BIN)/python -m pip $(PIP_ARGUMENTS) -c constraints.txt
NATIVE := src/llavakit/kernels/native
NATIVE_SOURCES := $(wildcard $(NATIVE)/*)
CMAKE := $(BIN)/cmake -S $(NATIVE) -G Ninja -DCMAKE_MAKE_PROGRAM=$(CURDIR)/$(BIN)/ninja
SANITIZERS := -fsanitize=address,undefined
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := demo
.PHONY: demo test test-all native sanitize lint docs bench compatibility clean

demo: .venv/.native
	@$(BIN)/llava chat examples/drawing.png < examples/questions.txt

test: .venv/.development .venv/.native sanitize
	$(PYTEST) -m "not slow and not gpu"

test-all: .venv/.development .venv/.native sanitize
	$(PYTEST)

native: .venv/.native

sanitize: build/.sanitized

lint: .venv/.development
	$(BIN)/ruff check .
	$(BIN)/lint-imports

docs: .venv/.package
	$(BIN)/python docs/make_map.py
	$(BIN)/python docs/make_rosetta.py
	$(BIN)/python docs/make_quantization.py
	$(BIN)/python docs/make_walkthrough.py
	$(BIN)/python docs/make_speed.py

# With arguments of one's own, for all of them: make bench BENCH="--rounds 7 --scheme int8"
SHAPES := --shapes llava-1.5-7b --scheme int4-g128
bench: .venv-bench/.peers .venv/.native
	.venv-bench/bin/llava bench peers $(PEERS) $(SHAPES) --kv-cache int8 --out benchmarks/peers.json $(BENCH)
	.venv-bench/bin/llava bench latency $(SHAPES) --kv-cache int8 --out benchmarks/latency.json $(BENCH)
	for kept in float16 int8; do .venv-bench/bin/llava bench throughput $(SHAPES) --steps 8 --kv-cache $$kept \
	  --out benchmarks/throughput-$$kept.json $(BENCH) || exit; done
	.venv-bench/bin/python docs/make_speed.py

compatibility: .venv/.development
	OMP_NUM_THREADS=1 $(BIN)/python docs/make_compatibility.py

clean:
	rm -rf .venv .venv-bench build dist src/llavakit/kernels/_native.* src/*.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache .grimp_cache

# The files below are stamps: a second `make` finds them and installs nothing.

.venv/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "llavakit needs Python 3.11 or newer, and $(PYTHON) is not. Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# What builds first, and no build isolation: so constraints.txt pins the build as well.
.venv/.package: .venv/.python pyproject.toml constraints.txt
	@echo "Installing llavakit and PyTorch into .venv: a few minutes, once."
	$(PIP) scikit-build-core nanobind cmake ninja
	$(PIP) --no-build-isolation -e .
	@touch $@

.venv/.development: .venv/.package
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@

# Without a compiler, or where it fails, llavakit works all the same, only slower; `llava show` says so. The next `make`
# tries again. What is compiled lies in .venv, because it fits that Python alone.
.venv/.native: .venv/.package $(NATIVE_SOURCES)
	@if { $(CMAKE) -B .venv/native -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python && \
	  $(BIN)/cmake --build .venv/native && $(BIN)/cmake --install .venv/native --prefix src; } >.venv/native.log 2>&1; \
	then touch $@; else rm -f src/llavakit/kernels/_native.*; \
	  echo "The native kernels were not built, .venv/native.log says why; their torch twins run instead." >&2; fi

build/.sanitized: .venv/.package $(NATIVE_SOURCES) $(wildcard tests/kernels/native/*)
	@mkdir -p build
	@if echo 'int main() {}' | c++ $(SANITIZERS) -x c++ -o build/probe - 2>/dev/null && build/probe; then \
	  $(CMAKE) -B build/sanitize -DLLAVAKIT_TESTS=ON "-DLLAVAKIT_FLAGS=$(SANITIZERS)" >build/sanitize.log && \
	  $(BIN)/cmake --build build/sanitize >>build/sanitize.log && build/sanitize/kernel_tests; \
	else echo "No C++ compiler with sanitizers: the kernels' own tests are skipped." >&2; fi
	@touch $@

# The others, in a place of their own: their versions are those of benchmarks/requirements.txt, which the project's own
# tests do not share. llama.cpp is compiled for this very processor, as whoever wants speed would; where that has AMX, GCC
# before 14 takes all but the first bytes of a tile's configuration for dead stores, and llama.cpp would crash.
.venv-bench/.peers: .venv/.package benchmarks/requirements.txt
	@echo "Installing what llavakit is compared with into .venv-bench, and building llama.cpp: some minutes, once."
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip $(PIP_ARGUMENTS) -c constraints.txt scikit-build-core nanobind cmake ninja
	.venv-bench/bin/python -m pip $(PIP_ARGUMENTS) -c constraints.txt --no-build-isolation -e . transformers
	CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF \
	  -DCMAKE_CXX_FLAGS='-fno-dse -fno-tree-dse'" \
	  .venv-bench/bin/python -m pip $(PIP_ARGUMENTS) --no-binary llama-cpp-python -r benchmarks/requirements.txt
	@touch $@
