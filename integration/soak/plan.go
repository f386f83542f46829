// SPDX-License-Identifier: Apache-2.0

package soak

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of life.
type Kind string

// The kinds.
const (
	Once    Kind = "once"    // runs to its end with its client
	Plain   Kind = "plain"   // runs until it is killed
	Restart Kind = "restart" // is ended and started again
	Group   Kind = "group"   // two containers in one shim
	Pod     Kind = "pod"     // a sandbox and a container that joins its network
	Nested  Kind = "nested"  // makes namespaces and changes the root inside
	Adopted Kind = "adopted" // the client maps the ids
)

var kinds = []Kind{Once, Plain, Plain, Restart, Group, Pod, Nested, Adopted}

// Step is what a client does, to one of a life's containers.
type Step struct {
	Do        Do
	Container string // "a" or "b"
}

// Do is what a client can do.
type Do string

// What a client can do.
const (
	Run     Do = "run"
	Start   Do = "start" // of a container that has been run before
	Exec    Do = "exec"
	Inside  Do = "inside" // Exec of what nested containers do
	Pause   Do = "pause"
	Resume  Do = "resume"
	Metrics Do = "metrics"
	Term    Do = "term" // a signal that the container ignores
	Kill    Do = "kill"
	Remove  Do = "remove" // the task
)

// Fault is what goes wrong.
type Fault struct {
	Name Name
	// Step is the number of the client's step during which it happens.
	Step int
	// After is how long after the step's begin it happens; not of those of a Verb.
	After time.Duration
	// For is how long it lasts.
	For time.Duration
	// Verb is the command of the OCI runtime by which it happens, and Late tells that
	// the command has done its work by then.
	Verb string
	Late bool
}

func (f Fault) String() string {
	if f.Verb != "" {
		when := "before"
		if f.Late {
			when = "after"
		}
		return fmt.Sprintf("%s %s %q", f.Name, when, f.Verb)
	}
	return fmt.Sprintf("%s at step %d + %v for %v", f.Name, f.Step, f.After, f.For)
}

// Name is a kind of fault.
type Name string

// The faults. The first ones happen at a moment.
const (
	KillShim      Name = "shim killed"
	StopShim      Name = "shim stopped"
	StarveShim    Name = "shim out of descriptors"
	KillRuntime   Name = "runtime killed"
	StopRuntime   Name = "runtime stopped"
	KillClient    Name = "client killed"
	KillInit      Name = "init killed"
	RecordMissing Name = "record missing"
	RecordCut     Name = "record cut"
	RecordGarbage Name = "record garbage"
	Sealed        Name = "record read-only"
	// These hit all lives of a batch.
	Full           Name = "/run/isolate full"
	ReadOnly       Name = "/run/isolate read-only"
	KillContainerd Name = "containerd killed"
	KillLxcfs      Name = "lxcfs killed"
	StopLxcfs      Name = "lxcfs stopped"
	// These happen by a command of the runtime.
	Fail             Name = "runtime fails"
	Hang             Name = "runtime hangs"
	Garble           Name = "runtime prints garbage"
	KillShimAt       Name = "shim killed by step"
	StopShimAt       Name = "shim stopped by step"
	KillClientAt     Name = "client killed by step"
	KillBothAt       Name = "shim and client killed by step"
	KillContainerdAt Name = "containerd killed by step"
)

var moments = []Name{
	KillShim, KillShim, StopShim, StarveShim, KillRuntime, KillRuntime, StopRuntime, KillClient, KillClient, KillInit,
	RecordMissing, RecordCut, RecordGarbage, Sealed, Full, ReadOnly, KillContainerd, KillLxcfs, StopLxcfs,
}

var byVerb = []Name{Fail, Hang, Garble, KillShimAt, StopShimAt, KillClientAt, KillBothAt, KillContainerdAt}

// wide are the faults that hit more than the life that has them, ofOurs those that
// only mean something to isolate.
var (
	wide   = []Name{Full, ReadOnly, KillContainerd, KillLxcfs, StopLxcfs, KillContainerdAt}
	ofOurs = []Name{RecordMissing, RecordCut, RecordGarbage, Sealed, Full, ReadOnly, KillLxcfs, StopLxcfs}
)

// Wide tells whether a fault hits more than the life that has it.
func (n Name) Wide() bool { return slices.Contains(wide, n) }

// Ours tells whether a fault only means something to isolate.
func (n Name) Ours() bool { return slices.Contains(ofOurs, n) }

// Life is all that is decided of a life before it begins.
type Life struct {
	Index  int
	Kind   Kind
	Crun   bool // rather than runc
	Chown  bool // ids are moved on disk, not mapped
	NullIO bool // without pipes
	// Leave is how long the client waits for an answer once something is wrong.
	Leave  time.Duration
	Steps  []Step
	Faults []Fault
}

// Namespace is containerd's.
func (l Life) Namespace() string {
	if l.Kind == Pod {
		return "k8s.io" // elsewhere the annotations of pods mean nothing
	}
	return "default"
}

// Mark begins the ids of a life's containers and of no other's.
func (l Life) Mark() string { return fmt.Sprintf("i%d-", l.Index) }

// ID is the id of one of its containers.
func (l Life) ID(container string) string { return l.Mark() + container }

// Containers are its containers, in the order in which they appear.
func (l Life) Containers() []string {
	if l.Kind == Group || l.Kind == Pod {
		return []string{"a", "b"}
	}
	return []string{"a"}
}

func (l Life) String() string {
	runtime := "runc"
	if l.Crun {
		runtime = "crun"
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d %s %s", l.Index, l.Kind, runtime)
	if l.Chown {
		text.WriteString(" chown")
	}
	for i, s := range l.Steps {
		fmt.Fprintf(&text, " %d:%s.%s", i, s.Do, s.Container)
	}
	for _, f := range l.Faults {
		fmt.Fprintf(&text, " [%s]", f)
	}
	return text.String()
}

// Plan decides a life. Half of them have a fault, and a tenth have two.
func Plan(seed uint64, index int) Life {
	r := rand.New(rand.NewPCG(seed, uint64(index)))
	l := Life{
		Index: index, Kind: pick(r, kinds), Crun: r.IntN(3) == 0, Chown: r.IntN(5) == 0, NullIO: r.IntN(3) == 0,
		Leave: between(r, time.Second, 6*time.Second),
	}
	if l.Kind == Adopted { // ctr cannot say more of how these are to run
		l.Crun, l.Chown = false, false
	}
	l.Steps = steps(r, l)
	for chance := 2; r.IntN(chance) == 0 && len(l.Faults) < 2; chance = 5 {
		l.Faults = append(l.Faults, fault(r, l))
	}
	return l
}

// steps decides what the client does. It need not remove anything: that is done after
// the life.
func steps(r *rand.Rand, l Life) []Step {
	var list []Step
	add := func(container string, do ...Do) {
		for _, d := range do {
			list = append(list, Step{d, container})
		}
	}
	for _, c := range l.Containers() {
		add(c, Run)
		if l.Kind == Once {
			return list
		}
		for range r.IntN(3) {
			add(c, Exec)
		}
		switch r.IntN(6) {
		case 0:
			add(c, Pause, Resume)
		case 1:
			add(c, Metrics)
		case 2:
			add(c, Term)
		}
	}
	if l.Kind == Restart {
		for range 1 + r.IntN(2) {
			add("a", Kill, Remove, Start)
		}
	}
	if l.Kind == Nested {
		add("a", Inside)
	}
	last := l.Containers()
	if r.IntN(2) == 0 { // the sandbox first
		last = last[:1]
	}
	for i := range last {
		c := last[len(last)-1-i]
		switch r.IntN(4) {
		case 0:
		case 1:
			add(c, Remove)
		default:
			add(c, Kill, Remove)
		}
	}
	return list
}

// longest is how long a fault lasts at most.
const longest = 3 * time.Second

// fault decides what goes wrong.
func fault(r *rand.Rand, l Life) Fault {
	f := Fault{For: between(r, 100*time.Millisecond, longest)}
	if r.IntN(5) < 2 {
		f.Name = pick(r, byVerb)
		f.Step = r.IntN(len(l.Steps))
		f.Verb = pick(r, verbs(l.Steps))
		f.Late = r.IntN(2) == 0
		return f
	}
	f.Name = pick(r, moments)
	steps := chances(f.Name, l.Steps)
	f.Step = pick(r, steps)
	f.After = between(r, 0, latest(l.Steps, f.Step, steps))
	return f
}

// chances are the numbers of the steps during which a fault may find what it hits.
func chances(n Name, list []Step) []int {
	var at []int
	for i, s := range list {
		if n != KillRuntime && n != StopRuntime || len(runs[s.Do]) > 0 {
			at = append(at, i)
		}
	}
	return at
}

// latest is how long after the begin of a step a fault may come. A step takes some 50 to
// 200 ms, and what comes later hits the next one of those with something to hit; but the
// last of them may leave nothing.
func latest(list []Step, step int, chances []int) time.Duration {
	switch {
	case step != chances[len(chances)-1]:
		return 250 * time.Millisecond
	case list[step].Do == Run:
		return 150 * time.Millisecond
	}
	return 40 * time.Millisecond
}

// runs are the commands of the runtime that a client's steps lead to. SIGKILL needs none
// with isolate.
var runs = map[Do][]string{
	Run: {"create", "start"}, Start: {"create", "start"}, Exec: {"exec"}, Inside: {"exec"}, Pause: {"pause"},
	Resume: {"resume"}, Term: {"kill"}, Remove: {"delete"},
}

// verbs are the commands of the runtime that some steps lead to, and the removal after
// the life.
func verbs(list []Step) []string {
	out := []string{"delete"}
	for _, s := range list {
		for _, verb := range runs[s.Do] {
			if !slices.Contains(out, verb) {
				out = append(out, verb)
			}
		}
	}
	return out
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return (low + time.Duration(r.Int64N(int64(high-low)))).Round(time.Millisecond)
}
