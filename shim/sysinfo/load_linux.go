// SPDX-License-Identifier: Apache-2.0

package sysinfo

import (
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/isolate-shim/isolate/internal/linux/proc"
)

const (
	// levels is how deep below a group threads count, as in lxcfs.
	levels = 3
	// most is how many threads are looked at; of more, that part counts for all.
	most = 256
	// mostGroups is for how many groups averages are kept, and in how many threads are
	// looked for.
	mostGroups = 64
)

// loadsOf returns the averages of a group with its first process. Nobody counts threads
// while nobody asks: what runs now is taken for what has run since it was asked last, or
// since the process was started.
func (s *Source) loadsOf(g group, first int) ([3]uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	l, ok := s.loads[g.dir]
	if !ok {
		age, err := ageOf(first)
		if err != nil {
			return [3]uint64{}, err
		}
		l.at = now.Add(-age)
	}
	if !ok || now.Sub(l.at) >= refresh {
		l = l.next(running(g), now)
		if len(s.loads) >= mostGroups {
			clear(s.loads)
		}
		s.loads[g.dir] = l
	}
	return l.fixed(), nil
}

// running is how many threads of a group run, or wait for a disk.
func running(g group) float64 {
	name := "cgroup.threads"
	if !g.unified {
		name = "tasks"
	}
	w := walk{file: name, groups: mostGroups}
	w.look(g.dir, levels)
	all := w.threads
	if len(all) == 0 {
		return 0
	}
	looked := all[:min(len(all), most)]
	count := 0
	for _, tid := range looked {
		text, ok := content("/proc/" + tid + "/stat")
		if !ok {
			continue
		}
		if stat, err := proc.ParseStat([]byte(text)); err == nil && (stat.State == 'R' || stat.State == 'D') {
			count++
		}
	}
	return float64(count) * float64(len(all)) / float64(len(looked))
}

// walk lists the threads of groups.
type walk struct {
	file    string
	groups  int // left to look at
	threads []string
}

func (w *walk) look(dir string, levels int) {
	text, _ := content(filepath.Join(dir, w.file)) // none of a group that is gone
	w.threads = append(w.threads, strings.Fields(text)...)
	if levels == 0 {
		return
	}
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	// Most of the entries are files, some hundred with all controllers.
	entries, _ := f.ReadDir(8 * mostGroups)
	for _, e := range entries {
		if e.IsDir() && w.groups > 0 && len(w.threads) < most {
			w.groups--
			w.look(filepath.Join(dir, e.Name()), levels-1)
		}
	}
}
