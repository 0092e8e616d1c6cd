"""`darkroom`, with the kernel holding it to the system calls and the memory of `darkroom.service`.

`python -m tests.deploy.confined serve`: what systemd would do before it starts the program is done here by
hand, because systemd itself does not run in every place where tests do.
"""

import ctypes
import errno
import subprocess
from functools import cache
from pathlib import Path

from receiver.cli.main import main

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "darkroom.service"

# linux/prctl.h and seccomp.h
PR_SET_MDWE = 65
MDWE_REFUSE_EXEC_GAIN = 1
ALLOW = 0x7FFF0000
REFUSE = 0x00050000 | errno.EPERM


@cache
def expanded(name: str) -> frozenset[str]:
    """The calls of a set such as `@system-service`, as systemd lists them."""
    if not name.startswith("@"):
        return frozenset({name})
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
    )
    below = [line.strip() for line in told.stdout.splitlines()[1:]]
    return frozenset().union(*(expanded(one) for one in below if one and not one.startswith("#")))


def allowed() -> set[str]:
    """The system calls that the unit allows."""
    calls: set[str] = set()
    for line in UNIT.read_text().splitlines():
        name, _, value = line.partition("=")
        if name == "SystemCallFilter":
            named = frozenset().union(*(expanded(one) for one in value.lstrip("~").split()))
            calls = calls - named if value.startswith("~") else calls | named
    return calls


def confine() -> None:
    """Refuse this process, and all that it starts, what the unit refuses; raises OSError if it cannot."""
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(seccomp.seccomp_init(ctypes.c_uint32(REFUSE)))
    for call in allowed():
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # else this kind of processor has no such call
            seccomp.seccomp_rule_add(filter_, ctypes.c_uint32(ALLOW), number, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "PR_SET_MDWE")
    if (failed := seccomp.seccomp_load(filter_)) != 0:
        raise OSError(-failed, "seccomp_load")


if __name__ == "__main__":
    confine()
    main()
