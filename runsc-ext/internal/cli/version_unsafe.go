// SPDX-License-Identifier: Apache-2.0

package cli

import _ "unsafe" // for go:linkname

// runscVersion is the variable of runsc that the linker flag -X sets in official
// builds. It is a string there too, nothing has read it before Main sets it, and
// setVersion checks that it is the one that runsc reads.
//
//go:linkname runscVersion gvisor.dev/gvisor/runsc/version.version
var runscVersion string
