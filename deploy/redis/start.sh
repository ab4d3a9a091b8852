#!/bin/sh
# Redis with a password that no process list shows.
set -eu
umask 077
printf 'requirepass %s\n' "$REDISCLI_AUTH" >/tmp/redis.conf
exec redis-server /tmp/redis.conf --bind '* -::*' --dir /tmp --save '' --appendonly no --maxmemory 384mb
