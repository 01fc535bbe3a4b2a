# ambient-cni: `make help` lists the targets.
#
# One Makefile, no recursion: every source below lib/ goes into both programs, plugin/ into ambient-cni, installer/ into
# ambient-installer; a file of tests/unit/test_NAME.c becomes one cmocka program.

BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
CC = gcc
PKG_CONFIG ?= pkg-config
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# Make's own default for $(MAKEFLAGS) is one job: a build uses every core unless told otherwise.
ifeq ($(filter -j% --jobserver%,$(MAKEFLAGS)),)
MAKEFLAGS += -j$(shell nproc)
endif

LIB_PACKAGES = libmnl libnftnl libnl-3.0 libnl-route-3.0 libcjson
INSTALLER_PACKAGES = libevent libevent_openssl openssl libprotobuf-c yaml-0.1 libseccomp
WARNINGS = -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wvla $(WERROR)
WERROR ?= $(if $(CI),-Werror)
HARDENING = -fstack-protector-strong -D_FORTIFY_SOURCE=2 -fPIE
OPTIMISE ?= -O2 -g
ifneq ($(STATIC),)
PKG_FLAGS = --static
# glibc warns about name lookups in static programs; neither program makes any.
# Relocations are packed, and nothing unwinds a stack: a third of the program otherwise.
LINK_MODE = -static-pie -Wl,--no-warnings -Wl,-z,pack-relative-relocs
STATIC_CFLAGS = -Os -fno-asynchronous-unwind-tables
STATIC_SOURCES = $(wildcard deploy/static_openssl*.c)
else
LINK_MODE = -pie
endif
ifneq ($(SANITIZE),)
# clang 14 translates a loop over cJSON wrongly at -O1 with both sanitizers (installer/kube/credentials.c, find_entry).
OPTIMISE = $(if $(FUZZER),-O2,-O1) -g -fno-omit-frame-pointer
HARDENING = -fPIE -fsanitize=address,undefined$(if $(FUZZER),$(comma)fuzzer-no-link) -fno-sanitize-recover=undefined
endif
comma = ,

# Without pkg-config (before `make deps`) nothing is said: the target that needs it fails with its name.
ask_pkg_config = $(shell command -v $(PKG_CONFIG) >/dev/null && $(PKG_CONFIG) $(1))
PKG_CFLAGS := $(call ask_pkg_config,--cflags $(LIB_PACKAGES) $(INSTALLER_PACKAGES))
CPPFLAGS += -D_GNU_SOURCE -Iinclude -I. -I$(BUILD) -I$(BUILD)/generated $(PKG_CFLAGS)
CFLAGS += -std=gnu17 $(OPTIMISE) $(WARNINGS) $(HARDENING) -ffunction-sections -fdata-sections $(STATIC_CFLAGS)
LDFLAGS += $(LINK_MODE) -Wl,-z,relro,-z,now -Wl,--gc-sections $(filter -fsanitize=%,$(HARDENING))
LIB_LIBS := $(call ask_pkg_config,$(PKG_FLAGS) --libs $(LIB_PACKAGES))
INSTALLER_LIBS := $(call ask_pkg_config,$(PKG_FLAGS) --libs $(INSTALLER_PACKAGES) $(LIB_PACKAGES))

LIB_SOURCES = $(wildcard lib/*.c)
PLUGIN_SOURCES = $(wildcard plugin/*.c)
INSTALLER_SOURCES = $(wildcard installer/*.c installer/*/*.c)
UNIT_SOURCES = $(wildcard tests/unit/test_*.c)
TOOL_SOURCES = $(wildcard tests/tools/*.c)
BENCH_SOURCES = $(wildcard tests/bench/*.c)
FUZZ_SOURCES = $(wildcard tests/fuzz/*.c)

objects = $(patsubst %.c,$(BUILD)/objects/%.o,$(1))
LIB_OBJECTS = $(call objects,$(LIB_SOURCES))
PLUGIN_OBJECTS = $(call objects,$(PLUGIN_SOURCES))
# protobuf-c's code is generated below build/, beside the objects.
INSTALLER_PROTOS = $(wildcard installer/*/*.proto)
INSTALLER_OBJECTS = $(call objects,$(INSTALLER_SOURCES)) $(patsubst %.proto,$(BUILD)/objects/%.pb-c.o,$(INSTALLER_PROTOS))
UNIT_PROGRAMS = $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(UNIT_SOURCES))
TOOL_PROGRAMS = $(patsubst tests/tools/%.c,$(BUILD)/tests/%,$(TOOL_SOURCES)) \
	$(patsubst tests/preload/%.c,$(BUILD)/tests/%.so,$(wildcard tests/preload/*.c))
BENCH_PROGRAMS = $(patsubst tests/bench/%.c,$(BUILD)/bench/%,$(BENCH_SOURCES))
FUZZ_PROGRAMS = $(patsubst tests/fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SOURCES))

.DEFAULT_GOAL = all
.PHONY: all
all: ## build both programs (the default)
all: $(if $(PLUGIN_SOURCES),$(BUILD)/ambient-cni) $(if $(INSTALLER_SOURCES),$(BUILD)/ambient-installer)

$(BUILD)/objects/%.o: %.c | $(BUILD)/version.h
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# The status page is part of the program, as a file: the compiler tells no dependency.
$(BUILD)/objects/installer/observe/status_page.o: installer/observe/status.html

$(BUILD)/generated/%.pb-c.c $(BUILD)/generated/%.pb-c.h: %.proto
	@mkdir -p $(@D)
	protoc-c --proto_path=. --c_out=$(BUILD)/generated $<

$(BUILD)/objects/%.pb-c.o: $(BUILD)/generated/%.pb-c.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -Wno-shadow -MMD -MP -c $< -o $@

# Generated headers come before everything that may include them.
$(call objects,$(INSTALLER_SOURCES) $(UNIT_SOURCES) $(TOOL_SOURCES) $(FUZZ_SOURCES)): | \
	$(patsubst %.proto,$(BUILD)/generated/%.pb-c.h,$(INSTALLER_PROTOS))

$(BUILD)/libambient.a: $(LIB_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/ambient-cni: $(PLUGIN_OBJECTS) $(BUILD)/libambient.a
	$(CC) $(LDFLAGS) $^ $(LIB_LIBS) -o $@

$(BUILD)/ambient-installer: $(INSTALLER_OBJECTS) $(call objects,$(STATIC_SOURCES)) $(BUILD)/libambient.a
	$(CC) $(LDFLAGS) $^ $(INSTALLER_LIBS) -o $@

# The version is a header that is only touched when it changes, so that a commit does not rebuild everything.
.PHONY: version
$(BUILD)/version.h: version
	@mkdir -p $(BUILD)
	@printf '#define AMBIENT_VERSION "%s"\n' '$(VERSION)' > $@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@

# Unit tests see the programs' objects too, all but their main().
TESTABLE_OBJECTS = $(filter-out %/main.o,$(PLUGIN_OBJECTS) $(INSTALLER_OBJECTS))
$(BUILD)/tests/test_%: $(BUILD)/objects/tests/unit/test_%.o $(TESTABLE_OBJECTS) $(BUILD)/libambient.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(INSTALLER_LIBS) -lcmocka -o $@

# Brings that file along itself, for what is private in it; of two definitions the first counts.
$(BUILD)/tests/test_probe_rules: LDFLAGS += -Wl,-z,muldefs

# A program for tests may use the rooms of the installer (a double of a peer speaks its protocol): the linker takes what it
# needs.
$(BUILD)/libtestable.a: $(TESTABLE_OBJECTS)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/tests/%: $(BUILD)/objects/tests/tools/%.o $(BUILD)/libtestable.a $(BUILD)/libambient.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $^ $(INSTALLER_LIBS) -o $@

# One program a fuzz target: a fuzzer with FUZZER=1 (and clang), else a program that replays inputs.
FUZZ_WRAPS_verify = nft_dump route_verify
FUZZ_WRAPS_watch = kube_client_stream kube_request_cancel kube_client_statistics event_add
FUZZ_WRAPS_tunnel = unix_listener_new unix_listener_free unix_listener_binds unix_listener_refused
FUZZ_WRAPS_plugins = unix_listener_new unix_listener_free
FUZZ_WRAPS_installer_client = wire_connect redirect_apply redirect_remove nanosleep clock_gettime
FUZZ_WRAPS_responses = bufferevent_openssl_socket_new bufferevent_get_openssl_error kube_tls_new kube_tls_free \
	kube_tls_connection kube_tls_is_untrusted event_add clock_gettime
FUZZ_DRIVER = $(call objects,$(wildcard tests/fuzz/support/*.c))
$(BUILD)/fuzz/%: $(BUILD)/objects/tests/fuzz/%.o $(FUZZ_DRIVER) $(BUILD)/libtestable.a $(BUILD)/libambient.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(if $(FUZZER),-fsanitize=fuzzer) $(addprefix -Wl$(comma)--wrap=,$(FUZZ_WRAPS_$*)) \
		$(if $(FUZZER),$(filter-out %/replay.o,$^),$^) $(INSTALLER_LIBS) -o $@

# What tests load into a program that is built without them in mind.
$(BUILD)/tests/%.so: tests/preload/%.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=gnu17 $(WARNINGS) -O1 -fPIC -shared $< -o $@

# The floor of every start: static, whatever the rest is.
$(BUILD)/bench/nothing: tests/bench/nothing.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -static-pie $< -o $@

BENCH_WRAPS_flips = mesh_remember_enrolled mesh_remember_outside
$(BUILD)/bench/%: $(BUILD)/objects/tests/bench/%.o $(BUILD)/libtestable.a $(BUILD)/libambient.a
	@mkdir -p $(@D)
	$(CC) $(LDFLAGS) $(addprefix -Wl$(comma)--wrap=,$(BENCH_WRAPS_$*)) $^ $(INSTALLER_LIBS) -o $@

# A library that tests preload: it makes one call of a program fail.
$(BUILD)/tests/faults.so: tests/faults/faults.c
	@mkdir -p $(@D)
	$(CC) -D_GNU_SOURCE -std=gnu17 -O1 -g $(WARNINGS) -fPIC -shared $< -o $@

.PHONY: units tools
units: $(UNIT_PROGRAMS)
# tests/budgets counts in programs of tests/bench, one of which is static: not with sanitizers, as the budgets.
tools: helpers $(FUZZ_PROGRAMS) $(if $(SANITIZE),,$(BENCH_PROGRAMS))
# What tests of whole programs run besides.
.PHONY: helpers
helpers: $(TOOL_PROGRAMS) $(BUILD)/tests/faults.so

# What the build and the tests need, from Debian 12.
PACKAGES = build-essential pkg-config git ca-certificates libmnl-dev libnftnl-dev libnl-3-dev libnl-route-3-dev libcjson-dev \
	libevent-dev libssl-dev libprotobuf-c-dev protobuf-c-compiler libyaml-dev libseccomp-dev libcmocka-dev nftables iproute2 conntrack procps \
	python3 python3-cryptography python3-pytest python3-pytest-xdist containernetworking-plugins golang-go strace iptables ipset \
	mandoc man-db curl valgrind iperf3
NODE_PACKAGES = etcd-server containerd runc busybox-static openssl python3-pytest-rerunfailures
FUZZ_PACKAGES = clang llvm libclang-rt-14-dev
PAGE_PACKAGES = chromium chromium-driver python3-selenium
LINT_PACKAGES = clang-format clang-tidy shellcheck
STATIC_PACKAGES = mmdebstrap
# buildah or docker makes the image: what is there, or else buildah, which is fetched.
BUILDER ?= $(shell command -v buildah >/dev/null || ! docker version >/dev/null 2>&1 && echo buildah || echo docker)
IMAGE_PACKAGES = $(if $(filter docker,$(BUILDER)),,$(STATIC_PACKAGES) buildah)

.PHONY: deps lint-deps
deps: ## install what build and tests need (Debian 12, as root); elsewhere say what is missing
	@tests/deps $(PACKAGES)
lint-deps:
	@tests/deps $(LINT_PACKAGES)

.PHONY: demo
demo: deps ## show the main job working: pods on a bridge, redirected; no cluster, about half a minute
	@$(MAKE) -s all
	@AMBIENT_BUILD=$(abspath $(BUILD)) tests/demo/run

# Tests with real packets and processes, four at a time: they mostly wait.
# tests/node, tests/package and tests/page have targets of their own: they build Kubernetes, build Helm and images, or need a browser.
# tests/budgets counts the instructions of what is shipped: sanitizers add theirs.
PYTEST_FOLDERS = $(filter-out tests/node/ tests/package/ tests/page/ $(if $(SANITIZE),tests/budgets/),$(sort \
	$(dir $(wildcard tests/*/test_*.py))))
PYTEST = AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -q -n 4 -p no:cacheprovider

.PHONY: test test-built
test: deps ## build with -Werror and run every test
	@$(MAKE) CI=true test-built

test-built: all run-units run-corpora tools
	$(if $(PYTEST_FOLDERS),$(PYTEST) $(PYTEST_FOLDERS))

# One line for each unit test that passes, everything that it printed for one that does not.
.PHONY: run-units
run-units: $(patsubst %,%.passed,$(UNIT_PROGRAMS))
$(BUILD)/tests/%.passed: $(BUILD)/tests/%
	@$< > $@.log 2>&1 && echo "passed $(notdir $<)" || { cat $@.log; echo "FAILED $(notdir $<)"; exit 1; }
	@touch $@

# The corpora of the fuzz targets: what was found once is never to come back.
.PHONY: run-corpora fuzz fuzz-deps fuzz-built
run-corpora: $(FUZZ_PROGRAMS)
	@for target in $^; do $$target tests/fuzz/corpus/$${target##*/} >$$target.log 2>&1 || \
		{ cat $$target.log; echo "FAILED fuzz target $${target##*/}"; exit 1; }; done; echo "passed $(words $^) fuzz corpora"

# TIME: seconds for each target. TARGETS: some alone.
TIME ?= 60
TARGETS ?= $(notdir $(FUZZ_PROGRAMS))
fuzz-deps:
	@tests/deps $(FUZZ_PACKAGES)
fuzz: deps fuzz-deps ## fuzz every parser for TIME seconds each; findings are left in build/fuzz-findings
	@$(MAKE) CI=true SANITIZE=1 FUZZER=1 CC=clang BUILD=$(BUILD)/fuzzer fuzz-built
	@AMBIENT_BUILD=$(abspath $(BUILD)) tests/fuzz/run $(TIME) $(TARGETS)
fuzz-built: $(FUZZ_PROGRAMS)

# MUTANTS: words; those alone whose claim, file or tests hold one of them.
.PHONY: mutants
mutants: deps ## break each claim of docs/security.md in turn: its tests must fail; some twenty minutes
	@tests/deps $(PAGE_PACKAGES)
	@AMBIENT_BUILD=$(abspath $(BUILD)) PYTHONPATH=tests /usr/bin/python3 -m security.mutations $(MUTANTS)

# SEED: replay; TIME: seconds.
.PHONY: chaos chaos-judge soak
chaos: deps ## random events on a whole node against a model, for TIME seconds (SEED=N: the same events again)
	@$(MAKE) -s CI=true all tools
	CHAOS_SEED=$(SEED) CHAOS_TIME=$(TIME) AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -q -s -p no:cacheprovider \
		tests/chaos/test_chaos.py::test_chaos
chaos-judge: deps ## break the product in one way after another: the judge of the chaos run must see each (BROKEN=WORDS: some)
	@AMBIENT_BUILD=$(abspath $(BUILD)) PYTHONPATH=tests BROKEN="$(BROKEN)" /usr/bin/python3 -m chaos.broken
soak: deps ## 10,000 ADD and DEL, 10,000 flips, 200 reconnects of the tunnel, 1,000 watches: nothing may be left over
	@$(MAKE) -s CI=true all tools
	SOAK=1 AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -q -s -p no:cacheprovider tests/soak

# One at a time: a whole node needs the machine.
NODE_PYTEST = AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -p no:cacheprovider
.PHONY: node-deps test-node bench-node
node-deps: deps
	@tests/deps $(NODE_PACKAGES) $(STATIC_PACKAGES)
	@tests/debian-13.sh >/dev/null
	@tests/node/components >/dev/null
test-node: node-deps ## the product on a real node: etcd, kube-apiserver, kubelet, containerd; see docs/real-node.md
	@$(MAKE) CI=true all static
	$(NODE_PYTEST) -v $(NODE_ARGUMENTS) tests/node
bench-node: node-deps ## 100 pods at once, from creation to Running, with and without ambient-cni in the chain
	@$(MAKE) -s all static
	@AMBIENT_BUILD=$(abspath $(BUILD)) PYTHONPATH=tests /usr/bin/python3 -m node.bench $(NODE_ARGUMENTS)

.PHONY: test-page
test-page: deps ## the status page in a real Chromium; AMBIENT_SCREENSHOTS=1 renews docs/images
	@tests/deps $(PAGE_PACKAGES)
	@$(MAKE) CI=true all
	AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -q -p no:cacheprovider tests/page

.PHONY: test-newcomer
test-newcomer: ## the README's commands in its order, typed in a clean Debian 12 root, from a clone to a pod's rules; some minutes
	tests/clean-root.sh newcomer

.PHONY: asan
asan: deps ## the whole test suite under the address and undefined-behaviour sanitizers
	@ASAN_OPTIONS=detect_leaks=1:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 \
		$(MAKE) CI=true SANITIZE=1 BUILD=$(BUILD)/asan test-built

.PHONY: lint
C_FILES = $(wildcard lib/*.[ch] include/ambient/*.h plugin/*.[ch] installer/*.[ch] installer/*/*.[ch] tests/*/*.[ch] deploy/*.c)
TIDY_STAMPS = $(patsubst %.c,$(BUILD)/tidy/%.ok,$(filter %.c,$(C_FILES)))
lint: lint-deps $(TIDY_STAMPS) ## clang-format, clang-tidy, shellcheck
	clang-format --dry-run -Werror $(C_FILES)
	shellcheck -x .ci/run tests/deps tests/node/components $(wildcard tests/*.sh tests/deploy/*.sh tests/host/*.sh tests/package/*.sh deploy/*.sh)
$(BUILD)/tidy/%.ok: %.c .clang-tidy | $(BUILD)/version.h $(patsubst %.proto,$(BUILD)/generated/%.pb-c.h,$(INSTALLER_PROTOS))
	@mkdir -p $(@D)
	clang-tidy --quiet $< -- $(CPPFLAGS) -std=gnu17 >$@.log 2>&1 || { cat $@.log; exit 1; }
	@touch $@

# PODS: the agent alone, with so many pods.
.PHONY: bench
bench: deps ## measure against floors of the same run (BENCH_ARGUMENTS=SECTION, PODS=2000: that alone); see docs/performance.md
	@$(MAKE) -s all static $(BENCH_PROGRAMS)
	@$(if $(PODS),BENCH_PODS='$(PODS)') AMBIENT_BUILD=$(abspath $(BUILD)) tests/bench/run \
		$(or $(BENCH_ARGUMENTS),$(if $(PODS),agent))

.PHONY: static
static: ## both programs without any shared library, in build/static (a Debian 13 root, made once and kept in a cache)
	@tests/deps $(STATIC_PACKAGES)
	@VERSION='$(VERSION)' tests/static.sh $(abspath $(BUILD))

# What a docker daemon of Debian's, which the test fetches and runs for itself, needs besides.
DOCKER_PACKAGES = containerd runc iptables libdevmapper1.02.1
# In the image's tag, and in the chart, the version is written as tags may be.
TAG = $(shell echo '$(VERSION)' | tr -c 'A-Za-z0-9_.\n-' -)
.PHONY: image chart manifests test-package
image: ## the container image, an OCI archive in build/image, with its contents and bill of materials; ARCHITECTURE=arm64, BUILDER=docker
	@tests/deps $(IMAGE_PACKAGES)
	@BUILDER=$(BUILDER) VERSION='$(VERSION)' deploy/image.sh $(abspath $(BUILD)) $(ARCHITECTURE)

chart: ## the Helm chart as a package, in build/chart; its image is the one of this version
	@mkdir -p $(BUILD)/chart && rm -f $(BUILD)/chart/*.tgz
	@tool=$$(tests/deploy/charttool.sh) && $$tool package deploy/helm/ambient-cni $(BUILD)/chart '$(TAG)'

manifests: ## deploy/manifests from the chart
	@tool=$$(tests/deploy/charttool.sh) && /usr/bin/python3 deploy/manifests.py $$tool

# One after the other: they build images.
test-package: deps ## image for both architectures, Helm's and kustomize's own commands; some minutes the first time
	@tests/deps $(STATIC_PACKAGES) buildah qemu-user-static skopeo $(DOCKER_PACKAGES)
	AMBIENT_BUILD=$(abspath $(BUILD)) /usr/bin/python3 -m pytest -q -p no:cacheprovider tests/package
	@$(MAKE) -s CI=true static
	AMBIENT_BUILD=$(abspath $(BUILD))/static /usr/bin/python3 -m pytest -q -p no:cacheprovider tests/security

.PHONY: install
install: all ## put the programs below DESTDIR/PREFIX
	install -D -m 0755 $(BUILD)/ambient-cni $(DESTDIR)$(PREFIX)/libexec/cni/ambient-cni
	install -D -m 0755 $(BUILD)/ambient-installer $(DESTDIR)$(PREFIX)/sbin/ambient-installer
	install -D -m 0644 docs/man/ambient-cni.8 $(DESTDIR)$(PREFIX)/share/man/man8/ambient-cni.8
	install -D -m 0644 docs/man/ambient-installer.8 $(DESTDIR)$(PREFIX)/share/man/man8/ambient-installer.8
	install -D -m 0644 deploy/completion/ambient-installer.bash \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions/ambient-installer
	install -D -m 0644 deploy/completion/_ambient-installer $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_ambient-installer

.PHONY: clean
clean: ## remove what was built
	rm -rf $(BUILD)

.PHONY: help
help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 12

.SECONDARY:
-include $(shell find $(BUILD)/objects -name '*.d' 2>/dev/null)
