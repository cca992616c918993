# Short names for what CONTRIBUTING.md says; "make PYTHON=python3.13 asan" takes another interpreter.
PYTHON ?= python
SECONDS ?= 600
ASAN = .venv-asan/bin
LIBRARY = $(shell gcc -print-file-name=$(1))

.PHONY: test fuzz asan valgrind wheels docs

test:
	$(PYTHON) -m pytest

fuzz:
	mkdir -p build/fuzz
	$(PYTHON) tests/fuzz.py -max_total_time=$(SECONDS) -artifact_prefix=build/fuzz- build/fuzz

asan:
	$(PYTHON) -m venv .venv-asan
	CC=gcc CFLAGS='-fsanitize=address,undefined -fno-omit-frame-pointer -g -O1' LDFLAGS='-fsanitize=address,undefined' \
		PVAFAST_BUILD=require $(ASAN)/pip install --no-cache-dir '.[test]'
	rm -f build/asan.* build/ubsan.*
	LD_PRELOAD="$(call LIBRARY,libasan.so) $(call LIBRARY,libubsan.so) $(call LIBRARY,libstdc++.so)" \
		ASAN_OPTIONS=detect_leaks=0:log_path=build/asan UBSAN_OPTIONS=print_stacktrace=1:log_path=build/ubsan \
		PYTHONMALLOC=malloc PVAFAST_BACKEND=c \
		$(ASAN)/python -m pytest --backend c -p no:cacheprovider --ignore=tests/test_build.py
	! ls build/asan.* build/ubsan.* 2>/dev/null

valgrind:
	mkdir -p build
	PYTHONMALLOC=malloc PVAFAST_BACKEND=c valgrind --leak-check=full --show-leak-kinds=definite --num-callers=40 --xml=yes \
		--xml-file=build/valgrind.xml $(PYTHON) tests/errorpaths.py
	$(PYTHON) tests/errorpaths.py build/valgrind.xml

wheels:
	bash tools/wheels.sh $(PYTHON)

docs:
	$(PYTHON) -m sphinx -W --keep-going docs build/docs/html
	$(PYTHON) -m sphinx -W --keep-going -b doctest docs build/docs/doctest
