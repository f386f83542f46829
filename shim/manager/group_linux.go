// SPDX-License-Identifier: Apache-2.0

package manager

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

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

// annotationsOf reads the annotations of a bundle's spec as upstream does.
func annotationsOf(bundle string) map[string]string {
	f, err := os.Open(filepath.Join(bundle, "config.json"))
	if err != nil {
		return nil // upstream says so
	}
	defer f.Close()
	var shallow struct {
		Annotations map[string]string `json:"annotations"`
	}
	if json.NewDecoder(f).Decode(&shallow) != nil {
		return nil
	}
	return shallow.Annotations
}
