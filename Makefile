# Release binaries: static, for each architecture, with checksums and an SBOM.
#
#	make release	into dist/

VERSION := $(shell sed -n 's/^const Version = "\(.*\)"/\1/p' runsc-ext/internal/cli/version.go)
ARCHES := amd64 arm64
CYCLONEDX := github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

binaries := $(ARCHES:%=runsc-ext-$(VERSION)-linux-%)

.PHONY: release
release: $(binaries:%=dist/%) $(binaries:%=dist/%.cdx.json)
	cd dist && sha256sum $(binaries) $(binaries:%=%.cdx.json) >SHA256SUMS
	cd dist && sha256sum -c SHA256SUMS

# The go command knows what is up to date.
.PHONY: FORCE
$(binaries:%=dist/%): dist/runsc-ext-$(VERSION)-linux-%: FORCE
	@echo "building $@; this takes a minute or two the first time"
	CGO_ENABLED=0 GOARCH=$* go build -trimpath -buildvcs=false -ldflags='-s -w' -o $@ ./runsc-ext

# From the build information in the binary: what is in it, not what is in go.mod.
$(binaries:%=dist/%.cdx.json): dist/%.cdx.json: dist/%
	GOARCH= GOOS= go run $(CYCLONEDX) bin -json -std -noserial -notimestamp -version $(VERSION) -output $@ $<
