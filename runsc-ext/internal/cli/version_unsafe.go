// SPDX-License-Identifier: Apache-2.0

package cli

import _ "unsafe" // for go:linkname

// runscVersion is the variable of runsc that the linker flag -X sets in official builds.
//
// The declaration is sound: the variable is a string in runsc too, Main sets it before anything
// reads it, and setVersion checks that runsc reads this variable.
//
//go:linkname runscVersion gvisor.dev/gvisor/runsc/version.version
var runscVersion string
