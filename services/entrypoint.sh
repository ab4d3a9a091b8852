#!/bin/sh
# entrypoint.sh serve SERVICE | tasks SERVICE | beat | python …: what a container of this image does.
set -eu

# Celery processes touch it while they are connected; healthcheck.py looks at its age.
export ALIVE_FILE=/tmp/alive

case "${1:-}" in
serve)
    exec gunicorn -c services/common/gunicorn_config.py --no-control-socket "services.$2.app:create_app()"
    ;;
tasks)
    exec celery -A "services.$2.tasks" worker -Q "$2" -n "$2@%h" --concurrency "${TASKS_AT_ONCE:-2}" \
        --without-mingle --without-gossip --without-heartbeat
    ;;
beat)
    exec celery -A services.common.beat beat -S services.common.beat:Scheduler --pidfile=
    ;;
python)
    exec "$@"
    ;;
*)
    echo "usage: serve SERVICE | tasks SERVICE | beat | python …" >&2
    exit 2
    ;;
esac
