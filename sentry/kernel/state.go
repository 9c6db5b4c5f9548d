// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"

	"gvisor.dev/gvisor/pkg/state"
)

// This file is written by hand. For its own types marked "+stateify savable", gVisor
// generates such a file with a tool that is not in gVisor's Go module. TestStateFields
// compares this file with the types.

func (c *child) StateTypeName() string {
	return "runsc-ext/sentry/kernel.child"
}

func (c *child) StateFields() []string {
	return []string{
		"entry",
		"autoreap",
		"exited",
		"tasks",
		"listeners",
		"tg",
		"status",
		"utime",
		"stime",
	}
}

func (c *child) StateSave(stateSinkObject state.Sink) {
	stateSinkObject.Save(0, &c.entry)
	stateSinkObject.Save(1, &c.autoreap)
	stateSinkObject.Save(2, &c.exited)
	stateSinkObject.Save(3, &c.tasks)
	stateSinkObject.Save(4, &c.listeners)
	stateSinkObject.Save(5, &c.tg)
	stateSinkObject.Save(6, &c.status)
	stateSinkObject.Save(7, &c.utime)
	stateSinkObject.Save(8, &c.stime)
}

func (c *child) StateLoad(ctx context.Context, stateSourceObject state.Source) {
	stateSourceObject.Load(0, &c.entry)
	stateSourceObject.Load(1, &c.autoreap)
	stateSourceObject.Load(2, &c.exited)
	stateSourceObject.Load(3, &c.tasks)
	stateSourceObject.Load(4, &c.listeners)
	stateSourceObject.Load(5, &c.tg)
	stateSourceObject.Load(6, &c.status)
	stateSourceObject.Load(7, &c.utime)
	stateSourceObject.Load(8, &c.stime)
}

func (f *cloneFDFileDescription) StateTypeName() string {
	return "runsc-ext/sentry/kernel.cloneFDFileDescription"
}

func (f *cloneFDFileDescription) StateFields() []string {
	return []string{
		"vfsfd",
		"FileDescriptionDefaultImpl",
		"DentryMetadataFileDescriptionImpl",
		"NoLockFD",
		"child",
		"killOnClose",
		"consumed",
	}
}

func (f *cloneFDFileDescription) StateSave(stateSinkObject state.Sink) {
	stateSinkObject.Save(0, &f.vfsfd)
	stateSinkObject.Save(1, &f.FileDescriptionDefaultImpl)
	stateSinkObject.Save(2, &f.DentryMetadataFileDescriptionImpl)
	stateSinkObject.Save(3, &f.NoLockFD)
	stateSinkObject.Save(4, &f.child)
	stateSinkObject.Save(5, &f.killOnClose)
	stateSinkObject.Save(6, &f.consumed)
}

func (f *cloneFDFileDescription) StateLoad(ctx context.Context, stateSourceObject state.Source) {
	stateSourceObject.Load(0, &f.vfsfd)
	stateSourceObject.Load(1, &f.FileDescriptionDefaultImpl)
	stateSourceObject.Load(2, &f.DentryMetadataFileDescriptionImpl)
	stateSourceObject.Load(3, &f.NoLockFD)
	stateSourceObject.Load(4, &f.child)
	stateSourceObject.Load(5, &f.killOnClose)
	stateSourceObject.Load(6, &f.consumed)
}

func init() {
	state.Register((*child)(nil))
	state.Register((*cloneFDFileDescription)(nil))
}
