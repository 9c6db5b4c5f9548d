// SPDX-License-Identifier: Apache-2.0

// This file has no code. The compiler accepts a function without a body only in a package
// with an assembly file; see seccomp_unsafe.go.
