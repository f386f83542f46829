// SPDX-License-Identifier: Apache-2.0

// Package fork makes children that are copies of this process and execute no program.
// They are for work that needs a process of its own: to enter another user namespace,
// which setns(2) refuses to a process of several threads, or to make a call that may
// never return, since a process can be left behind. To execute a program takes some 20
// ms, a fork less than one.
//
// A child has no Go runtime. It makes raw system calls in functions that are nosplit
// (the stack cannot grow) and norace, that allocate nothing and cannot panic, on memory
// that was prepared before. [Start] makes a child:
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
