# Copyright: (c) 2026, impair.testbed contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names of system calls that clients and servers make; others are shown by their numbers."""

from __future__ import annotations

import os

# arch/x86/entry/syscalls/syscall_64.tbl
X86_64 = {
    0: "read", 1: "write", 2: "open", 3: "close", 5: "fstat", 7: "poll", 8: "lseek", 9: "mmap", 10: "mprotect",
    11: "munmap", 12: "brk", 13: "rt_sigaction", 14: "rt_sigprocmask", 16: "ioctl", 17: "pread64", 19: "readv",
    20: "writev", 21: "access", 23: "select", 24: "sched_yield", 28: "madvise", 32: "dup", 33: "dup2",
    35: "nanosleep", 39: "getpid", 41: "socket", 42: "connect", 43: "accept", 44: "sendto", 45: "recvfrom",
    46: "sendmsg", 47: "recvmsg", 48: "shutdown", 49: "bind", 50: "listen", 51: "getsockname", 52: "getpeername",
    54: "setsockopt", 55: "getsockopt", 56: "clone", 59: "execve", 60: "exit", 61: "wait4", 63: "uname", 72: "fcntl",
    79: "getcwd", 89: "readlink", 96: "gettimeofday", 98: "getrusage", 102: "getuid", 104: "getgid", 107: "geteuid",
    108: "getegid", 131: "sigaltstack", 158: "arch_prctl", 186: "gettid", 202: "futex", 217: "getdents64",
    218: "set_tid_address", 228: "clock_gettime", 230: "clock_nanosleep", 231: "exit_group", 232: "epoll_wait",
    233: "epoll_ctl", 257: "openat", 262: "newfstatat", 270: "pselect6", 271: "ppoll", 273: "set_robust_list",
    281: "epoll_pwait", 288: "accept4", 290: "eventfd2", 291: "epoll_create1", 293: "pipe2", 299: "recvmmsg",
    302: "prlimit64", 307: "sendmmsg", 318: "getrandom", 332: "statx", 334: "rseq", 426: "io_uring_enter",
    435: "clone3", 441: "epoll_pwait2",
}  # fmt: skip
# include/uapi/asm-generic/unistd.h
GENERIC = {
    17: "getcwd", 19: "eventfd2", 20: "epoll_create1", 21: "epoll_ctl", 22: "epoll_pwait", 24: "dup3", 25: "fcntl",
    29: "ioctl", 56: "openat", 57: "close", 59: "pipe2", 61: "getdents64", 62: "lseek", 63: "read", 64: "write",
    65: "readv", 66: "writev", 67: "pread64", 72: "pselect6", 73: "ppoll", 78: "readlinkat", 79: "newfstatat",
    80: "fstat", 93: "exit", 94: "exit_group", 98: "futex", 101: "nanosleep", 113: "clock_gettime",
    115: "clock_nanosleep", 124: "sched_yield", 134: "rt_sigaction", 135: "rt_sigprocmask", 160: "uname",
    165: "getrusage", 172: "getpid", 178: "gettid", 198: "socket", 200: "bind", 201: "listen", 202: "accept",
    203: "connect", 204: "getsockname", 205: "getpeername", 206: "sendto", 207: "recvfrom", 208: "setsockopt",
    209: "getsockopt", 210: "shutdown", 211: "sendmsg", 212: "recvmsg", 214: "brk", 215: "munmap", 220: "clone",
    221: "execve", 222: "mmap", 226: "mprotect", 233: "madvise", 242: "accept4", 243: "recvmmsg", 260: "wait4",
    261: "prlimit64", 269: "sendmmsg", 278: "getrandom", 291: "statx", 293: "rseq", 426: "io_uring_enter",
    435: "clone3", 441: "epoll_pwait2",
}  # fmt: skip
TABLES = {"x86_64": X86_64, "aarch64": GENERIC, "riscv64": GENERIC}


def name(number: int) -> str:
    """Of a system call of this machine."""
    return TABLES.get(os.uname().machine, {}).get(number, f"call {number}")
