"""``python -m gpu_worker [serve|train|long-work]``: a worker, SageMaker's two entries, a worker's child."""

import logging
import os
import sys

from gpu_worker.config import ConfigError, ServeConfig, TrainConfig, WorkerConfig
from gpu_worker.errors import MachineFault
from gpu_worker.logs import configure_logging

EXIT_WRONG_SETTINGS = 2
EXIT_MACHINE_FAULT = 3


USAGE = "usage: python -m gpu_worker          claims jobs from the inference service\n"
USAGE += "       python -m gpu_worker serve    answers SageMaker's /ping and /invocations\n"
USAGE += "       python -m gpu_worker train    does the training of a SageMaker training job\n"
USAGE += "       python -m gpu_worker long-work    does what a worker describes on standard input\n"


def main(arguments: list[str]) -> int:
    """Returns the exit code: 0 after a stop, 2 for wrong settings, 3 when it should be started anew."""
    if arguments not in ([], ["serve"], ["train"], ["long-work"]):
        sys.stderr.write(USAGE)
        return EXIT_WRONG_SETTINGS
    try:
        if arguments == ["serve"]:
            return serve(ServeConfig.from_env())
        if arguments == ["train"]:
            return train(TrainConfig.from_env())
        return long_work(WorkerConfig.from_env()) if arguments else work(WorkerConfig.from_env())
    except ConfigError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return EXIT_WRONG_SETTINGS


def serve(config: ServeConfig) -> int:
    """Answers SageMaker."""
    configure_logging(config.log_level, config.worker_id)
    from gpu_worker.serve import Server

    Server(config).run()
    return 0


def train(config: TrainConfig) -> int:
    """Does one training, in a SageMaker training job."""
    configure_logging(config.log_level, config.worker_id)
    from gpu_worker.training.container import run

    return run(config)


def long_work(config: WorkerConfig) -> int:
    """Does one training or merge for a worker."""
    configure_logging(config.log_level, config.worker_id)
    from gpu_worker.training.process import run

    return run(config)


def work(config: WorkerConfig) -> int:
    """Claims jobs."""
    configure_logging(config.log_level, config.worker_id)

    # Importing torch and diffusers takes seconds; wrong settings are said before.
    from gpu_worker.worker import Worker

    worker = Worker(config)
    worker.stop_on_signals()
    try:
        worker.run()
    except MachineFault as fault:
        logging.getLogger("gpu_worker").critical("the machine failed", extra={"reason": str(fault)})
        return EXIT_MACHINE_FAULT
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    # Not sys.exit: it would wait for an upload that hangs and for torch's slow end.
    os._exit(code)
