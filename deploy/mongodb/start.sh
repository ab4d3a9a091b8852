#!/bin/sh
# A replica set of one with passwords; its members prove themselves to one another with the key.
set -eu
umask 077
printf '%s\n' "$MONGODB_KEY" >/tmp/key
unset MONGODB_KEY
exec docker-entrypoint.sh mongod --replSet sdfleet --keyFile /tmp/key --bind_ip_all \
    --wiredTigerCacheSizeGB "$MONGODB_CACHE_GB" --oplogSize 1024 --quiet
