// SPDX-License-Identifier: Apache-2.0

package options

import (
	"fmt"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/anypb"
)

// createName is the type of options that clients of containerd 1.7 send to a
// runtime that is not called io.containerd.runc: ctr --uidmap, and whoever else
// uses WithUIDOwner. containerd 2 has removed it (runtime/linux/runctypes), so
// its wire form is read here.
const createName = "containerd.linux.runc.CreateOptions"

// The fields that runc's options of today have as well. The others concern
// checkpoints, or were never read.
const (
	createNoPivotRoot   protowire.Number = 1
	createNoNewKeyring  protowire.Number = 8
	createShimCgroup    protowire.Number = 9
	createIOUID         protowire.Number = 10
	createIOGID         protowire.Number = 11
	createCriuWorkPath  protowire.Number = 12
	createCriuImagePath protowire.Number = 13
)

func fromCreate(in *anypb.Any) (result, error) {
	o := &runcoptions.Options{}
	for data := in.GetValue(); len(data) > 0; {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return result{}, fmt.Errorf("%w: decode %q: %w", errUnknown, in.GetTypeUrl(), protowire.ParseError(n))
		}
		data = data[n:]
		n = protowire.ConsumeFieldValue(number, kind, data)
		if n < 0 {
			return result{}, fmt.Errorf("%w: decode %q: %w", errUnknown, in.GetTypeUrl(), protowire.ParseError(n))
		}
		switch kind {
		case protowire.VarintType:
			value, _ := protowire.ConsumeVarint(data)
			setCreateNumber(o, number, value)
		case protowire.BytesType:
			value, _ := protowire.ConsumeBytes(data)
			setCreateText(o, number, string(value))
		default: // no field of ours
		}
		data = data[n:]
	}
	return result{Runc: o}, nil
}

func setCreateNumber(o *runcoptions.Options, number protowire.Number, value uint64) {
	switch number {
	case createNoPivotRoot:
		o.NoPivotRoot = value != 0
	case createNoNewKeyring:
		o.NoNewKeyring = value != 0
	case createIOUID:
		o.IoUid = uint32(value)
	case createIOGID:
		o.IoGid = uint32(value)
	default:
	}
}

func setCreateText(o *runcoptions.Options, number protowire.Number, value string) {
	switch number {
	case createShimCgroup:
		o.ShimCgroup = value
	case createCriuWorkPath:
		o.CriuWorkPath = value
	case createCriuImagePath:
		o.CriuImagePath = value
	default:
	}
}
