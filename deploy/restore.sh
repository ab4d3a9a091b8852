#!/bin/sh
# restore.sh FOLDER [--replace]: fill empty stores with a backup; --replace removes what is in them. Then start the rest.
set -eu
[ $# -ge 1 ] || { echo "usage: restore.sh FOLDER [--replace]" >&2; exit 2; }
folder=$(cd "$1" && pwd)
shift
cd "$(dirname "$0")/.."
running=$(docker compose ps --services --status running | grep -vxE 'mongo|redis|s3|prometheus|grafana' || true)
if [ -n "$running" ]; then
    # They would write between the documents that come back.
    echo "Stop these first, with docker compose stop:" $running >&2
    exit 1
fi
docker compose up --detach --wait mongo redis s3
docker compose run --rm mongo-init
exec docker compose --profile backup run --rm --no-deps --user "$(id -u):$(id -g)" --volume "$folder:/backup" \
    backup restore /backup "$@"
