// SPDX-License-Identifier: Apache-2.0

package nested

import (
	"slices"
	"testing"

	"github.com/isolate-shim/isolate/integration/image"
)

// TestBuildKit builds images with the BuildKit of an inner dockerd, which runs
// each step as a container of its own.
func TestBuildKit(t *testing.T) {
	each(t, both, func(t *testing.T, n *node) {
		context := t.TempDir()
		put(t, context, "Dockerfile", dockerfile)
		put(t, context, "copied", "from the context\n")
		put(t, context, "ignored", "not sent\n")
		put(t, context, ".dockerignore", "ignored\n")
		flags := slices.Concat(inner(t), bind(context, "/context", "rbind:ro"), []string{"--memory-limit", memoryLimit})
		c := start(t, n, image.Docker26, flags, "dockerd")
		c.await(t, "docker version")
		c.sh(t, "docker load -i /inner.tar && printf secret >/tmp/secret")

		build := "docker build --network none --progress plain --secret id=key,src=/tmp/secret "
		c.sh(t, "DOCKER_BUILDKIT=1 "+build+"--build-arg STEP=1 -t built /context")
		c.expect(t, "from the context|made by 0|1000:33|2000|1048576 kB|first", "docker run --rm built")
		// A secret is there for its step only, a cache for every build, and a layer
		// that did not change is used again.
		c.expect(t, "", "docker run --rm built sh -c 'ls /run/secrets /cache 2>/dev/null'; true")
		c.sh(t, "docker buildx build --load --network none --progress plain --secret id=key,src=/tmp/secret --build-arg STEP=2 -t again /context >/tmp/log 2>&1 && grep -q CACHED /tmp/log")
		c.expect(t, "from the context|made by 0|1000:33|2000|1048576 kB|first second", "docker run --rm again")
		// What fails, fails with what it printed.
		c.expect(t, "told", "! "+build+"--build-arg STEP=fail -t failed /context >/tmp/log 2>&1 && grep -q 'exit code: 7' /tmp/log && echo told")
	})
}

// dockerfile has several stages, of which one is not needed, and mounts of every
// kind.
const dockerfile = `FROM docker.io/local/inner:1 AS base
RUN echo builder:x:2000:2000::/:/bin/sh >>/etc/passwd && rm /layer

FROM base AS unused
RUN exit 1

FROM base AS maker
ARG STEP
WORKDIR /work
COPY --chown=1000:33 copied here
RUN --mount=type=secret,id=key test "$(cat /run/secrets/key)" = secret && echo made by $(id -u) >made
RUN --mount=type=cache,target=/cache test $STEP != fail || exit 7; \
	if test -e /cache/f; then echo first second >cached; else echo first >cached; touch /cache/f; fi
RUN --mount=type=bind,source=copied,target=/mnt/copied --mount=type=tmpfs,target=/tmp/t \
	cmp here /mnt/copied && touch /tmp/t/f && sed -n 's/MemTotal: *//p' /proc/meminfo >memory

FROM base
COPY --from=maker /work /work
COPY --chown=2000 copied /owned
USER builder
CMD ["sh", "-c", "cd /work; echo \"$(cat here)|$(cat made)|$(stat -c %u:%g here)|$(stat -c %u /owned)|$(cat memory)|$(cat cached)\""]
`
