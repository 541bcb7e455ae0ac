# SPDX-License-Identifier: MIT
#
# Build, test and install urd.  `make help' lists the targets.
#
# Yours to set: CC CFLAGS CPPFLAGS LDFLAGS LDLIBS PREFIX DESTDIR BINDIR LIBDIR
# INCLUDEDIR DATADIR O (build folder) V=1 (show commands) WERROR=0 MODE.
# Each MODE has a tree of objects of its own, so none disturbs another; the
# programs of the release mode stand directly in $(O).

MAKEFLAGS += -r
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

ifeq ($(origin CC),default)
CC := gcc
endif
O ?= build
MODE ?= release
WERROR ?= 1
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
PKG_CONFIG ?= pkg-config
PYTHON ?= /usr/bin/python3
CLANG ?= clang
CLANG_FORMAT ?= $(or $(shell command -v clang-format-14),clang-format)
JOBS ?= $(shell nproc)
FUZZ_SECONDS ?= 60
SEEDS ?= 1000
FIRST ?= 1
SUITE_SECONDS ?= 420

VERSION := $(shell cat VERSION)
SOVERSION := 0

# --- modes -------------------------------------------------------------------

FLAGS_release := -O2 -g
FLAGS_debug := -O0 -g -DURD_DEBUG
FLAGS_asan := -O1 -g -DURD_DEBUG -fno-omit-frame-pointer -fsanitize=address,undefined \
	-fno-sanitize-recover=all
FLAGS_tsan := -O1 -g -DURD_DEBUG -fno-omit-frame-pointer -fsanitize=thread
FLAGS_cov := -O0 -g --coverage -fprofile-update=atomic
FLAGS_fuzz := -O1 -g -DURD_DEBUG -fno-omit-frame-pointer \
	-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

ifeq ($(FLAGS_$(MODE)),)
$(error MODE is one of release debug asan tsan cov fuzz, not "$(MODE)")
endif

# D holds the objects of the mode, P its programs.
D := $(O)/$(MODE)/obj
P := $(if $(filter release,$(MODE)),$(O),$(O)/$(MODE))

# --- flags -------------------------------------------------------------------

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes \
	-Wold-style-definition -Wpointer-arith -Wwrite-strings -Wundef -Wvla \
	-Wimplicit-fallthrough -Wswitch-enum -Wcast-qual -Wformat=2 \
	$(if $(filter-out 0,$(WERROR)),-Werror)

# Asked once, and only by a target that compiles: `make help' needs no library.
# Debian 12 calls the MessagePack library msgpack, Debian 13 msgpack-c.
once = $(eval $(1) := $(2))$($(1))
MSGPACK = $(call once,MSGPACK,$(shell $(PKG_CONFIG) --exists msgpack-c && echo msgpack-c || \
	echo msgpack))
PKGS_LIB = liburing $(MSGPACK)
PKGS_CLI = libconfuse jansson
PKG_CFLAGS = $(call once,PKG_CFLAGS,$(shell $(PKG_CONFIG) --cflags $(PKGS_LIB) $(PKGS_CLI)))
LIBS = $(call once,LIBS,$(shell $(PKG_CONFIG) --libs $(PKGS_LIB)))
LIBS_CLI = $(call once,LIBS_CLI,$(shell $(PKG_CONFIG) --libs $(PKGS_CLI)))
LIBS_TEST = $(call once,LIBS_TEST,$(shell $(PKG_CONFIG) --libs criterion))

ALL_CPPFLAGS = -D_GNU_SOURCE -DURD_VERSION='"$(VERSION)"' -Isrc -Iinclude $(PKG_CFLAGS) \
	$(CPPFLAGS)
ALL_CFLAGS = -std=gnu17 $(WARN) $(FLAGS_$(MODE)) -fPIC -fvisibility=hidden -pthread $(CFLAGS)
ALL_LDFLAGS = $(FLAGS_$(MODE)) -pthread -Wl,--as-needed -Wl,-z,relro,-z,now $(LDFLAGS)

# --- what there is -----------------------------------------------------------

LAYERS := base wire fsm ring pool front host
SRC_LIB := $(sort $(wildcard $(LAYERS:%=src/%/*.c) src/sdk/*.c))
SRC_CLI := $(sort $(wildcard src/cli/*.c))
SRC_UNIT := $(sort $(wildcard tests/unit/test_*.c))
SRC_E2E := $(sort $(wildcard tests/e2e/test_*.c))
SRC_TLIB := $(sort $(wildcard tests/lib/*.c))
SRC_WORKERS := $(sort $(wildcard tests/workers/*.c))
SRC_STRESS := $(sort $(wildcard tests/stress/*.c))
SRC_SIM := $(sort $(wildcard tests/sim/*.c))
SRC_FUZZ := $(sort $(wildcard tests/fuzz/fuzz_*.c))
SRC_PERF := $(sort $(wildcard perf/*.c))
SRC_TOOLS := $(sort $(wildcard scripts/*.c))
SRC_EXAMPLES := $(sort $(wildcard docs/examples/*.c))
HEADERS := $(sort $(wildcard include/urd/*.h src/*/*.h))
API := $(sort $(wildcard include/urd/*.h))
PY_CHECKS := $(sort $(wildcard tests/e2e/sdk_check.py tests/e2e/check_*.py))
SDK := $(sort $(wildcard src/sdk/python/*.py src/sdk/php/*.php src/sdk/node/*.mjs))
C_STYLED := $(sort $(HEADERS) $(SRC_LIB) $(SRC_CLI) $(wildcard tests/*/*.[ch] perf/*.[ch]) \
	$(SRC_TOOLS) $(SRC_EXAMPLES))

SOURCES := $(SRC_LIB) $(SRC_CLI) $(SRC_UNIT) $(SRC_E2E) $(SRC_TLIB)

objs = $(patsubst %.c,$(D)/%.o,$(1))
OBJ_LIB := $(call objs,$(SRC_LIB))
OBJ_CLI := $(call objs,$(SRC_CLI))
OBJ_TLIB := $(call objs,$(SRC_TLIB))
OBJ_UNIT := $(call objs,$(SRC_UNIT))
OBJ_E2E := $(call objs,$(SRC_E2E))
OBJ_SIM := $(call objs,$(SRC_SIM))
OBJ_SINGLE := $(call objs,$(SRC_WORKERS) $(SRC_STRESS) $(SRC_FUZZ) $(SRC_PERF) $(SRC_TOOLS) \
	$(SRC_EXAMPLES))

LIB_A := $(P)/liburd.a
LIB_SO := $(P)/liburd.so
URD := $(if $(SRC_CLI),$(P)/urd)
UNIT := $(if $(SRC_UNIT),$(P)/tests/unit)
E2E := $(if $(SRC_E2E),$(P)/tests/e2e)
SIM := $(P)/sim/sim
WORKERS := $(SRC_WORKERS:tests/workers/%.c=$(P)/tests/workers/%)
STRESS := $(SRC_STRESS:tests/stress/%.c=$(P)/tests/stress/%)
FUZZERS := $(SRC_FUZZ:tests/fuzz/%.c=$(O)/fuzz/%)
PERF := $(SRC_PERF:perf/%.c=$(P)/perf/%)
TOOLS := $(SRC_TOOLS:scripts/%.c=$(P)/tools/%)
EXAMPLES := $(SRC_EXAMPLES:docs/examples/%.c=$(P)/examples/%)

ifeq ($(V),1)
Q :=
say =
else
Q := @
# make -s means it
say = $(if $(findstring s,$(firstword -$(MAKEFLAGS))),,@printf '  %-7s %s\n' '$(1)' '$(2)')
endif

# A make below this one: shares the job server if there is one, else starts one.
SUBMAKE = $(MAKE) --no-print-directory $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))

# --- targets for people ------------------------------------------------------

.PHONY: all tests examples perf demo check sim fuzz asan tsan cov mutate lint format docs
.PHONY: install uninstall dist clean help deps
.PHONY: check-run stress-run fuzz-run cov-show lint-run check-headers FORCE

all: $(URD) $(LIB_A) $(if $(filter release debug,$(MODE)),$(LIB_SO)) ## build the program and the library

tests: all $(UNIT) $(E2E) $(WORKERS) $(EXAMPLES) ## build the test programs, run nothing

examples: all $(EXAMPLES) ## build the programs of docs/examples

perf: all $(PERF) ## build the measuring programs

demo: ## install what is missing, build, and show urd at work
	$(Q)scripts/install-deps demo
	$(Q)$(SUBMAKE) all
	$(Q)$(PYTHON) scripts/demo.py $(P)

check: ## install what is missing, build, and run all tests
	$(Q)scripts/install-deps check
	$(Q)$(SUBMAKE) tests perf
	$(Q)$(MAKE) --no-print-directory check-run

asan: ## the tests under address and undefined-behaviour sanitizers
	$(Q)scripts/install-deps check
	$(Q)$(SUBMAKE) MODE=asan tests perf
	$(Q)$(MAKE) --no-print-directory MODE=asan check-run

tsan: ## the stress programs under the thread sanitizer
	$(Q)$(SUBMAKE) MODE=tsan all
	$(Q)$(MAKE) --no-print-directory MODE=tsan stress-run

cov: ## the tests with line coverage, shown per file
	$(Q)scripts/install-deps check
	$(Q)$(SUBMAKE) MODE=cov tests
	$(Q)find $(O)/cov -name '*.gcda' -delete
	$(Q)rc=0; $(MAKE) --no-print-directory MODE=cov check-run || rc=1; \
	$(MAKE) --no-print-directory MODE=cov cov-show; exit $$rc

sim: ## SEEDS (1000) simulated runs from FIRST (1) on, after those that once failed
	$(Q)$(SUBMAKE) $(SIM)
	$(Q)$(SIM) --list tests/sim/SEEDS --first $(FIRST) --seeds $(SEEDS) \
		$(addprefix --seconds ,$(SIM_SECONDS)) --coverage

fuzz: ## the decoders against libFuzzer, FUZZ_SECONDS (60) in all
	$(Q)scripts/install-deps lint
	$(Q)$(SUBMAKE) MODE=fuzz CC=$(CLANG) $(FUZZERS)
	$(Q)$(MAKE) --no-print-directory MODE=fuzz CC=$(CLANG) fuzz-run

mutate: ## break the state tables cell by cell; the tests must notice
	$(Q)scripts/install-deps check
	$(Q)$(PYTHON) scripts/mutate.py

lint: ## layers, sizes, style, headers, generated documents, scripts
	$(Q)scripts/install-deps lint
	$(Q)$(SUBMAKE) $(TOOLS)
	$(Q)$(MAKE) --no-print-directory lint-run

format: ## put all C files into the house style
	$(call say,FORMAT,$(words $(C_STYLED)) files)
	$(Q)$(CLANG_FORMAT) -i $(C_STYLED)

docs: $(P)/tools/states ## write docs/states.md from the state tables, the list of docs/testing.md
	$(call say,GEN,docs/states.md)
	$(Q)$< >$(O)/states.md && mv $(O)/states.md docs/states.md
	$(call say,GEN,docs/testing.md)
	$(Q)$(PYTHON) scripts/weaknesses.py --write

deps: ## install the packages that a build needs
	$(Q)scripts/install-deps build

clean: ## remove everything that was built
	$(call say,CLEAN,$(O))
	$(Q)rm -rf '$(O)'

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile | expand -t 14
	@echo
	@echo '  MODE=release|debug|asan|tsan|cov  V=1  O=dir  WERROR=0  PREFIX=dir  DESTDIR=dir'

# --- objects and programs ----------------------------------------------------

# Says what is missing before the compiler does it in more words.
$(O)/.libs:
	@for p in $(PKGS_LIB) $(PKGS_CLI); do $(PKG_CONFIG) --exists $$p || miss="$$miss $$p"; done; \
	if [ -n "$$miss" ]; then echo "urd: missing:$$miss; install with: make deps" >&2; exit 1; fi
	@mkdir -p $(@D) && touch $@

$(D)/%.o: %.c Makefile VERSION | $(O)/.libs
	$(call say,CC,$<)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Tests find their own build's programs, whatever folder they are started in.
$(D)/tests/%.o: ALL_CPPFLAGS += -Itests -DURD_BUILD_DIR='"$(abspath $(P))"' \
	-DURD_SOURCE_DIR='"$(CURDIR)"'

# Changes when a source file comes or goes: what has gone must be linked out.
$(D)/sources: FORCE
	@mkdir -p $(@D); echo $(SOURCES) | cmp -s - $@ || echo $(SOURCES) >$@

# From scratch each time: an archive keeps members whose source has gone.
$(LIB_A): $(OBJ_LIB) $(D)/sources
	$(call say,AR,$@)
	@mkdir -p $(@D)
	$(Q)rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(LIB_SO): $(OBJ_LIB) $(D)/sources
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) -shared -Wl,-soname,liburd.so.$(SOVERSION) -Wl,-z,defs $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) \
		$(LIBS) $(LDLIBS)
	$(Q)ln -sf liburd.so $@.$(SOVERSION)

define link
	$(call say,LD,$@)
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o %.a,$^) $(1) $(LIBS) $(LDLIBS)
endef

$(P)/urd: $(OBJ_CLI) $(LIB_A) $(D)/sources
	$(call link,$(LIBS_CLI))

$(P)/tests/unit: $(OBJ_UNIT) $(OBJ_TLIB) $(filter-out %/main.o,$(OBJ_CLI)) $(LIB_A) \
	$(D)/sources
	$(call link,$(LIBS_TEST) $(LIBS_CLI))

$(P)/tests/e2e: $(OBJ_E2E) $(OBJ_TLIB) $(LIB_A) $(D)/sources | $(URD) $(WORKERS)
	$(call link,$(LIBS_TEST))

$(WORKERS) $(STRESS): $(P)/tests/%: $(D)/tests/%.o $(LIB_A)
	$(call link)

$(PERF): $(P)/perf/%: $(D)/perf/%.o $(LIB_A)
	$(call link,-lm)

# Its ring and spawner come before those of the library; a few calls are watched.
SIM_WRAP := urd_slot_fsm urd_slot_dispatch urd_slot_complete urd_job_answer slot_begin urd_slot_retire close listeners_init \
	urd_log_line
$(SIM): $(OBJ_SIM) $(LIB_A) $(D)/sources
	$(call link,$(SIM_WRAP:%=-Wl,--wrap=%))

$(TOOLS): $(P)/tools/%: $(D)/scripts/%.o $(LIB_A)
	$(call link)

$(EXAMPLES): $(P)/examples/%: $(D)/docs/examples/%.o $(LIB_A)
	$(call link)

ifeq ($(MODE),fuzz)
$(FUZZERS): $(O)/fuzz/%: $(D)/tests/fuzz/%.o $(LIB_A)
	$(call link,-fsanitize=fuzzer)
endif

-include $(patsubst %.o,%.d,$(OBJ_LIB) $(OBJ_CLI) $(OBJ_TLIB) $(OBJ_UNIT) $(OBJ_E2E) $(OBJ_SIM) $(OBJ_SINGLE))

# --- running tests -----------------------------------------------------------

# $(call suite,NAME,COMMAND): output is shown and kept in $(P)/log; a failure is
# remembered in rc, so that one bad suite does not hide the next.
suite = printf '  %-7s %s\n' TEST '$(1)'; \
	timeout $(SUITE_SECONDS) $(2) >$(P)/log/$(1).log 2>&1 </dev/null || \
	{ rc=1; echo "urd: $(1) failed" >&2; }; cat $(P)/log/$(1).log;

# Sanitizers report into files: a leak in a process that a test started, or in a
# test that passed, counts as well.
SANLOG = log_path=$(abspath $(P))/log/sanitizer:print_stacktrace=1

check-run:
	@rm -rf $(P)/log && mkdir -p $(P)/log
	@export ASAN_OPTIONS=$(SANLOG):$$ASAN_OPTIONS UBSAN_OPTIONS=$(SANLOG):$$UBSAN_OPTIONS; \
	rc=0; $(if $(UNIT),$(call suite,unit,$(UNIT))) $(if $(E2E),$(call suite,e2e,$(E2E))) \
	$(foreach c,$(PY_CHECKS),$(call suite,$(basename $(notdir $(c))),$(PYTHON) $(c) $(if $(filter %/sdk_check.py,$(c)),$(P)/tests/workers/echo,$(P)))) \
	for f in $(P)/log/sanitizer*; do [ ! -s $$f ] || { rc=1; cat $$f; }; done; \
	printf '  %-7s %s\n' LIST 'weaknesses and stories'; $(PYTHON) scripts/weaknesses.py || rc=1; \
	exit $$rc

stress-run: $(STRESS)
	@mkdir -p $(P)/log
	@rc=0; $(foreach s,$(STRESS),$(call suite,$(notdir $(s)),$(s))) exit $$rc

# Known inputs come from tests/fuzz/corpus, what is found stays in the build.
fuzz-run:
	@rc=0; ok=0; bad=0; for f in $(FUZZERS); do n=$${f##*/}; c=$(O)/fuzz/corpus/$$n; \
	s=tests/fuzz/corpus/$$n; mkdir -p $$c $(O)/fuzz/log; [ -d $$s ] || s=; \
	printf '  %-7s %s\n' FUZZ $$n; \
	if $$f -max_total_time=$$(( $(FUZZ_SECONDS) / $(words $(FUZZERS)) + 1 )) -timeout=10 \
	-rss_limit_mb=2048 -print_final_stats=1 -artifact_prefix=$(O)/fuzz/$$n- $$c $$s \
	>$(O)/fuzz/log/$$n.log 2>&1; then ok=$$((ok + 1)); grep number_of_executed $(O)/fuzz/log/$$n.log; \
	else bad=$$((bad + 1)); rc=1; tail -n 40 $(O)/fuzz/log/$$n.log; fi; done; \
	echo "fuzz: $$ok passed, $$bad failed"; exit $$rc

cov-show:
	@find $(D)/src -name '*.gcda' | xargs gcov -n 2>/dev/null | awk -F"'" '\
	/^File/ { f = $$2 } \
	/^Lines executed/ && f ~ /^src\/.*\.c$$/ { split($$0, a, /[:% ]+/); n = a[5]; \
		printf "%6.1f %%  %5d  %s\n", a[3], n, f; hit += a[3] * n / 100; all += n } \
	/^Lines executed/ { f = "" } \
	END { if (all) printf "%6.1f %%  %5d  total\n", 100 * hit / all, all }' | sort -k4

# --- lint --------------------------------------------------------------------

check-headers:
	@rc=0; for h in $(HEADERS); do $(CC) $(ALL_CPPFLAGS) $(ALL_CFLAGS) -fsyntax-only -x c $$h \
	|| { echo "$$h: does not compile alone"; rc=1; }; done; exit $$rc

# Each line is one question; all are asked even if one has a bad answer.
lint-run:
	@rc=0; ask() { printf '  %-7s %s\n' LINT "$$1"; shift; "$$@" || rc=1; }; \
	php_parses() { php -l $$1 >/dev/null; }; \
	ask tidy $(PYTHON) scripts/tidy.py; \
	ask format $(CLANG_FORMAT) --dry-run -Werror $(C_STYLED); \
	ask headers $(MAKE) --no-print-directory check-headers; \
	ask testing.md $(PYTHON) scripts/weaknesses.py --check; \
	$(if $(wildcard scripts/states.c),ask states.md diff -u docs/states.md <($(P)/tools/states);) \
	for f in $(wildcard scripts/*.py scripts/*/*.py tests/*/*.py perf/*.py src/sdk/python/*.py); do \
	ask $$f $(PYTHON) -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), sys.argv[1])' $$f; done; \
	for f in $(wildcard src/sdk/php/*.php tests/*/*.php scripts/*/*.php); do ask $$f php_parses $$f; done; \
	for f in $(wildcard src/sdk/node/*.mjs tests/*/*.mjs scripts/*/*.mjs); do ask $$f node --check $$f; done; \
	ask install-deps sh -n scripts/install-deps; ask .ci/run bash -n .ci/run; \
	exit $$rc

# --- install and pack --------------------------------------------------------

install: all ## install program, library, headers and SDKs below DESTDIR and PREFIX
	$(call say,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)install -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)/urd
	$(Q)$(if $(URD),install -m 755 $(URD) $(DESTDIR)$(BINDIR)/urd)
	$(Q)install -m 644 $(API) $(DESTDIR)$(INCLUDEDIR)/urd/
	$(Q)install -m 644 $(LIB_A) $(DESTDIR)$(LIBDIR)/
	$(Q)install -m 755 $(LIB_SO) $(DESTDIR)$(LIBDIR)/liburd.so.$(VERSION)
	$(Q)ln -sf liburd.so.$(VERSION) $(DESTDIR)$(LIBDIR)/liburd.so.$(SOVERSION)
	$(Q)ln -sf liburd.so.$(SOVERSION) $(DESTDIR)$(LIBDIR)/liburd.so
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' \
		-e 's|@INCLUDEDIR@|$(INCLUDEDIR)|' -e 's|@LIBS@|$(LIBS)|' scripts/urd.pc.in \
		>$(DESTDIR)$(LIBDIR)/pkgconfig/urd.pc
	$(Q)for f in $(SDK:src/sdk/%=%); do \
		install -D -m 644 src/sdk/$$f $(DESTDIR)$(DATADIR)/urd/sdk/$$f || exit 1; done

uninstall: ## remove what install put there
	$(call say,REMOVE,$(DESTDIR)$(PREFIX))
	$(Q)rm -f $(DESTDIR)$(BINDIR)/urd $(DESTDIR)$(LIBDIR)/pkgconfig/urd.pc \
		$(addprefix $(DESTDIR)$(LIBDIR)/,liburd.a liburd.so liburd.so.$(SOVERSION) \
		liburd.so.$(VERSION))
	$(Q)rm -rf $(DESTDIR)$(INCLUDEDIR)/urd $(DESTDIR)$(DATADIR)/urd

dist: ## pack the last commit into a source archive
	@mkdir -p $(O)
	$(call say,DIST,$(O)/urd-$(VERSION).tar.gz)
	$(Q)git archive --format=tar.gz --prefix=urd-$(VERSION)/ -o $(O)/urd-$(VERSION).tar.gz HEAD
