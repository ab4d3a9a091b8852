#!/bin/sh
# entrypoint.sh [serve|train]: one worker, on a GPU that no other worker of this machine has.
set -eu

# Touched with each heartbeat that is taken; healthcheck.py looks at its age.
export WORKER_ALIVE_FILE=/tmp/alive

# Workers of one machine share this folder. A lock ends with its process, however that ends.
locks=${WORKER_GPU_LOCKS:-/cache/gpus}

if [ $# -eq 0 ] && [ -z "${CUDA_VISIBLE_DEVICES:-}" ] && command -v nvidia-smi >/dev/null; then
    mkdir -p "$locks"
    for gpu in $(nvidia-smi --query-gpu=uuid --format=csv,noheader); do
        exec 9>"$locks/$gpu"
        if flock --nonblock 9; then
            export CUDA_VISIBLE_DEVICES="$gpu"
            exec python -m gpu_worker
        fi
    done
    echo "gpu_worker: every GPU of this machine has a worker; one per GPU is enough" >&2
    exit 2
fi
exec python -m gpu_worker "$@"
