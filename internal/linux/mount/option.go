// SPDX-License-Identifier: Apache-2.0

package mount

// Option is a mount option of a file system: a flag, or a key with a value.
type Option struct {
	Key      string
	Value    string
	HasValue bool
}

// String returns the option as in mount(8) -o.
func (o Option) String() string {
	if !o.HasValue {
		return o.Key
	}
	return o.Key + "=" + o.Value
}
