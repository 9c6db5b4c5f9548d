// SPDX-License-Identifier: Apache-2.0

package guest

// attacks is empty: the attacks change the code and the registers of amd64.
var attacks []Attack
