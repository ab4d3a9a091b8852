"""A whole stack in a folder: up, down, its credentials, and control over its processes."""

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from stack import leftovers
from stack.failures import AlreadyRunning, NotRunning, StackError
from stack.leftovers import Record
from stack.ports import require_free
from stack.program import Died, Program, wait_until_ready
from stack.secrets import ADMIN_USERNAME, load_or_make
from stack.settings import Settings, port_variable
from stack.stores import remove_sockets
from stack.supervision import ENDED, Refused, Supervisor
from stack.table import Table, ending_order

LEAST_FREE_BYTES = 2 * 10**9
PRIVATE = 0o700
SHUTDOWN_SECONDS = 5.0


@dataclass(frozen=True)
class Credentials:
    """What a client of a running stack needs."""

    url: str
    api_key: str
    username: str
    password: str
    s3_url: str


def _silent(_line: str) -> None: ...


class Stack:
    """One stack; several can run on a machine, each with its own folder and ports."""

    table_class = Table

    def __init__(
        self, folder: Path, settings: Settings | None = None, say: Callable[[str], None] = _silent
    ) -> None:
        self.folder = folder.resolve()
        self._settings = settings or Settings.from_env()
        self._say = say
        self.supervisor = Supervisor(self.folder)

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def up(self) -> float:
        """Start everything and wait until it is ready; the seconds that took.

        Raises AlreadyRunning, or StackError after ending what had been started.
        """
        began = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(PRIVATE)
        except OSError as error:
            why = f"{self.folder} cannot be used ({error.strerror})"
            raise StackError(f"{why}: choose another folder with SDFLEET_FOLDER=FOLDER") from error
        with self._alone():
            self._heal()
            self._check_machine()
            self._say(f"Starting the stack in {self.folder} …")
            try:
                self._start()
            except BaseException:
                self.down()
                raise
        return time.monotonic() - began

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyRunning(f"another command is starting the stack in {self.folder} now") from None
            yield

    def _heal(self) -> None:
        """Refuse a second copy; sweep up what a killed or half-started one left."""
        record = leftovers.read_record(self.folder)
        if record and record.ready and self.supervisor.answers():
            raise AlreadyRunning(
                f"the stack is already running: {record.settings.url('gateway')} (folder {self.folder}); "
                "`make down` ends it"
            )
        self.down()

    def _check_machine(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < LEAST_FREE_BYTES:
            raise StackError(
                f"only {free / 1e9:.1f} GB are free on the disk of {self.folder}, "
                f"the stack needs {LEAST_FREE_BYTES / 1e9:.0f} GB: "
                "free some, or set SDFLEET_FOLDER to a folder on another disk"
            )
        for name, port in self._settings.ports.items():
            require_free(port, name, port_variable(name))

    def _start(self) -> None:
        table = self.table_class.make(self.folder, self._settings, load_or_make(self.folder))
        programs = table.programs()
        table.render_gateway()
        self.supervisor.configure(programs)
        self.supervisor.put_logs_away()
        pid = self.supervisor.launch(self._settings.environment)
        record = Record.of(pid, self._settings, table.run)
        record.write(self.folder)
        self._launch(table.workers())  # importing PyTorch takes longest, and needs nobody
        self._bring_up(table.stores())
        table.migrate()
        self._launch(table.others())
        self.wait_ready([*table.others(), *table.workers()])
        replace(record, ready=True).write(self.folder)

    def _bring_up(self, programs: Sequence[Program]) -> None:
        """Start programs at the same time, then wait for the condition of each; a death is a failure."""
        self._launch(programs)
        self.wait_ready(programs)

    def _launch(self, programs: Sequence[Program]) -> None:
        for program in programs:
            self.supervisor.start(program.name)

    def wait_ready(self, programs: Sequence[Program]) -> None:
        """Wait until programs that were started are ready."""
        pids: dict[str, int] = {}

        def check_alive(program: Program) -> None:
            process = self.supervisor.process(program.name)
            state, pid = process["statename"], process["pid"]
            if state in ENDED or pid != pids.setdefault(program.name, pid):
                raise Died
            if program.ready is None and state != "RUNNING":
                raise StackError("it has not yet run for a second")

        def log_of(program: Program) -> Path:
            return self.supervisor.logs / f"{program.name}.log"

        wait_until_ready(programs, log_of, check_alive, self._say)

    def down(self) -> None:
        """End every process: in good order when supervisord answers, by force what is left then."""
        record = leftovers.read_record(self.folder)
        if record:
            replace(record, ready=False).write(self.folder)  # whoever follows it sees that this is meant
        patience = self._end_in_order()
        leftovers.end_all(self.folder, patience)
        self.supervisor.socket.unlink(missing_ok=True)
        if record:
            remove_sockets(record.settings.store_ports)
        leftovers.forget(self.folder)

    def _end_in_order(self) -> float:
        """Let supervisord end everything; the seconds that it may still take itself."""
        try:
            names = [process["name"] for process in self.supervisor.processes()]
            for wave in ending_order(names):
                self.supervisor.stop(wave)
            self.supervisor.shutdown()
        except NotRunning:
            return 0.0
        except Refused:
            pass  # another command ends it at the same time
        return SHUTDOWN_SECONDS

    def record(self) -> Record:
        """How the running stack was started. Raises NotRunning when there is none."""
        record = leftovers.read_record(self.folder)
        if record is None or not self.supervisor.answers():
            raise NotRunning(f"no stack is running in {self.folder}; `make up` starts one")
        return record

    def creds(self) -> Credentials:
        """What a client needs. Raises NotRunning when nothing runs."""
        record = self.record()
        if not record.ready:
            raise NotRunning(f"the stack in {self.folder} is still starting, or is ending now")
        settings, secrets = record.settings, load_or_make(self.folder)
        return Credentials(
            url=settings.url("gateway"),
            api_key=secrets.api_key,
            username=ADMIN_USERNAME,
            password=secrets.admin_password,
            s3_url=settings.url("s3"),
        )

    def pid(self, name: str) -> int:
        """The process id of a program; 0 while it has none."""
        return self.supervisor.pid(name)

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a program's first process, as an accident would; the pid that got it."""
        pid = self.pid(name)
        os.kill(pid, with_signal)
        return pid

    def stop(self, *names: str) -> None:
        """Stop programs in good order; they stay stopped."""
        self.supervisor.stop(names)

    def start(self, *names: str) -> None:
        """Start programs that are stopped and wait until they are ready."""
        self._bring_up(self._programs(names))

    def restart(self, *names: str) -> None:
        """Stop and start programs."""
        self.stop(*names)
        self.start(*names)

    def scale(self, workers: int) -> None:
        """Run this many GPU workers from now on; those that leave end in good order."""
        before = self._table()
        record = replace(self.record(), workers=workers)
        record.write(self.folder)
        table = self._table()
        self.supervisor.configure(table.programs())
        self.supervisor.reread()
        old = {program.name for program in before.workers()}
        self._bring_up([program for program in table.workers() if program.name not in old])

    def _programs(self, names: Iterable[str]) -> list[Program]:
        known = {program.name: program for program in self._table().programs()}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise StackError(f"there is no program {', '.join(unknown)}; there are {', '.join(known)}")
        return [known[name] for name in names]

    def _table(self) -> Table:
        """The table of the stack that runs."""
        record = self.record()
        return self.table_class(self.folder, record.settings, load_or_make(self.folder), record.run)
