// SPDX-License-Identifier: Apache-2.0

package rootfs

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/isolate-shim/isolate/idmap"
	"github.com/isolate-shim/isolate/internal/linux/mount"
)

// Mount attributes of mount_setattr(2), here so that this file stays free of
// system calls. Values from <linux/mount.h>.
const (
	attrRdonly      = 0x1
	attrNosuid      = 0x2
	attrNodev       = 0x4
	attrNoexec      = 0x8
	attrNoatime     = 0x10
	attrStrictatime = 0x20
	attrAtimeMask   = 0x70
	attrNodiratime  = 0x80
	attrNosymfollow = 0x200000
)

// Overlay is what a mount of type overlay consists of.
type Overlay struct {
	// Lower holds the lower layers, the top one first, as in lowerdir=.
	Lower []string
	// DataLower holds the data-only layers below them (lowerdir=a::b, Linux 6.5).
	DataLower []string
	// Upper and Work are the writable layer and its work directory, both empty
	// for a read-only overlay.
	Upper, Work string
	// ReadOnly is set by the option ro.
	ReadOnly bool
	// Attrs are the MOUNT_ATTR_* of the other generic options, nosuid and so on.
	Attrs uint64
	// Options are passed to the file system as they are: index=off, userxattr,
	// volatile, metacopy=, redirect_dir=, xino=, uuid=, nfs_export=, and what
	// this package does not know: the kernel judges it.
	Options []mount.Option
	// Source is what the mount is called in mountinfo, "overlay" by default.
	Source string
	// Adopted is the mapping of the options uidmap= and gidmap=, by which the
	// caller asks for containerd's own semantics (lower layers mapped, upper
	// one chowned beforehand). Build refuses such an overlay.
	Adopted *idmap.Mapping
}

// mountFlags are the generic options of mount(8) that concern one mount.
var mountFlags = map[string]struct{ set, clear uint64 }{
	"nosuid":        {set: attrNosuid},
	"suid":          {clear: attrNosuid},
	"nodev":         {set: attrNodev},
	"dev":           {clear: attrNodev},
	"noexec":        {set: attrNoexec},
	"exec":          {clear: attrNoexec},
	"noatime":       {set: attrNoatime, clear: attrAtimeMask},
	"strictatime":   {set: attrStrictatime, clear: attrAtimeMask},
	"relatime":      {clear: attrAtimeMask},
	"atime":         {clear: attrNoatime},
	"norelatime":    {},
	"nostrictatime": {clear: attrStrictatime},
	"nodiratime":    {set: attrNodiratime},
	"diratime":      {clear: attrNodiratime},
	"nosymfollow":   {set: attrNosymfollow},
	"symfollow":     {clear: attrNosymfollow},
	"defaults":      {},
	"async":         {},
	"nomand":        {},
}

// parseOverlay parses the options of a containerd mount of type overlay.
//
// lowerdir= takes a colon separated list in which a backslash escapes the next
// character, or comes as one lowerdir+= for each layer (and datadir+= for
// data-only ones). Relative layers are kept as they are, see [Overlay.relative].
// Options that start with X-containerd. are instructions to containerd's mount
// manager and are dropped.
func parseOverlay(options []string) (Overlay, error) {
	p := overlayParser{seen: map[string]bool{}}
	for _, o := range options {
		if err := p.option(o); err != nil {
			return Overlay{}, fmt.Errorf("parse overlay option %q: %w", o, err)
		}
	}
	if err := p.finish(); err != nil {
		return Overlay{}, fmt.Errorf("parse overlay options: %w", err)
	}
	return p.overlay, nil
}

type overlayParser struct {
	overlay Overlay
	adopted idmap.Mapping
	seen    map[string]bool
}

func (p *overlayParser) option(option string) error {
	if strings.HasPrefix(option, "X-containerd.") {
		return nil
	}
	if f, ok := mountFlags[option]; ok {
		p.overlay.Attrs = p.overlay.Attrs&^f.clear | f.set
		return nil
	}
	key, value, hasValue := strings.Cut(option, "=")
	switch key {
	case "":
		return errors.New("empty option")
	case "ro", "rw":
		p.overlay.ReadOnly = key == "ro"
		return nil
	case "bind", "rbind", "remount", "loop":
		return errors.New("makes no sense for an overlay")
	}
	if !strings.HasSuffix(key, "+") {
		if p.seen[key] {
			return errors.New("given twice")
		}
		p.seen[key] = true
	}
	var err error
	switch key {
	case "lowerdir":
		var lower, data []string
		lower, data, err = splitLower(value)
		p.overlay.Lower = append(p.overlay.Lower, lower...)
		p.overlay.DataLower = append(p.overlay.DataLower, data...)
	case "lowerdir+":
		p.overlay.Lower = append(p.overlay.Lower, value)
	case "datadir+":
		p.overlay.DataLower = append(p.overlay.DataLower, value)
	case "upperdir":
		p.overlay.Upper = unescapeLayer(value)
	case "workdir":
		p.overlay.Work = unescapeLayer(value)
	case "uidmap":
		p.adopted.UIDs, err = idmap.ParseRanges(value)
	case "gidmap":
		p.adopted.GIDs, err = idmap.ParseRanges(value)
	default:
		p.overlay.Options = append(p.overlay.Options, mount.Option{Key: key, Value: value, HasValue: hasValue})
	}
	return err
}

func (p *overlayParser) finish() error {
	o := &p.overlay
	for _, layer := range append(append([]string(nil), o.Lower...), o.DataLower...) {
		if layer == "" {
			return errors.New("empty lowerdir")
		}
	}
	switch {
	case len(o.Lower) == 0:
		return errors.New("no lowerdir")
	case p.seen["upperdir"] && o.Upper == "", p.seen["workdir"] && o.Work == "":
		return errors.New("empty upperdir or workdir")
	case (o.Upper == "") != (o.Work == ""):
		return errors.New("upperdir and workdir go together")
	}
	if p.seen["uidmap"] || p.seen["gidmap"] {
		if err := p.adopted.Valid(); err != nil {
			return err
		}
		o.Adopted = &p.adopted
	}
	return nil
}

// splitLower splits the value of lowerdir= as the kernel does
// (fs/overlayfs/params.c): colons separate, a backslash escapes, and a double
// colon starts the data-only layers, which double colons separate.
func splitLower(value string) (lower, data []string, err error) {
	var layer strings.Builder
	inData := false
	flush := func() {
		if inData {
			data = append(data, layer.String())
		} else {
			lower = append(lower, layer.String())
		}
		layer.Reset()
	}
	for i := 0; i < len(value); i++ {
		switch {
		case value[i] == '\\' && i+1 < len(value):
			i++
			layer.WriteByte(value[i])
		case value[i] == ':' && i+1 < len(value) && value[i+1] == ':':
			i++
			flush()
			inData = true
		case value[i] == ':' && inData:
			return nil, nil, errors.New("a regular layer follows a data-only one")
		case value[i] == ':':
			flush()
		default:
			layer.WriteByte(value[i])
		}
	}
	flush()
	return lower, data, nil
}

// unescapeLayer removes the backslashes from an upperdir= or workdir= value.
func unescapeLayer(value string) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// layerEscaper writes a path so that mount(2) reads it back: commas separate
// options, colons layers.
var layerEscaper = strings.NewReplacer(`\`, `\\`, `:`, `\:`, `,`, `\,`)

// relative returns the overlay with its relative layers below dir: Docker
// mounts with short layer names after changing to its own directory.
func (o Overlay) relative(dir string) Overlay {
	abs := func(layer string) string {
		if layer == "" || filepath.IsAbs(layer) {
			return layer
		}
		return filepath.Join(dir, layer)
	}
	all := func(layers []string) []string {
		var out []string
		for _, l := range layers {
			out = append(out, abs(l))
		}
		return out
	}
	o.Lower, o.DataLower = all(o.Lower), all(o.DataLower)
	o.Upper, o.Work = abs(o.Upper), abs(o.Work)
	return o
}
