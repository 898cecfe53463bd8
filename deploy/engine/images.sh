#!/usr/bin/env bash
# Build both images with buildah: deploy/engine/images.sh [options of buildah, such as --build-arg ...]
set -euo pipefail
cd "$(dirname "$0")/../.."
for target in serving full; do
    # A health check is part of docker's format, not of OCI's.
    buildah bud --format docker --layers --isolation chroot --network host \
        --target "$target" --tag "localhost/anamnesis:$target" "$@" .
done
buildah images --format '{{.Name}}:{{.Tag}} {{.Size}}' | grep anamnesis
