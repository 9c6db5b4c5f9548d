// SPDX-License-Identifier: Apache-2.0

package guest

// attacksOfArch returns no attack: on amd64 they change its code and its registers.
func attacksOfArch() []Attack { return nil }
