# SPDX-License-Identifier: GPL-2.0-or-later
# One Makefile for everything. `make help` lists the targets and variables.

O ?= build
PREFIX ?= /usr/local
DESTDIR ?=
V ?= 0
WERROR ?= 1
SAN ?=
FUZZ_SECONDS ?= 60
NPROC := $(shell nproc 2>/dev/null || echo 2)

MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := all

ifeq ($(origin CC),default)
CC := gcc
endif
AR ?= ar
LD ?= ld
PKG_CONFIG ?= pkg-config
CLANG ?= clang
CLANG_FORMAT ?= clang-format

ifeq ($(V),1)
Q :=
say = @:
else
Q := @
say = @printf '  %-8s %s\n'
endif

# Sources. SKIP= leaves files out, for a tree in which somebody else's file does not compile.
LIB_DIRS := core symbols analyzers collectors collectors/tcg collectors/qemu collectors/ftrace collectors/vcpu tui cmd
LIB_SRC := $(sort $(filter-out collectors/tcg/plugin.c $(SKIP),$(wildcard $(LIB_DIRS:%=%/*.c))))
MAIN_SRC := $(wildcard bootprof.c)
PLUGIN_SRC := $(wildcard collectors/tcg/plugin.c)
UNIT_SRC := $(sort $(filter-out $(SKIP),$(wildcard tests/unit/test_*.c)))
FUZZ_SRC := $(sort $(filter-out $(SKIP),$(wildcard tests/fuzz/fuzz_*.c)))
PERF_SRC := $(sort $(filter-out $(SKIP),$(wildcard tests/perf/perf_*.c)))
HEADERS := $(sort $(wildcard $(LIB_DIRS:%=%/*.h) tests/unit/*.h tests/fuzz/*.h))
GUEST_SRC := $(wildcard tests/guest/*.S tests/guest/*.c)

LIB := $(O)/libbootprof.a
LIB_OBJ := $(LIB_SRC:%.c=$(O)/%.o)
PROGRAM := $(if $(MAIN_SRC),$(O)/bootprof)
PLUGIN := $(if $(PLUGIN_SRC),$(O)/bootprof-tcg.so)
UNIT := $(UNIT_SRC:tests/unit/%.c=$(O)/unit/%)
FUZZ_REPLAY := $(FUZZ_SRC:tests/fuzz/%.c=$(O)/fuzz/%)
PERF := $(PERF_SRC:tests/perf/%.c=$(O)/perf/%)
GUEST := $(if $(GUEST_SRC),$(O)/guest/guest.elf)

# Libraries are looked up only when something is going to be compiled: `make deps`, `make check` and `make demo`
# also start where not even a compiler is installed.
NO_BUILD := deps clean help format demo check check-fresh
LIBS_NEEDED := libelf libdw libzstd liblzma liblz4 zlib jansson yaml-0.1 ncursesw libtracefs libbpf
DEBIAN_NAMES := libelf=libelf-dev libdw=libdw-dev libzstd=libzstd-dev liblzma=liblzma-dev liblz4=liblz4-dev \
	zlib=zlib1g-dev jansson=libjansson-dev yaml-0.1=libyaml-dev ncursesw=libncurses-dev \
	libtracefs=libtracefs-dev libbpf=libbpf-dev cmocka=libcmocka-dev
debian_name = $(patsubst $1=%,%,$(filter $1=%,$(DEBIAN_NAMES)))

ifneq ($(filter-out $(NO_BUILD),$(or $(MAKECMDGOALS),all)),)
ifeq ($(shell command -v $(PKG_CONFIG)),)
$(error pkg-config is not installed; `make deps` installs what is missing on Debian)
endif
CC_VERSION := $(shell $(CC) --version 2>/dev/null | sed -n 1p)
ifeq ($(CC_VERSION),)
$(error the compiler $(CC) is not installed; `make deps` installs gcc on Debian, CC= names another)
endif
ifneq ($(filter-out all install,$(or $(MAKECMDGOALS),all)),)
LIBS_WANTED := $(LIBS_NEEDED) cmocka
else
LIBS_WANTED := $(LIBS_NEEDED)
endif
MISSING := $(foreach l,$(LIBS_WANTED),$(shell $(PKG_CONFIG) --exists $l || echo $l))
ifneq ($(strip $(MISSING)),)
$(error missing libraries: $(strip $(MISSING)) (Debian packages: \
	$(foreach l,$(MISSING),$(call debian_name,$l))); `make deps` installs them)
endif
# Which features of libc a file uses it says itself; ncursesw would say it for all.
LIB_CFLAGS := $(filter-out -D%_SOURCE -D%_SOURCE=600,$(shell $(PKG_CONFIG) --cflags $(LIBS_NEEDED)))
LIB_LIBS := $(shell $(PKG_CONFIG) --libs $(LIBS_NEEDED))
ifneq ($(filter cmocka,$(LIBS_WANTED)),)
TEST_CFLAGS := $(shell $(PKG_CONFIG) --cflags cmocka)
TEST_LIBS := $(shell $(PKG_CONFIG) --libs cmocka)
endif
endif

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla
ifneq ($(WERROR),0)
WARNINGS += -Werror
endif
OPT ?= -O2 -g
BASE_CFLAGS := -std=gnu11 $(OPT) $(WARNINGS) -I. -pthread
# With the sanitizers' code in between, gcc warns of cuts and uninitialized values that cannot be.
SAN_FLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer \
	-Wno-unknown-warning-option -Wno-format-truncation -Wno-maybe-uninitialized)
ALL_CFLAGS := $(BASE_CFLAGS) $(LIB_CFLAGS) $(CFLAGS) $(SAN_FLAGS)
ALL_LDFLAGS := -pthread $(LDFLAGS) $(SAN_FLAGS)
# The plugin lives inside QEMU: libc only, nothing exported but what it says, never sanitized.
PLUGIN_CFLAGS := $(filter-out -pthread,$(BASE_CFLAGS)) $(CFLAGS) -fPIC -fvisibility=hidden
PLUGIN_LDFLAGS := -shared -Wl,--as-needed -Wl,-z,relro,-z,now

.PHONY: all tests check check-run check-unit check-golden check-e2e check-fuzz check-headers check-layers \
	check-docs check-asan check-truth check-fresh golden bench bench-gate fuzz install format clean help deps demo FORCE
.SECONDARY:

all: $(LIB) $(PROGRAM) $(PLUGIN)
ifeq ($(O),build)
ifneq ($(PROGRAM),)
all: bootprof
# A link: the program finds the plugin beside the file that it really is.
bootprof: $(PROGRAM)
	$(Q)[ "$$(readlink $@)" = $< ] && touch -h $@ || ln -sf $< $@
endif
endif

tests: all $(UNIT) $(FUZZ_REPLAY) $(PERF) $(GUEST)

# Changed flags, or another list of files in the library, rebuild.
define stamp
	@mkdir -p $(@D)
	@printf '%s\n' '$1' | cmp -s - $@ || printf '%s\n' '$1' > $@
endef
$(O)/flags.stamp: FORCE
	$(call stamp,$(CC_VERSION) $(ALL_CFLAGS) $(ALL_LDFLAGS) $(LIB_LIBS))
$(O)/plugin.stamp: FORCE
	$(call stamp,$(CC_VERSION) $(PLUGIN_CFLAGS) $(PLUGIN_LDFLAGS))
$(O)/lib.stamp: FORCE
	$(call stamp,$(LIB_OBJ))

$(O)/%.o: %.c $(O)/flags.stamp
	@mkdir -p $(@D)
	$(say) CC $<
	$(Q)$(CC) $(ALL_CFLAGS) $(if $(filter tests/unit/%,$<),$(TEST_CFLAGS)) -MMD -MP -c -o $@ $<

$(LIB): $(LIB_OBJ) $(O)/lib.stamp
	$(say) AR $@
	$(Q)rm -f $@.tmp && $(AR) rcs $@.tmp $(LIB_OBJ) && mv $@.tmp $@

$(O)/bootprof: $(O)/bootprof.o $(LIB)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(O)/bootprof.o $(LIB) $(LIB_LIBS) -lm

$(O)/bootprof-tcg.so: collectors/tcg/plugin.c $(O)/plugin.stamp
	@mkdir -p $(@D)
	$(say) PLUGIN $@
	$(Q)$(CC) $(PLUGIN_CFLAGS) $(PLUGIN_LDFLAGS) -MMD -MP -MF $@.d -MT $@ -o $@ $<

$(UNIT): $(O)/unit/%: $(O)/tests/unit/%.o $(LIB)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) $(TEST_LIBS) -lm

$(FUZZ_REPLAY): $(O)/fuzz/%: $(O)/tests/fuzz/%.o $(O)/tests/fuzz/replay.o $(LIB)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(O)/tests/fuzz/replay.o $(LIB) $(LIB_LIBS) -lm

$(PERF): $(O)/perf/%: $(O)/tests/perf/%.o $(LIB)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $< $(LIB) $(LIB_LIBS) -lm

# The test guest: no libraries, linked in the upper half of the address space like a kernel. -O1 and no sibling
# calls, so that functions are entered as often as the source says.
GUEST_CFLAGS := -m64 -std=gnu11 -O1 -g -ffreestanding -fno-pic -mcmodel=kernel -mno-red-zone -mgeneral-regs-only \
	-fno-stack-protector -fcf-protection=none -fno-asynchronous-unwind-tables -fno-optimize-sibling-calls $(WARNINGS)
GUEST_OBJ := $(patsubst %,$(O)/%.o,$(basename $(GUEST_SRC)))
$(O)/guest.stamp: FORCE
	$(call stamp,$(CC_VERSION) $(GUEST_CFLAGS))
$(GUEST_OBJ): $(O)/guest.stamp
$(O)/tests/guest/%.o: tests/guest/%.c
	@mkdir -p $(@D)
	$(say) GUEST $<
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/tests/guest/%.o: tests/guest/%.S
	@mkdir -p $(@D)
	$(say) GUEST $<
	$(Q)$(CC) $(GUEST_CFLAGS) -MMD -MP -c -o $@ $<
$(O)/guest/guest.elf: $(GUEST_OBJ) tests/guest/guest.lds
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(LD) -m elf_x86_64 -nostdlib -static -z max-page-size=0x1000 --no-warn-rwx-segments --build-id=sha1 \
		-T tests/guest/guest.lds -o $@ $(GUEST_OBJ)

# Tests. Each check-* target runs alone; `make check` runs all of them and adds up.
export O
RUN := tests/run.sh
CHECKS := check-headers check-layers check-unit check-fuzz check-golden check-docs check-e2e check-asan
JOBS = $(if $(filter -j%,$(MAKEFLAGS)),,-j$(NPROC))
NO_RESULT := echo '0 passed, 1 failed, 0 skipped'; exit 1

check:
	@scripts/deps.sh || { $(NO_RESULT); }
	@$(MAKE) $(JOBS) tests || { $(NO_RESULT); }
	@$(MAKE) check-run

check-run:
	@$(RUN) checks '$(MAKE)' $(CHECKS)

check-unit: $(UNIT)
	@$(RUN) programs unit $(UNIT)

check-fuzz: $(FUZZ_REPLAY)
	@$(RUN) fuzz $(FUZZ_REPLAY)

check-golden: $(PROGRAM)
	@$(RUN) golden $(sort $(patsubst %/cmd,%,$(wildcard tests/golden/*/cmd)))

golden: $(PROGRAM)
	@UPDATE=$(UPDATE) $(RUN) golden $(sort $(patsubst %/cmd,%,$(wildcard tests/golden/*/cmd)))

check-e2e: all $(GUEST)
	@$(RUN) programs e2e $(sort $(wildcard tests/e2e/*.sh))

check-truth: all $(UNIT) $(GUEST)
	@$(RUN) programs truth $(sort $(wildcard tests/truth/*.sh))

check-headers: $(O)/flags.stamp
	@$(RUN) headers '$(CC) $(ALL_CFLAGS) $(TEST_CFLAGS)' $(HEADERS)

check-layers:
	@$(RUN) programs layers scripts/check-layers.sh

check-docs: all
	@$(RUN) programs docs scripts/check-docs.sh

check-asan:
	@$(MAKE) $(JOBS) O=$(O)/asan SAN=address,undefined tests
	@BP_PREFIX=asan- $(MAKE) O=$(O)/asan SAN=address,undefined check-unit check-fuzz check-golden

bench: all $(PERF)
	@for s in $(filter-out %/bench-gate.sh,$(sort $(wildcard tests/perf/*.sh))); do \
		BOOTPROF=$(O)/bootprof $$s || exit 1; done

bench-gate: all $(O)/perf/perf_gate
	@BOOTPROF=$(O)/bootprof JUDGE=$(O)/perf/perf_gate tests/perf/bench-gate.sh

# libFuzzer, FUZZ_SECONDS each; what it finds is left in $(O)/libfuzzer/NAME/.
FUZZ_O := $(O)/libfuzzer
fuzz:
	@$(MAKE) $(JOBS) O=$(FUZZ_O) CC=$(CLANG) SAN=fuzzer-no-link,address,undefined fuzz-programs
	@$(RUN) libfuzzer $(FUZZ_SECONDS) $(FUZZ_SRC:tests/fuzz/fuzz_%.c=$(FUZZ_O)/live/fuzz_%)

.PHONY: fuzz-programs
fuzz-programs: $(FUZZ_SRC:tests/fuzz/fuzz_%.c=$(O)/live/fuzz_%)
$(O)/live/fuzz_%: $(O)/tests/fuzz/fuzz_%.o $(LIB)
	@mkdir -p $(@D)
	$(say) LINK $@
	$(Q)$(CC) $(ALL_LDFLAGS) -fsanitize=fuzzer -o $@ $< $(LIB) $(LIB_LIBS) -lm

check-fresh:
	@scripts/check-fresh.sh

deps:
	@scripts/deps.sh

demo:
	@scripts/deps.sh
	@$(MAKE) $(JOBS) all
	@scripts/demo.sh

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/bootprof
	install -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/
	install -m 644 $(PLUGIN) $(DESTDIR)$(PREFIX)/lib/bootprof/
	for s in 1 5 7; do \
		for page in docs/*.$$s; do \
			[ -e "$$page" ] || continue; \
			install -D -m 644 "$$page" $(DESTDIR)$(PREFIX)/share/man/man$$s/$${page##*/} || exit 1; \
		done; \
	done

format:
	$(CLANG_FORMAT) -i $(shell git ls-files '*.c' '*.h')

clean:
	rm -rf $(O)
	if [ -L bootprof ]; then rm -f bootprof; fi

help:
	@echo 'make               the program (./bootprof) and the plugin (build/bootprof-tcg.so)'
	@echo 'make demo          install what is missing, build, boot a distribution kernel, report'
	@echo 'make check         install what is missing, build, run all tests'
	@echo 'make check-unit    check-fuzz, check-golden, check-e2e, check-headers, check-layers,'
	@echo '                   check-docs, check-asan: one part of it'
	@echo 'make check-truth   against the guest'\''s own ftrace and gdb (long; fetches debug symbols)'
	@echo 'make check-fresh   demo and check in new Debian 12 and 13 chroots (root)'
	@echo 'make golden UPDATE=1   accept the output of the golden tests as it is now'
	@echo 'make fuzz          libFuzzer on every parser, FUZZ_SECONDS=$(FUZZ_SECONDS) each'
	@echo 'make bench         what recording costs'
	@echo 'make bench-gate    how often the judges of bootprof gate err, on real boots (20 minutes)'
	@echo 'make install       PREFIX=$(PREFIX) DESTDIR=$(DESTDIR)'
	@echo 'make deps format clean'
	@echo 'Variables: O=DIR V=1 WERROR=0 SAN=address,undefined CC=clang SKIP="files to leave out"'

-include $(LIB_OBJ:.o=.d) $(O)/bootprof.d $(O)/bootprof-tcg.so.d
-include $(GUEST_OBJ:.o=.d)
-include $(UNIT_SRC:%.c=$(O)/%.d) $(FUZZ_SRC:%.c=$(O)/%.d) $(PERF_SRC:%.c=$(O)/%.d) $(O)/tests/fuzz/replay.d
