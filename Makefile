# SPDX-License-Identifier: Apache-2.0
#
# Builds the files of a release, for each architecture. docs/releasing.md describes them.
#
#	make release		binaries, SBOMs, packages and checksums, in dist/
#	make check-release	make the release again from an empty cache, and compare
#	make packages		only the Debian and RPM packages
#	make staticcheck	static analysis; "make govulncheck" looks for known vulnerabilities

VERSION := $(shell sed -n 's/^const Version = "\(.*\)"/\1/p' runsc-ext/internal/cli/version.go)
ARCHES := amd64 arm64

# The number of the package, which grows if a version is packaged again, and the maintainer
# of the package.
RELEASE := 1
MAINTAINER := runsc-ext maintainers <maintainers@users.noreply.r-seed-959be9b3.example>

# The time stamp in packages is the day of the version, unless the environment sets one.
DATE := $(shell sed -n 's/^\#\# \[$(VERSION)\] - //p' CHANGELOG.md)
SOURCE_DATE_EPOCH ?= $(shell date -u -d '$(DATE)' +%s)
export VERSION RELEASE MAINTAINER SOURCE_DATE_EPOCH

# Tools run on this machine, even if GOOS or GOARCH is set for another.
TOOL := GOOS= GOARCH= go run
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
# Later versions of nfpm need modules that some module proxies lack.
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
# staticcheck v0.8.2 panics in its analysis of nil values.
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.7.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

binaries := $(ARCHES:%=runsc-ext-$(VERSION)-linux-%)
sboms := $(binaries:%=%.cdx.json)
debs := $(ARCHES:%=runsc-ext_$(VERSION)-$(RELEASE)_%.deb)
rpms := $(patsubst %,runsc-ext-$(VERSION)-$(RELEASE).%.rpm,$(ARCHES:amd64=x86_64))
rpms := $(rpms:%.arm64.rpm=%.aarch64.rpm)

.PHONY: release check-release packages staticcheck govulncheck FORCE
release: $(binaries:%=dist/%) $(sboms:%=dist/%) packages
	cd dist && sha256sum $(binaries) $(sboms) $(debs) $(rpms) >SHA256SUMS
	cd dist && sha256sum -c SHA256SUMS

# The second release is built from copies of the files in another directory, with an empty build
# cache. It shares only the Go release and the module cache with the first one.
check-release: release
	@set -e; again=$$(mktemp -d); trap 'rm -rf "$$again"' EXIT; \
	git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$$again"; \
	echo "making the release again, in $$again"; \
	GOCACHE="$$again/.cache" $(MAKE) -C "$$again" --no-print-directory release; \
	diff dist/SHA256SUMS "$$again/dist/SHA256SUMS"; \
	echo "both releases have the same checksums"

# The go command knows what is up to date.
$(binaries:%=dist/%): dist/runsc-ext-$(VERSION)-linux-%: FORCE
	@echo "building $@; this takes a minute or two the first time"
	CGO_ENABLED=0 GOARCH=$* go build -trimpath -buildvcs=false -ldflags='-s -w' -o $@ ./runsc-ext

# The SBOM lists the modules in the binary, from its build information, and not those in go.mod.
$(sboms:%=dist/%): dist/%.cdx.json: dist/%
	$(TOOL) $(CYCLONEDX) bin -json -std -noserial -notimestamp -version $(VERSION) -output $@ $<

packages: $(debs:%=dist/%) $(rpms:%=dist/%)

dist/runsc-ext_$(VERSION)-$(RELEASE)_%.deb: dist/runsc-ext-$(VERSION)-linux-% dist/stage
	ARCH=$* $(TOOL) $(NFPM) package -f deploy/packages/nfpm.yaml -p deb -t $@
dist/runsc-ext-$(VERSION)-$(RELEASE).x86_64.rpm: dist/runsc-ext-$(VERSION)-linux-amd64 dist/stage
	ARCH=amd64 $(TOOL) $(NFPM) package -f deploy/packages/nfpm.yaml -p rpm -t $@
dist/runsc-ext-$(VERSION)-$(RELEASE).aarch64.rpm: dist/runsc-ext-$(VERSION)-linux-arm64 dist/stage
	ARCH=arm64 $(TOOL) $(NFPM) package -f deploy/packages/nfpm.yaml -p rpm -t $@

# The generated files of the packages; see deploy/packages/stage.
dist/stage: FORCE
	deploy/packages/stage $@

staticcheck:
	CGO_ENABLED=0 $(TOOL) $(STATICCHECK) ./...

# Checks the released binary, because a check of the source would analyze all of gVisor. VULNDB
# is the database of vulnerabilities.
VULNDB := https://vuln.go.dev
govulncheck: dist/runsc-ext-$(VERSION)-linux-$(shell go env GOARCH)
	$(TOOL) $(GOVULNCHECK) -db $(VULNDB) -mode=binary $<
