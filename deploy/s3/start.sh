#!/bin/sh
# SeaweedFS with one identity. Of its servers only S3 is reached from other containers.
set -eu
umask 077
cat >/tmp/identities.json <<END
{"identities": [{"name": "sdfleet", "actions": ["Admin", "Read", "Write", "List", "Tagging"],
  "credentials": [{"accessKey": "$S3_ACCESS_KEY", "secretKey": "$S3_SECRET_KEY"}]}]}
END
unset S3_ACCESS_KEY S3_SECRET_KEY
# Volumes are files that grow: their number is no limit, the free disk is.
exec weed -logtostderr=true server -dir=/objects -ip=127.0.0.1 -ip.bind=127.0.0.1 \
    -master.peers=none -master.telemetry=false -master.volumeSizeLimitMB=1024 \
    -volume.max=100000 -volume.minFreeSpace=500MiB \
    -filer -s3 -s3.ip.bind=0.0.0.0 -s3.port=8333 -s3.config=/tmp/identities.json -s3.port.iceberg=0 -s3.port.lance=0
