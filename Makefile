# SPDX-License-Identifier: Apache-2.0
# `make help` says what there is.

VERSION    := 0.1.0
BUILD      ?= build
PREFIX     ?= /usr/local
MOUNTPOINT ?= mnt
VENV       := build/venv
PYTEST     := $(VENV)/bin/python -m pytest
TESTS      ?= tests/hub tests/integration
JOBS        = -j$(shell nproc)
# `make V=1` shows the compiler's command lines.
Q          := $(if $(V),,@)

PKGS       := fuse3 sqlite3 libcjson libxxhash libcurl libcrypto
WARNINGS   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wcast-qual \
              -Wwrite-strings -Wundef -Wformat=2 -Wvla -Wimplicit-fallthrough
ifeq ($(WERROR),1)
WARNINGS   += -Werror
endif
CFLAGS     ?= -O2 -g
# Asked for once, and only when something is compiled: on a new machine pkg-config is not there yet.
PKG_CFLAGS  = $(eval PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS)))$(PKG_CFLAGS)
PKG_LIBS    = $(eval PKG_LIBS := $(shell pkg-config --libs $(PKGS)))$(PKG_LIBS)
BASE_CFLAGS = -std=gnu17 $(WARNINGS) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DMODELMOUNT_VERSION='"$(VERSION)"' -I.
ALL_CFLAGS  = $(BASE_CFLAGS) -pthread -fstack-protector-strong $(PKG_CFLAGS) $(CFLAGS)
ALL_LDFLAGS = -pthread $(LDFLAGS)

SOURCES    := $(wildcard cache/*.c fs/*.c cli/*.c)
UNIT_SRC   := $(wildcard tests/unit/test_*.c)
C_FILES    := $(SOURCES) $(wildcard cache/*.h fs/*.h cli/*.h tests/*/*.c tests/*/*.h)
SCRIPTS    := contrib/install-deps contrib/test-venv contrib/mount-own-cache .ci/run
OBJ        := $(SOURCES:%.c=$(BUILD)/%.o)
UNIT_BIN   := $(UNIT_SRC:tests/unit/%.c=$(BUILD)/unit/%)
FUZZ_BIN   := $(patsubst tests/fuzz/%.c,build-fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))
# Each may use those to its right.
UNIT_LIBS  := $(BUILD)/libcli.a $(BUILD)/libfs.a $(BUILD)/libcache.a

.DEFAULT_GOAL := all
.PHONY: all help mount unmount venv unit unit-programs integration check bench format lint sanitize fuzz install uninstall clean FORCE

all: $(BUILD)/modelmount ## build build/modelmount

$(BUILD)/modelmount: $(OBJ)
	@echo 'link    $@'
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $(OBJ) $(PKG_LIBS)

$(BUILD)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	@echo 'compile $<'
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Other flags: everything is built anew.
$(BUILD)/flags: export FLAGS = $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@printf '%s\n' "$$FLAGS" | cmp -s - $@ || printf '%s\n' "$$FLAGS" >$@

$(BUILD)/libcli.a: $(filter-out $(BUILD)/cli/main.o,$(filter $(BUILD)/cli/%,$(OBJ)))
$(BUILD)/libcache.a: $(filter $(BUILD)/cache/%,$(OBJ))
$(BUILD)/libfs.a: $(filter $(BUILD)/fs/%,$(OBJ))
$(UNIT_LIBS):
	@rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/unit/%: tests/unit/%.c $(UNIT_LIBS) $(BUILD)/flags
	@mkdir -p $(@D)
	@echo 'compile $<'
	$(Q)$(CC) $(ALL_CFLAGS) -MMD -MP -MF $@.d $(ALL_LDFLAGS) -o $@ $< $(UNIT_LIBS) $(PKG_LIBS) -lcmocka

help: ## this list
	@echo 'make [TARGET] [BUILD=build] [PREFIX=/usr/local] [DESTDIR=] [MOUNTPOINT=mnt] [WERROR=1]'
	@sed -n 's/^\([a-z]*\):.*## /  \1	/p' Makefile | expand -t 14

mount: ## install what the build needs, build, mount your cache at MOUNTPOINT=mnt
	contrib/install-deps
	$(MAKE) $(JOBS) all
	@contrib/mount-own-cache $(BUILD)/modelmount '$(MOUNTPOINT)'

unmount: ## unmount MOUNTPOINT
	$(BUILD)/modelmount unmount '$(MOUNTPOINT)'

check: ## install what the tests need, build, run all tests
	contrib/install-deps --tests
	$(MAKE) $(JOBS) all unit-programs
	$(MAKE) venv unit integration

venv:
	contrib/test-venv build

unit-programs: $(UNIT_BIN)

unit: $(UNIT_BIN)
	@for t in $(UNIT_BIN); do echo "== $$t"; $$t || exit 1; done

integration: $(BUILD)/modelmount $(BUILD)/unit/test_publish
	MODELMOUNT='$(abspath $(BUILD)/modelmount)' $(PYTEST) $(PYTEST_ARGS) $(TESTS)

bench: ## measure against the bare file system; the table is in tests/bench/README.md
	contrib/install-deps --tests --bench
	$(MAKE) $(JOBS) all
	$(MAKE) venv
	python3 tests/bench/bench.py --modelmount '$(BUILD)/modelmount' $(BENCH_ARGS)

format: ## lay out the C files by .clang-format
	clang-format -i $(C_FILES)

lint: ## layout, static analysis, warnings as errors with gcc and clang, scripts, manual
	contrib/install-deps --tests --lint
	@echo clang-format
	@clang-format --dry-run -Werror $(C_FILES)
	$(MAKE) $(JOBS) BUILD=build-gcc CC=gcc WERROR=1 all unit-programs
	$(MAKE) $(JOBS) BUILD=build-clang CC=clang WERROR=1 all unit-programs
	@echo cppcheck
	@cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr --error-exitcode=1 \
	    --suppress=missingIncludeSystem --suppress=resourceLeak -D_GNU_SOURCE -DMODELMOUNT_VERSION='"$(VERSION)"' -I. $(SOURCES)
	@echo clang-tidy
	@printf '%s\n' $(SOURCES) | xargs -P 2 -I '{}' clang-tidy --quiet '{}' -- $(BASE_CFLAGS) $(PKG_CFLAGS) 2>/dev/null
	shellcheck $(SCRIPTS) contrib/completions/modelmount.bash
	mandoc -Tlint -Wwarning man/modelmount.1

# The daemon's stderr is gone once it is in the background, so its reports are files, and there shall be none.
ASAN        := build-asan/reports
TSAN        := build-tsan/reports
ASAN_CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
TSAN_CFLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
sanitize: ## all tests under ASan and UBSan, unit and concurrency tests under TSan
	contrib/install-deps --tests
	$(MAKE) venv
	rm -rf $(ASAN) $(TSAN) && mkdir -p $(ASAN) $(TSAN) && chmod 1777 $(ASAN) $(TSAN)
	$(MAKE) $(JOBS) BUILD=build-asan CFLAGS='$(ASAN_CFLAGS)' all unit-programs
	ASAN_OPTIONS=suppressions=$(abspath tests/asan.supp):log_path=$(abspath $(ASAN))/asan \
	UBSAN_OPTIONS=print_stacktrace=1:log_path=$(abspath $(ASAN))/ubsan \
	    $(MAKE) BUILD=build-asan CFLAGS='$(ASAN_CFLAGS)' TESTS=tests/integration unit integration \
	    || { cat $(ASAN)/* 2>/dev/null; exit 1; }
	@! cat $(ASAN)/* 2>/dev/null
	$(MAKE) $(JOBS) BUILD=build-tsan CFLAGS='$(TSAN_CFLAGS)' all unit-programs
	TSAN_OPTIONS=log_path=$(abspath $(TSAN))/tsan \
	    $(MAKE) BUILD=build-tsan CFLAGS='$(TSAN_CFLAGS)' PYTEST_ARGS='-m concurrency' unit integration \
	    || { cat $(TSAN)/* 2>/dev/null; exit 1; }
	@! cat $(TSAN)/* 2>/dev/null

FUZZ_SECONDS ?= 60
fuzz: ## what strangers write, for FUZZ_SECONDS=60 each
	contrib/install-deps --lint
	$(MAKE) $(JOBS) BUILD=build-fuzz CC=clang CFLAGS='-O1 -g -fsanitize=fuzzer-no-link,address,undefined' $(FUZZ_BIN)
	for program in $(FUZZ_BIN); do \
	    mkdir -p "$$program.corpus" && \
	    $$program -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 "$$program.corpus" || exit 1; \
	done

build-fuzz/fuzz_%: tests/fuzz/fuzz_%.c build-fuzz/libcache.a
	$(Q)$(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< build-fuzz/libcache.a $(PKG_LIBS)

BIN        = $(DESTDIR)$(PREFIX)/bin/modelmount
MAN        = $(DESTDIR)$(PREFIX)/share/man/man1/modelmount.1
BASH_COMP  = $(DESTDIR)$(PREFIX)/share/bash-completion/completions/modelmount
ZSH_COMP   = $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_modelmount
FISH_COMP  = $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/modelmount.fish
UNIT_FILE  = $(DESTDIR)$(PREFIX)/lib/systemd/user/modelmount@.service

install: $(BUILD)/modelmount ## the program, its manual, completions and a systemd user unit to PREFIX
	install -D -m 755 $(BUILD)/modelmount '$(BIN)'
	install -D -m 644 man/modelmount.1 '$(MAN)'
	install -D -m 644 contrib/completions/modelmount.bash '$(BASH_COMP)'
	install -D -m 644 contrib/completions/_modelmount '$(ZSH_COMP)'
	install -D -m 644 contrib/completions/modelmount.fish '$(FISH_COMP)'
	install -D -m 644 contrib/systemd/modelmount@.service '$(UNIT_FILE)'

uninstall: ## remove them
	rm -f '$(BIN)' '$(MAN)' '$(BASH_COMP)' '$(ZSH_COMP)' '$(FISH_COMP)' '$(UNIT_FILE)'

clean: ## remove all that was built
	rm -rf build build-asan build-tsan build-fuzz build-gcc build-clang $(BUILD)

-include $(OBJ:.o=.d) $(UNIT_BIN:=.d)
