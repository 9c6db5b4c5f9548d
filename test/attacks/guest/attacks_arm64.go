// SPDX-License-Identifier: Apache-2.0

package guest

// attacksOfArch returns no attack. The attacks of amd64 are made for its instructions and
// registers.
func attacksOfArch() []Attack { return nil }
