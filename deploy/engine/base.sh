#!/usr/bin/env bash
# Build base images from Debian's packages, for a machine without a registry:
#   deploy/engine/base.sh
# - localhost/python:3.11-slim-bookworm, a Debian with Python, for `--build-arg BASE=...`;
# - the store, Prometheus and Alertmanager, under their names in docker-compose.yml. They
#   are Debian's builds, so their versions differ from those names.
# Needs root, debootstrap, podman and buildah (all from Debian).
set -euo pipefail
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

debian() { # release image
    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates "$1" "$work/$1" "$mirror"
    rm -rf "$work/$1"/var/cache/apt/archives/*.deb "$work/$1"/var/lib/apt/lists/*
    tar -C "$work/$1" -c . | podman import - "$2"
}

server() { # image package folder entrypoint command
    buildah bud --isolation chroot --network host --tag "$1" --file - "$work/empty" <<DOCKERFILE
FROM localhost/debian:trixie
RUN apt-get update -qq && apt-get install -qq -y --no-install-recommends $2 \\
    && rm -rf /var/lib/apt/lists/* && mkdir -p $3
WORKDIR $3
ENTRYPOINT $4
CMD $5
DOCKERFILE
}

mkdir "$work/empty"
debian bookworm localhost/python:3.11-slim-bookworm
debian trixie localhost/debian:trixie
server docker.io/valkey/valkey:8.1-bookworm "valkey-server valkey-tools" /data '[]' '["valkey-server"]'
server docker.io/prom/prometheus:v3.5.0 prometheus /prometheus '["prometheus"]' \
    '["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]'
server docker.io/prom/alertmanager:v0.28.1 prometheus-alertmanager /alertmanager \
    '["prometheus-alertmanager"]' \
    '["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]'
podman images
