"""A system call filter (seccomp BPF) for programs in the sandbox, to reduce the exposed kernel interface."""

from __future__ import annotations

import errno
import functools
import struct
from collections.abc import Iterable, Iterator

# System call numbers from the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
# Refused are: inspecting other processes, namespaces and mounts, keys, kernel modules and in-kernel programs, memory that no
# limit counts (System V shared memory and queues), and interfaces with a history of vulnerabilities.
_REFUSED = {
    "x86_64": {
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "pidfd_getfd": 438,
        "process_madvise": 440, "unshare": 272, "setns": 308, "mount": 165, "umount2": 166, "pivot_root": 155,
        "chroot": 161, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "add_key": 248, "request_key": 249, "keyctl": 250, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "shmget": 29, "msgget": 68, "semget": 64, "mq_open": 240, "init_module": 175,
        "finit_module": 313, "delete_module": 176, "kexec_load": 246, "kexec_file_load": 320, "reboot": 169,
        "swapon": 167, "swapoff": 168, "acct": 163, "quotactl": 179, "open_by_handle_at": 304,
        "name_to_handle_at": 303, "personality": 135, "vmsplice": 278, "fanotify_init": 300, "syslog": 103,
        "settimeofday": 164, "clock_settime": 227, "modify_ldt": 154, "iopl": 172, "ioperm": 173,
    },
    "aarch64": {
        "ptrace": 117, "process_vm_readv": 270, "process_vm_writev": 271, "kcmp": 272, "pidfd_getfd": 438,
        "process_madvise": 440, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39, "pivot_root": 41,
        "chroot": 51, "open_tree": 428, "move_mount": 429, "fsopen": 430, "fsconfig": 431, "fsmount": 432,
        "fspick": 433, "mount_setattr": 442, "add_key": 217, "request_key": 218, "keyctl": 219, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "shmget": 194, "msgget": 186, "semget": 190, "mq_open": 180, "init_module": 105,
        "finit_module": 273, "delete_module": 106, "kexec_load": 104, "kexec_file_load": 294, "reboot": 142,
        "swapon": 224, "swapoff": 225, "acct": 89, "quotactl": 60, "open_by_handle_at": 265,
        "name_to_handle_at": 264, "personality": 92, "vmsplice": 75, "fanotify_init": 262, "syslog": 116,
        "settimeofday": 170, "clock_settime": 112,
    },
}  # fmt: skip
# Additionally refused to a process that only computes: other processes, signals to them, limits and priorities (including those
# of others), sockets, and changes of files.
_REFUSED_TO_CALCULATIONS = {
    "x86_64": {
        "fork": 57, "vfork": 58, "clone": 56, "execve": 59, "execveat": 322, "kill": 62, "tkill": 200, "tgkill": 234,
        "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "pidfd_send_signal": 424, "prlimit64": 302, "setrlimit": 160,
        "setpriority": 141, "sched_setparam": 142, "sched_setscheduler": 144, "sched_setaffinity": 203,
        "sched_setattr": 314, "ioprio_set": 251, "socket": 41, "socketpair": 53, "unlink": 87, "unlinkat": 263,
        "rename": 82, "renameat": 264, "renameat2": 316, "mkdir": 83, "mkdirat": 258, "rmdir": 84, "link": 86,
        "linkat": 265, "symlink": 88, "symlinkat": 266, "mknod": 133, "mknodat": 259, "creat": 85, "truncate": 76,
        "chmod": 90, "fchmodat": 268, "chown": 92, "lchown": 94, "fchownat": 260, "openat2": 437,
    },
    "aarch64": {
        "clone": 220, "execve": 221, "execveat": 281, "kill": 129, "tkill": 130, "tgkill": 131,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "pidfd_send_signal": 424, "prlimit64": 261, "setrlimit": 164,
        "setpriority": 140, "sched_setparam": 118, "sched_setscheduler": 119, "sched_setaffinity": 122,
        "sched_setattr": 274, "ioprio_set": 30, "socket": 198, "socketpair": 199, "unlinkat": 35, "renameat": 38,
        "renameat2": 276, "mkdirat": 34, "linkat": 37, "symlinkat": 36, "mknodat": 33, "truncate": 45, "fchmodat": 53,
        "fchownat": 54, "openat2": 437,
    },
}  # fmt: skip
# Calls that open files, with the index of their flags argument.
_OPENING = {"x86_64": {2: 1, 257: 2}, "aarch64": {56: 2}}
_OPEN_TO_WRITE = 0o103  # O_WRONLY, O_RDWR, O_CREAT
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_* of linux/audit.h
_SOCKET = {"x86_64": 41, "aarch64": 198}
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE3 = 435
_X32 = 0x40000000  # the alternative numbering of x86_64
_NEW_NAMESPACES = 0x7E020080  # CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_AF_UNIX = 1

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # linux/bpf_common.h
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000  # linux/seccomp.h
_NUMBER, _ARCHITECTURE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data


@functools.cache
def system_call_filter(machine: str) -> bytes | None:
    """The filter for a processor architecture in bubblewrap's format; None for an unknown architecture.

    Refused calls fail with EPERM. Sockets are limited to AF_UNIX. ``clone`` cannot create namespaces; ``clone3``, whose arguments
    a filter cannot inspect, appears unsupported, so that libraries use ``clone``.
    """
    if machine not in _REFUSED:
        return None
    code = [*_beginning(machine), *_refusals(_REFUSED[machine].values())]
    code += [(_EQUAL, 0, 2, _SOCKET[machine]), (_LOAD, 0, 0, _ARGUMENT), (_EQUAL, 4, 3, _AF_UNIX)]
    code += [(_EQUAL, 0, 3, _CLONE[machine]), (_LOAD, 0, 0, _ARGUMENT), (_ANY_BIT, 0, 1, _NEW_NAMESPACES)]
    return _packed([*code, _REFUSE, (_RETURN, 0, 0, _ALLOW)])


@functools.cache
def calculation_filter(machine: str) -> bytes | None:
    """An additional filter for a process that only computes; None for an unknown architecture.

    In addition to `system_call_filter` it refuses processes and threads, signals to others, limits and priorities, sockets, and
    any change of files.
    """
    if machine not in _REFUSED:
        return None
    code = [*_beginning(machine), *_refusals(_REFUSED_TO_CALCULATIONS[machine].values())]
    for number, place in _OPENING[machine].items():
        flags = (_LOAD, 0, 0, _ARGUMENT + 8 * place)
        code += [(_EQUAL, 0, 4, number), flags, (_ANY_BIT, 0, 1, _OPEN_TO_WRITE), _REFUSE, (_RETURN, 0, 0, _ALLOW)]
    return _packed([*code, (_RETURN, 0, 0, _ALLOW)])


_Instruction = tuple[int, int, int, int]
"""Operation, jump if true, jump if false, operand."""

_REFUSE: _Instruction = (_RETURN, 0, 0, _ERRNO | errno.EPERM)


def _beginning(machine: str) -> list[_Instruction]:
    """Check the architecture, load the call number, refuse the alternative numbering and ``clone3``."""
    code = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _KILL)]
    code += [(_LOAD, 0, 0, _NUMBER)]
    if machine == "x86_64":
        code += [(_AT_LEAST, 0, 1, _X32), _REFUSE]
    return [*code, (_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | errno.ENOSYS)]


def _refusals(numbers: Iterable[int]) -> Iterator[_Instruction]:
    for number in sorted(numbers):
        yield (_EQUAL, 0, 1, number)
        yield _REFUSE


def _packed(code: Iterable[_Instruction]) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
