// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names what build builds from other modules, for go mod tidy.
package tools

import (
	_ "github.com/containerd/containerd/v2/cmd/containerd"
	_ "github.com/containerd/containerd/v2/cmd/ctr"
)
