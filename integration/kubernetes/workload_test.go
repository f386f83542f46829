// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"slices"
	"strings"
	"testing"
)

// TestDeployment runs three replicas, of which none shares ids with another.
func TestDeployment(t *testing.T) {
	c := on(t)
	leavesNothing(t)
	t.Run("replicas", func(t *testing.T) {
		c.apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: isolate
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: docker.io/local/inner:1
          command: [httpd, -f, -h, /www]
          startupProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
          readinessProbe: {exec: {command: [test, -e, /www/index.html]}, periodSeconds: 1}
          livenessProbe: {exec: {command: [test, '!', -e, /www/dead]}, periodSeconds: 1}
`)
		c.must(t, "rollout", "status", "--timeout=100s", "deployment/web")
		pods := strings.Fields(c.must(t, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
		var maps []string
		for _, pod := range pods {
			maps = append(maps, strings.Join(strings.Fields(c.must(t, "exec", pod, "--", "cat", "/proc/self/uid_map")), " "))
		}
		slices.Sort(maps)
		if len(slices.Compact(maps)) != 3 {
			t.Errorf("ids of %q: %q", pods, maps)
		}
		// Each reaches the others.
		address := c.must(t, "get", "pod", pods[1], "-o", "jsonpath={.status.podIP}")
		c.expect(t, "served by the inner image", "exec", pods[0], "--", "wget", "-qO-", "http://"+address+"/")
		// Readiness and liveness follow what happens inside.
		c.must(t, "exec", pods[0], "--", "rm", "/www/index.html")
		c.await(t, "2", "get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}")
		c.must(t, "exec", pods[1], "--", "touch", "/www/dead")
		c.await(t, "1", "get", "pod", pods[1], "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
		// Eviction, as a drained node does it.
		c.must(t, "drain", nodeName, "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=100s", "--pod-selector", "app=web")
		c.must(t, "uncordon", nodeName)
		c.must(t, "rollout", "status", "--timeout=100s", "deployment/web")
	})
}

// TestPodLife goes through the life of a pod: init containers, one that goes on
// as a sidecar, restarts, limits, the end.
func TestPodLife(t *testing.T) {
	c := on(t)
	leavesNothing(t)
	t.Run("init and sidecar", func(t *testing.T) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: job}
spec:
  runtimeClassName: isolate
  restartPolicy: OnFailure
  terminationGracePeriodSeconds: 1
  initContainers:
    - name: first
      image: local/debian:demo
      command: [sh, -c, "cat /proc/self/uid_map >/shared/map; chown 1000 /shared/map"]
      volumeMounts: [{name: shared, mountPath: /shared}]
    - name: sidecar
      image: local/debian:demo
      restartPolicy: Always
      command: [sh, -c, "while :; do date >/shared/alive; sleep 0.1; done"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
    - name: main
      image: local/debian:demo
      # Fails once, and so is restarted.
      command: [sh, -c, "cd /shared; test -e once || { touch once; exit 1; }; until test -e alive; do sleep 0.1; done; cmp map /proc/self/uid_map && stat -c %u map && echo same ids"]
      volumeMounts: [{name: shared, mountPath: /shared}]
  volumes: [{name: shared, emptyDir: {}}]
`)
		if log := c.ended(t, "job", "Succeeded"); !strings.Contains(log, "1000\nsame ids") {
			t.Errorf("log: %q", log)
		}
		c.expect(t, "1", "get", "pod", "job", "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
	})
	t.Run("limits", func(t *testing.T) {
		c.apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  runtimeClassName: isolate
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: local/debian:demo
      command: [sleep, "86400"]
      resources: {limits: {memory: 192Mi, cpu: "1"}}
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  runtimeClassName: isolate
  restartPolicy: Never
  containers:
    - name: main
      image: local/debian:demo
      command: [sh, -c, "head -c 300m /dev/zero | tail -c 299m | wc -c"]
      resources: {limits: {memory: 64Mi}}
`)
		c.ready(t, "limited")
		// By lxcfs from its DaemonSet.
		c.inPod(t, "192", "limited", "free -m | awk '/^Mem/{print $2}'")
		c.inPod(t, "1", "limited", "grep -c ^processor /proc/cpuinfo")
		c.await(t, "OOMKilled", "get", "pod", "greedy", "-o", "jsonpath={.status.containerStatuses[0].state.terminated.reason}")
	})
}
