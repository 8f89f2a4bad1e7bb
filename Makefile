# make demo    shows the library at work: real processes, a real Redis where there is one
# make test    checks and tests everything, and installs a Redis if there is none
# make spec    checks the model of the protocol, and installs spin if there is none
# make fuzz    runs each fuzz target for FUZZTIME
# make bench   measures beside bare commands and other libraries, and brings docs/performance.md up to
#              date; BENCHFLAGS="-window 1m" and others, see (cd verify/bench && go run . -help)
# make soak    harms workers, network and servers for DURATION and checks what comes of it;
#              SEED repeats a campaign; verify/soak/README.md has more

MODULES  := . demo verify/integration verify/bench verify/soak
FUZZTIME ?= 30s
DURATION ?= 60s
SEED     ?= 0

.PHONY: demo test check redis spec fuzz bench soak

demo:
	@cd demo && go run ./quickstart

test: check redis spec
	@set -e; for m in $(MODULES); do echo "== go test, $$m"; (cd $$m && go test -race -shuffle=on -timeout 20m ./...); done
	@$(MAKE) --no-print-directory soak

check:
	@set -e; for m in $(MODULES); do echo "== gofmt, go vet, go fix, go mod tidy, $$m"; scripts/check $$m; done

redis:
	@scripts/ensure-redis

spec:
	@scripts/ensure-spin
	@verify/spec/check

fuzz:
	@set -e; for p in . ./idemhttp; do for f in $$(grep -ho '^func Fuzz[A-Za-z]*' $$p/*_test.go | cut -d' ' -f2); do go test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p; done; done

bench: redis
	@cd verify/bench && go run . -docs ../../docs $(BENCHFLAGS)

soak: redis
	@cd verify/soak && go run . -duration $(DURATION) -seed $(SEED)
