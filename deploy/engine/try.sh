#!/usr/bin/env bash
# Start the composition with an engine, let it learn and score, and stop it:
#   COMPOSE="podman-compose" deploy/engine/try.sh        (the default is "docker compose")
# Build the images first, or make sure that they can be pulled. Volumes of earlier runs are kept.
set -euo pipefail
cd "$(dirname "$0")/../.."
compose=${COMPOSE:-docker compose}
make --silent secrets
header() { sed 's/^/Authorization: Bearer /' deploy/secrets/admin-key; }
call() { curl --silent --show-error --fail-with-body --max-time 120 -H @<(header) "$@"; echo; }
trap '$compose down >/dev/null 2>&1' EXIT

$compose up --detach --no-build
for port in 8000 8001; do
    until curl --silent --fail "http://127.0.0.1:$port/readyz"; do sleep 1; done
    echo
done
one=http://127.0.0.1:8000/v1/detectors/pump-7
two=http://127.0.0.1:8001/v1/detectors/pump-7
echo "-- a detector, a normal batch, a retraining by the worker"
call -X PUT "$one" -H 'Content-Type: application/json' -d '{"model": {"epochs": 5}}' >/dev/null
python3 -c 'import json, random; random.seed(0); print(json.dumps({"vectors": [[random.gauss(0, 1) for _ in range(3)] for _ in range(400)]}))' |
    call "$one/normal" -H 'Content-Type: application/json' -d @-
call "$one/retrain" -H 'Content-Type: application/json' -d '{"wait": 90}'
echo "-- the other replica scores with it"
until call "$two/score" -H 'Content-Type: application/json' -d '{"vectors": [[0, 0, 0], [50, -50, 50]]}'; do sleep 1; done
echo "-- Prometheus scrapes both replicas"
until curl --silent 'http://127.0.0.1:9090/api/v1/query?query=sum(up)' | grep -o '"value":\[[^]]*"2"\]'; do sleep 2; done
