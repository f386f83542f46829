// SPDX-License-Identifier: Apache-2.0

// Package image makes container images out of Debian packages, so that the
// tests need no registry: archives for "ctr images import" and "docker load".
//
// A [Definition] is data. Its packages are installed as on a real system,
// maintainer scripts included, since images that were merely unpacked differ
// from what people run in just the places an isolating shim has to get right:
// owners, setuid programs, file capabilities, users, alternatives.
//
// To add an image, add a Definition to the list in definitions.go; one with a
// Base continues the image of that name. Images for one test only can be made
// by that test from these with ctr.
package image
