// SPDX-License-Identifier: Apache-2.0

// This file is empty. An assembly file lets a package declare a function that has its
// body elsewhere; see seccomp_unsafe.go.
