"""``python -m gpu_worker``: runs one worker until it is told to stop."""

import logging
import os
import sys

from gpu_worker.config import ConfigError, WorkerConfig
from gpu_worker.errors import MachineFault
from gpu_worker.logs import configure_logging

EXIT_WRONG_SETTINGS = 2
EXIT_MACHINE_FAULT = 3


def main() -> int:
    """Returns the exit code: 0 after a stop, 2 for wrong settings, 3 when it should be started anew."""
    try:
        config = WorkerConfig.from_env()
    except ConfigError as error:
        sys.stderr.write(f"gpu_worker: {error}\n")
        return EXIT_WRONG_SETTINGS
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
    code = main()
    logging.shutdown()
    # Not sys.exit: it would wait for an upload that hangs and for torch's slow end.
    os._exit(code)
