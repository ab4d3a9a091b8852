#!/bin/sh
# Writes nginx's configuration from the environment, then is nginx. /tmp may be the only place to write to.
set -eu
sh /gateway/render.sh /tmp/gateway
exec nginx -p /tmp/gateway -c nginx.conf -g 'daemon off;'
