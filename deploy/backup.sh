#!/bin/sh
# backup.sh FOLDER: copy MongoDB and S3 into FOLDER while everything runs; again: only what changed is copied.
set -eu
[ $# -eq 1 ] || { echo "usage: backup.sh FOLDER" >&2; exit 2; }
umask 077
mkdir -p "$1"
folder=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
exec docker compose --profile backup run --rm --no-deps --user "$(id -u):$(id -g)" --volume "$folder:/backup" \
    backup create /backup
