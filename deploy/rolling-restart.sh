#!/bin/sh
# rolling-restart.sh [SERVICE…]: replace containers without losing a request, for a new image or new settings.
#
# Of a service that answers requests, new containers are started beside the old ones; when they are healthy the old
# ones end, each after the requests that it has begun. Others (Celery, beat, workers) are replaced in place: whatever
# they do is held by leases and goes on elsewhere.
set -eu
cd "$(dirname "$0")/.."

answering='users checkpoints endpoints inference datasets training'
[ $# -gt 0 ] || set -- $answering checkpoints-tasks endpoints-tasks inference-tasks datasets-tasks training-tasks beat \
    $(docker compose config --services | grep -x gpu_worker || true)

healthy() { # healthy CONTAINER…: waits until all are
    for container; do
        until [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; do
            if [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = unhealthy ]; then
                echo "$container is not healthy: the old containers go on; docker logs $container" >&2
                exit 1
            fi
            sleep 0.5
        done
    done
}

for service; do
    case " $answering " in
    *" $service "*) ;;
    *)
        echo "$service: replaced in place"
        docker compose up --detach --no-deps --force-recreate "$service"
        continue
        ;;
    esac
    old=$(docker compose ps --quiet "$service")
    count=$(echo "$old" | grep -c . || true)
    [ "$count" -gt 0 ] || { echo "$service does not run" >&2; exit 1; }
    docker compose up --detach --no-deps --no-recreate --scale "$service=$((count * 2))" "$service"
    new=$(docker compose ps --quiet "$service" | grep -vxF "$old")
    healthy $new
    sleep 4 # the gateway asks for addresses once a second, and leaves one that refused it alone for two
    docker stop $old >/dev/null
    docker rm $old >/dev/null
    echo "$service: $count replaced"
done
