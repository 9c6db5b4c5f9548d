// SPDX-License-Identifier: Apache-2.0

//go:build tools

// Package tools names what ../containerd/build builds, for go mod tidy.
package tools

import _ "gvisor.dev/gvisor/shim"
