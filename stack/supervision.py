"""Runs the table of processes under supervisord: its configuration, its start, and what one can ask it."""

import contextlib
import hashlib
import os
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport

from stack.deaths import STACK_LOG
from stack.failures import NotRunning, StackError, last_lines
from stack.program import POLL_SECONDS, Program
from stack.secrets import write_private
from stack.settings import ROOT

MARKER = "SDFLEET_STACK"  # in the environment of every process of a stack: its folder
LONGEST_SOCKET_PATH = 90  # the kernel's limit is 108, and supervisord appends its pid
ANSWER_SECONDS = 20
ENDED = {"STOPPED", "EXITED", "FATAL", "BACKOFF", "UNKNOWN"}
DEATHS = "deaths"

HEAD = """[supervisord]
nodaemon=true
directory={root}
logfile={logs}/supervisord.log
logfile_maxbytes=1MB
logfile_backups=1
pidfile={folder}/supervisord.pid
childlogdir={logs}

[unix_http_server]
file={socket}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[eventlistener:{deaths}]
command={listener}
events=PROCESS_STATE_EXITED,PROCESS_STATE_BACKOFF,PROCESS_STATE_FATAL
stdout_logfile=NONE
stderr_logfile={logs}/{deaths}.log
stderr_logfile_maxbytes=1MB
stderr_logfile_backups=1
"""
# The stop signal goes to the first process alone: gunicorn, Celery and nginx end their children themselves,
# in good order. What is left of the group when time is up is killed.
PROGRAM = """
[program:{name}]
command={command}
directory={directory}
environment={environment}
autostart=false
autorestart=true
startsecs=1
startretries=30
stopsignal={stop_signal}
stopwaitsecs={stop_seconds}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={logs}/{name}.log
stdout_logfile_maxbytes=5MB
stdout_logfile_backups=2
"""


class Refused(StackError):
    """supervisord answers that it cannot do this now, or knows no such program."""


class Supervisor:
    """One supervisord: its files lie in the stack's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self._configuration = folder / "supervisord.conf"

    def configure(self, programs: Iterable[Program]) -> None:
        """Write the configuration; it holds secrets."""
        listener = (sys.executable, "-m", "stack.deaths", str(self.logs))
        text = HEAD.format(
            root=_literal(str(ROOT)),
            logs=_literal(str(self.logs)),
            folder=_literal(str(self.folder)),
            socket=_literal(str(self.socket)),
            deaths=DEATHS,
            listener=_literal(shlex.join(listener)),
        )
        text += "".join(self._section(program) for program in programs)
        write_private(self._configuration, text)

    def _section(self, program: Program) -> str:
        return PROGRAM.format(
            name=program.name,
            command=_literal(shlex.join(program.command)),
            directory=_literal(str(program.folder or ROOT)),
            environment=",".join(_assignment(*variable) for variable in program.environment.items()),
            stop_signal=program.stop_signal,
            stop_seconds=program.stop_seconds,
            logs=_literal(str(self.logs)),
        )

    def put_logs_away(self) -> None:
        """Begin fresh logs: what is shown of a failure is then of this start. The log of deaths goes on."""
        for log in self.logs.glob("*.log"):
            if log.name != STACK_LOG:
                log.replace(log.with_suffix(".log.1"))

    def launch(self, environment: Mapping[str, str]) -> int:
        """Start supervisord in a session of its own, so that Ctrl-C reaches only us; its pid."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        output = self.logs / "supervisord.out"
        with output.open("wb") as file:
            process = subprocess.Popen(
                (sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=ROOT,
                env=os.environ | environment | {MARKER: str(self.folder)},
            )
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise StackError(f"supervisord did not start:\n{last_lines(output)}")
            time.sleep(POLL_SECONDS)
        return process.pid

    @property
    def socket(self) -> Path:
        """Where supervisord listens: in the folder, or in the temporary one when the path is too long."""
        within = self.folder / "supervisor.sock"
        if len(str(within)) <= LONGEST_SOCKET_PATH:
            return within
        name = hashlib.sha256(str(self.folder).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"sdfleet-{os.getuid()}-{name}.sock"

    def answers(self) -> bool:
        """Whether supervisord runs and listens."""
        try:
            self.call("getState")
        except NotRunning:
            return False
        return True

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of supervisord's XML-RPC interface. Raises NotRunning and Refused."""
        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.socket}")
        server = xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)
        try:
            return getattr(server.supervisor, method)(*arguments)
        except (OSError, HTTPException) as error:
            raise NotRunning(f"the stack in {self.folder} is not running") from error
        except xmlrpc.client.Fault as fault:
            raise Refused(f"supervisord refuses {method} {' '.join(map(str, arguments))}: {fault}") from fault
        finally:
            transport.close()

    def start(self, name: str) -> None:
        """Start a program that is stopped, without waiting."""
        self.call("startProcess", name, False)

    def stop(self, names: Iterable[str]) -> None:
        """Stop programs, all at the same time, and wait until they have ended."""
        waiting = list(names)
        for name in waiting:
            with contextlib.suppress(Refused):  # it does not run
                self.call("stopProcess", name, False)
        while any(self.state(name) not in ENDED for name in waiting):
            time.sleep(POLL_SECONDS)

    def shutdown(self) -> None:
        """End supervisord, once its programs have ended."""
        for process in self.processes():  # it takes a second for each that it still knows
            self.call("removeProcessGroup", process["name"])
        self.call("shutdown")

    def processes(self) -> list[dict[str, Any]]:
        """What supervisord knows about each program: name, statename, pid, start (epoch seconds), …"""
        return [process for process in self.call("getAllProcessInfo") if process["name"] != DEATHS]

    def process(self, name: str) -> dict[str, Any]:
        """What supervisord knows about one program."""
        known: dict[str, Any] = self.call("getProcessInfo", name)
        return known

    def state(self, name: str) -> str:
        """RUNNING, STARTING, BACKOFF, EXITED, …"""
        return str(self.process(name)["statename"])

    def pid(self, name: str) -> int:
        """The program's process id now; 0 when it has none."""
        return int(self.process(name)["pid"])

    def reread(self) -> None:
        """Take up programs that were added to the configuration, and drop those that are gone."""
        [[added, _changed, removed]] = self.call("reloadConfig")
        for name in removed:
            self.stop([name])
            self.call("removeProcessGroup", name)
        for name in added:
            self.call("addProcessGroup", name)


def _literal(text: str) -> str:
    """A value in which supervisord expands nothing."""
    return text.replace("%", "%%")


def _assignment(name: str, value: str) -> str:
    if any(character in value for character in '"\n'):
        raise StackError(f"supervisord cannot take a double quote or a line break in the value of {name}")
    return f'{name}="{_literal(value)}"'
