# Two commands for a Debian machine with Go and nothing else: `make cell` and `make test`.
# With Nix, use the flake instead.

SHELL := /bin/sh
BIN := bin
GOFLAGS_STATIC := -trimpath -buildvcs=auto -ldflags='-s -w'
GUESTS := $(BIN)/rootcell-guest $(BIN)/rootcell-firewall
LEVELS ?= lint,unit,fuzz,e2e,vm

.PHONY: cell build test check bench clean FORCE

# Everything from nothing to a running, verified cell. Run again, it reuses what exists.
cell: build
	@$(BIN)/rootcell doctor --fix $(if $(filter 0,$(shell id -u)),--yes)
	@$(BIN)/rootcell up
	@$(BIN)/rootcell verify
	@echo
	@echo 'The cell is up. Enter it with    $(BIN)/rootcell'
	@echo 'Run one command in it with       $(BIN)/rootcell -- uname -a'

build: $(BIN)/rootcell $(GUESTS)

$(BIN)/%: FORCE
	@CGO_ENABLED=0 go build $(GOFLAGS_STATIC) -o $@ ./cmd/$*

# All levels that need no Nix; the last line is the total. LEVELS=unit,e2e runs a part.
test: build
	@checks/packages.sh cell test
	@go run ./checks/suite -levels $(LEVELS)

# The fast part: what to run before a commit.
check:
	@go run ./checks/suite -levels lint,unit

# The figures, side by side with what the firewall is compared with; writes checks/bench/results.{md,svg}. About seven minutes.
bench: build
	@checks/packages.sh test bench
	@checks/bench/mitmproxy.sh
	@cd checks/bench && ROOTCELL_TEST_LEVEL=bench go test -count=1 -timeout 40m -run '^TestFigures$$' -v .

clean:
	rm -rf $(BIN)
