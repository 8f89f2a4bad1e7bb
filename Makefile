.DEFAULT_GOAL := help

FUZZTIME ?= 30s
DURATION ?= 60s
SEED     ?= 0

.NOTPARALLEL:
.PHONY: help demo test verify services check race spec soak faults images smoke fuzz bench vuln

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## shows the library at work: real processes, and a real Redis where there is one
	@cd demo && go run ./quickstart

test: services ## runs the tests of every module, in fake time and on real servers; installs a Redis if there is none
	@IDEMPOTENT_IMAGES= scripts/each go test -shuffle=on -timeout 20m ./...

verify: check race spec soak faults images smoke ## adds what takes longer: all of the targets from check to smoke

check: ## checks format, vet, idioms, go.mod and lint in every module
	@scripts/each "$(CURDIR)/scripts/check"

race: services ## runs the tests of every module with the race detector
	@IDEMPOTENT_IMAGES= scripts/each go test -race -shuffle=on -timeout 20m ./...

spec: ## checks the model of the protocol with Spin; installs spin if there is none
	@scripts/ensure-spin
	@verify/spec/check

soak: services ## injects faults for DURATION and checks the history; SEED repeats a campaign (verify/soak/README.md)
	@cd verify/soak && go run . -duration $(DURATION) -seed $(SEED)

faults: services ## kills and pauses processes, Postgres and Redis inside of transactions (docs/postgres.md)
	@cd verify/pg && go test -count=1 -v -timeout 15m -run 'Harmed|CutOff|Failover|Prune' . -full

images: services ## runs the behaviour tests on server images, where docker runs
	@scripts/test-images

smoke: services ## runs each benchmark once
	@scripts/each go test -run '^$$' -bench . -benchtime 1x ./...

fuzz: ## runs each fuzz target for FUZZTIME
	@scripts/fuzz $(FUZZTIME)

bench: services ## measures and updates docs/performance.md; BENCHFLAGS="-window 1m" (cd verify/bench && go run . -help)
	@cd verify/bench && go run . -docs ../../docs $(BENCHFLAGS)

vuln: ## looks for known vulnerabilities in every module, in the Go vulnerability database
	@scripts/each go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

# Each script installs one service that tests start, if there is none.
services:
	@set -e; for script in scripts/ensure-redis $(wildcard scripts/ensure-postgres scripts/ensure-promtool scripts/ensure-chromium scripts/ensure-tmux); do $$script; done
