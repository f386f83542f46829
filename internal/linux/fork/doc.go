// SPDX-License-Identifier: Apache-2.0

// Package fork makes children that are copies of this process and execute no
// program, for work that needs a process of its own: another user namespace, which
// setns(2) refuses to processes of several threads, or a call that may never return,
// which only a process can be left behind with. Executing a program takes some 20 ms,
// a fork less than one.
//
// There is no Go runtime behind the child. What it does consists of raw system calls
// in functions that are nosplit (the stack cannot grow) and norace, that allocate
// nothing and cannot panic, on memory that was prepared before. [Start] makes one:
//
//	p, err := fork.Start(0, func(c *fork.Call) { work.fork(c) })
//
//	//go:nosplit
//	//go:norace
//	func (w *work) fork(c *fork.Call) {
//		if c.InChild() {
//			w.run()
//			fork.Exit(0)
//		}
//	}
//
// For children that run Go code see package disposable.
package fork
