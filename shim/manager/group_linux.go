// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/continuity"

	"github.com/isolate-shim/isolate/shim/config"
	"github.com/isolate-shim/isolate/spec"
)

// groupLabels are the annotations by which upstream puts containers into one
// shim, whose sockets are then named after the group.
var groupLabels = []string{spec.GroupAnnotation, spec.SandboxAnnotation}

// ungroup removes from a bundle's spec the annotations by which the container would
// get into the shim of a group that it has no place in. Upstream obeys whoever has
// set them.
func ungroup(bundle, namespace, id string) error {
	annotations := annotationsOf(bundle)
	grouped := false
	for _, label := range groupLabels {
		_, there := annotations[label]
		grouped = grouped || there
	}
	if !grouped {
		return nil
	}
	cfg, _, err := config.Load(config.Dir)
	if err != nil {
		return err
	}
	drop := spec.Groups(namespace, id, annotations, cfg.Annotations.Allow)
	if len(drop) == 0 {
		return nil
	}
	path := filepath.Join(bundle, "config.json")
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("leave the group: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("leave the group: %w", err)
	}
	doc, err := spec.Parse(data)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, label := range drop {
		delete(doc.Spec.Annotations, label)
	}
	if data, err = doc.JSON(); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := continuity.AtomicWriteFile(path, data, info.Mode().Perm()); err != nil {
		return fmt.Errorf("leave the group: %w", err)
	}
	return nil
}

// annotationsOf reads the annotations of a bundle's spec as upstream does. It returns
// none if no label of a group is among them.
func annotationsOf(bundle string) map[string]string {
	data, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil || !mentionsGroup(data) {
		return nil // upstream tells the error
	}
	var shallow struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.NewDecoder(bytes.NewReader(data)).Decode(&shallow) != nil {
		return nil
	}
	return shallow.Annotations
}

// mentionsGroup tells whether JSON may have a string that is a label of a group. To
// decode the whole spec for that takes longer than all else that the process does.
func mentionsGroup(data []byte) bool {
	return bytes.Contains(data, []byte(`\u`)) || // the only other way to write a letter
		slices.ContainsFunc(groupLabels, func(label string) bool { return bytes.Contains(data, []byte(label)) })
}
