// SPDX-License-Identifier: Apache-2.0

// Package plan decides how a container is made, before anything is made: from what the
// client asks for, what the administrator has configured, and what was found out about
// the host, it makes a [spec.Plan] and answers the questions of each step of a Create.
//
// It makes no system call and reads no file. Package spec decides what an OCI spec
// becomes, and knows neither configuration nor runtimes; package task finds out the
// facts and does what is planned.
package plan
