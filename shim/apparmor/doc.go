// SPDX-License-Identifier: Apache-2.0

// Package apparmor holds the AppArmor profile isolate-default, loads it into the
// kernel, and tells whether that was done.
//
// The profile is the file isolate-default beside this one, part of every program
// that links the package. Its reasons are its comments.
//
// The text depends on the host's parser: rules that newer parsers know are errors
// to older ones. Which it knows is found out by asking it, since distributions
// carry such rules back. Nothing else is conditional. The policy states no feature
// ABI, so that a parser compiles it for what it pins by default, and a class of
// rules that it does not know is one that the compiled policy does not mediate.
//
// Which process gets the profile is decided by package spec. What does not belong
// here: policy of AppArmor namespaces, which containers with policy of their own
// would need.
package apparmor
