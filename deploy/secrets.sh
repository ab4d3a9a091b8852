#!/bin/sh
# secrets.sh [FILE]: write .env, with secrets that were never anywhere else; what is there already is kept.
set -eu
file=${1:-.env}
if [ -e "$file" ]; then
    echo "$file is there already and is kept: its secrets open the data that was stored with them." >&2
    exit 1
fi

random() { # random BYTES: that many, as hexadecimal digits
    od -An -tx1 -N"$1" /dev/urandom | tr -d ' \n'
}

if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then
    hardware='COMPOSE_PROFILES=gpu
WORKER_VARIANT=cuda
WORKER_RUNTIME=nvidia'
else
    hardware='COMPOSE_PROFILES=cpu
WORKER_VARIANT=cpu
WORKER_RUNTIME=runc'
fi

umask 077
set -C # two at once: one of them writes it
cat >"$file" <<END
# Keep this file secret, and keep a copy of it: without it, stored data cannot be opened.
ADMIN_USERNAME=admin
ADMIN_PASSWORD=$(random 12)
ADMIN_API_KEY=$(random 24)
SERVICE_SECRET=$(random 32)
WORKER_SECRET=$(random 32)
MONGODB_ROOT_PASSWORD=$(random 24)
MONGODB_PASSWORD=$(random 24)
MONGODB_KEY=$(random 64)
REDIS_PASSWORD=$(random 24)
S3_ACCESS_KEY=$(random 10)
S3_SECRET_KEY=$(random 24)
GRAFANA_PASSWORD=$(random 12)

# What this machine's worker computes on; no COMPOSE_PROFILES: no worker here.
$hardware

# Who reaches the gateway and S3: 127.0.0.1 is this machine alone, 0.0.0.0 everybody (docs/install.md).
PUBLISH_ADDRESS=127.0.0.1
GATEWAY_PORT=8080
S3_PORT=8333
S3_PUBLIC_URL=http://localhost:8333
END
echo "$file has new secrets, readable by you alone."
