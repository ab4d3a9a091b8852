"""Which ports are free, who holds one that is not, and free ones for tests."""

import random
import socket

import psutil

from stack.failures import StackError

HOST = "127.0.0.1"
BELOW_EPHEMERAL = (10_000, 32_000)  # outgoing connections take their ports above this


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on now."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(*BELOW_EPHEMERAL)
        if port not in found and is_free(port):
            found.append(port)
    return found


def listeners(port: int) -> list[psutil.Process]:
    """The processes that listen on the port, as far as this user may know."""
    try:
        connections = psutil.net_connections("tcp")
    except (psutil.AccessDenied, OSError):
        return []
    addresses = [(c.pid, c.laddr) for c in connections if c.status == psutil.CONN_LISTEN]
    pids = {pid for pid, address in addresses if pid and address and address.port == port}
    found = []
    for pid in sorted(pids):
        try:
            found.append(psutil.Process(pid))
        except psutil.NoSuchProcess:
            continue
    return found


def require_free(port: int, what: str, variable: str) -> None:
    """Raise StackError when the port is taken: which, by whom, and the variable that chooses another."""
    if is_free(port):
        return
    holders = ", ".join(f"{process.name()} (pid {process.pid})" for process in listeners(port))
    raise StackError(
        f"port {port} for {what} is in use by {holders or 'another program'}: "
        f"stop that, or choose another port with {variable}=PORT"
    )


def accepts(port: int) -> None:
    """Raise OSError unless something listens on the port."""
    socket.create_connection((HOST, port), timeout=1).close()
