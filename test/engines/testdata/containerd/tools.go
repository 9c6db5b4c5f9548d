//go:build tools

// Package tools names what build builds, for go mod tidy.
package tools

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
	_ "gvisor.dev/gvisor/shim"
)
