CARGO ?= cargo
# Further flags for every cargo command, such as --locked.
FLAGS ?=

.PHONY: help demo build manual deb test quick models miri chaos backplane fuzz lint deny bench setup clean

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 14

# A debug build: the first message matters here, not the ten-thousandth.
demo: setup-build ## the gate before a demo site: open the page it names
	$(CARGO) run $(FLAGS) -- demo $(ARGS)

build: setup-build ## the release binary: target/release/pollgate
	$(CARGO) build $(FLAGS) --release

manual: setup-build ## the man page and the shells' completions, below target/package
	$(CARGO) run $(FLAGS) --example manual -- target/package

deb: build manual ## a Debian package below target/debian, with cargo-deb
	$(CARGO) deb --no-build --strip $(ARGS)

test: setup-test ## every test, also those with real PHP and a real browser
	$(CARGO) test $(FLAGS) --features site-tests
	POLLGATE_TESTS_OVER=tls $(CARGO) test $(FLAGS) --features site-tests --test all_polls --test bad_input \
		--test streams_ws --test streams_other
	POLLGATE_TESTS_FORWARD=engine $(CARGO) test $(FLAGS) --features site-tests --test forwarding \
		--test forwarded_answers --test forwarded_requests --test websockets --test site_connections \
		--test slow_readers --test capturing

quick: setup-build ## the tests that need no other program
	$(CARGO) test $(FLAGS)

models: setup-build ## the hub's promises in thousands of orders of its threads' steps
	$(CARGO) test $(FLAGS) --manifest-path models/Cargo.toml --target-dir target/models

# Needs a nightly toolchain: rustup component add --toolchain nightly miri rust-src. Few cases of
# each property, as it takes ten minutes all the same.
miri: ## the hub's unit tests under Miri
	PROPTEST_CASES=4 MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test $(FLAGS) \
		--manifest-path models/hub/Cargo.toml --target-dir target/miri

# SEED repeats a round, SECONDS sets the duration in all: make chaos SEED=7 SECONDS=20
chaos: SECONDS ?= 3600
chaos: setup-build ## an hour of clients that count what they get while everything goes wrong
	POLLGATE_CHAOS_SECONDS=$(SECONDS) $(if $(SEED),POLLGATE_CHAOS_SEED=$(SEED)) $(CARGO) test $(FLAGS) --test chaos -- --nocapture

# SECONDS sets the duration: make backplane SECONDS=60
backplane: SECONDS ?= 600
backplane: setup-test ## ten minutes of messages over Redis, to see that nothing grows
	POLLGATE_BACKPLANE_SECONDS=$(SECONDS) $(CARGO) test $(FLAGS) --features site-tests --test backplane_whole -- --nocapture many_messages

# FUZZ names targets, TIME is in seconds for each. What is found stays below target/fuzz.
FUZZ ?= query cursor head agreement answer dialects form hook announced envelope archive snapshot handover \
	config tokens template adopt websocket pusher rest mercure grip
TIME ?= 60
fuzz: setup-build ## libFuzzer's bytes for all that is read, a minute for each reader
	CARGO="$(CARGO)" fuzz/build
	for target in $(FUZZ); do \
		mkdir -p target/fuzz/found/$$target && \
		TARGET=$$target target/fuzz/debug/pollgate-fuzz -max_total_time=$(TIME) -max_len=2048 \
			-timeout=10 -rss_limit_mb=512 -print_final_stats=0 -verbosity=0 \
			-artifact_prefix=target/fuzz/$$target- target/fuzz/found/$$target \
			$$(ls -d fuzz/seeds/$$target 2>/dev/null) || exit 1; \
	done

lint: setup-build ## format, clippy and documentation, warnings being errors
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path models/Cargo.toml
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml
	$(CARGO) clippy $(FLAGS) --all-targets --features site-tests -- -D warnings
	$(CARGO) clippy $(FLAGS) --manifest-path fuzz/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-target} -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(FLAGS) --no-deps

# WHAT="" looks for advisories too, which are fetched from the internet.
deny: WHAT ?= licenses bans sources
deny: ## the licences and the places that dependencies come from
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny --log-level error check --hide-inclusion-graph $(WHAT)

# ARGS for the load bench, such as ARGS="--quick --only pollgate,floor": benches/README.md.
bench: setup-bench ## the benchmarks; the load bench beside other servers comes last
	$(CARGO) bench $(FLAGS) --bench hub --bench render
	$(CARGO) bench $(FLAGS) --bench load -- $(ARGS)

setup: setup-test ## whatever building and testing need, if this is Debian

clean: ## remove what was built
	$(CARGO) clean

.PHONY: setup-build setup-test setup-bench
setup-build setup-test setup-bench: setup-%:
	@scripts/setup $*
