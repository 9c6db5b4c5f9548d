// SPDX-License-Identifier: Apache-2.0

package cli

// ballastSize is the size of the sentry's ballast in bytes.
const ballastSize = 8 << 20

// ballast is memory that the sentry allocates and never touches. The kernel provides no pages
// for it.
//
// Go collects garbage when the heap reaches twice its live size, or 4 MB. The live size of a
// small sentry is about 2 MB, so a sentry that creates tasks would collect garbage every few
// milliseconds, for 5% to 10% of its CPU time. The ballast is part of the live size, so the
// heap can grow by 8 MB more before a collection, whatever its size. A higher GC percent
// would have no such limit.
var ballast []byte

// allocateBallast allocates the ballast of this process, which becomes a sentry.
func allocateBallast() { ballast = make([]byte, ballastSize) }
