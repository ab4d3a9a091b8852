"""``python -m tests.inference.sagemaker.dying TASK CALL WHEN``: a background task that is killed at a call.

TASK is submit or pick_up, CALL one of CALLS, WHEN before or after.
"""

import importlib
import os
import signal
import sys
from typing import Any

from services.common.settings import read_settings
from services.inference.config import Config
from services.inference.context import open_context

CALLS = {
    "add": "services.inference.sagemaker.repository:Invocations.add",
    "write_input": "services.inference.sagemaker.storage:InvocationStorage.write_input",
    "invoke_async": "services.inference.sagemaker.runtime:SageMakerRuntime.invoke_async",
    "placed": "services.inference.sagemaker.repository:Invocations.placed",
    "renew": "services.inference.attempts_repository:Attempts.renew",
    "write_output": "services.inference.storage:JobStorage.write_output",
    "complete": "services.inference.attempts_repository:Attempts.complete",
    "fail": "services.inference.attempts_repository:Attempts.fail",
    "delete_input": "services.inference.sagemaker.storage:InvocationStorage.delete_input",
    "delete_attempt": "services.inference.sagemaker.storage:InvocationStorage.delete_attempt",
    "remove": "services.inference.sagemaker.repository:Invocations.remove",
}


def die_at(call: str, when: str) -> None:
    """Let the process be killed before or after a method does its work."""
    module, _, path = CALLS[call].partition(":")
    owner, _, name = path.partition(".")
    kind = getattr(importlib.import_module(module), owner)
    works = getattr(kind, name)

    def dies(*arguments: Any, **more: Any) -> Any:
        if when == "after":
            works(*arguments, **more)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(kind, name, dies)


if __name__ == "__main__":
    task, the_call, moment = sys.argv[1:]
    sagemaker = open_context(read_settings(Config)).sagemaker
    die_at(the_call, moment)
    if task == "submit":
        sagemaker.submission.submit_all()
    else:
        sagemaker.pick_up.look()
    sys.exit("it was not killed")
