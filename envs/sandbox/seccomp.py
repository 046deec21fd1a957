"""The sandbox's filter of system calls: no new processes, and nothing that widens what a program can reach."""

import errno
import functools
import os

from leafe_graph.errors import MissingDependency

_NO_PROCESSES = ("fork", "vfork")
_FORBIDDEN = (
    # other processes, and what can look into them
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "kcmp", "pidfd_open", "pidfd_getfd"),
    *("pidfd_send_signal", "perf_event_open"),
    # mounts, namespaces, roots
    *("mount", "umount", "umount2", "pivot_root", "chroot", "unshare", "setns", "open_tree", "move_mount", "fsopen"),
    *("fsconfig", "fsmount", "fspick", "mount_setattr", "open_by_handle_at", "name_to_handle_at", "fanotify_init"),
    # sockets; socketpair stays, event loops need it
    *("socket", "socketcall"),
    # the kernel's own machinery, where most holes were found
    *("bpf", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup"),
    *("add_key", "request_key", "keyctl", "modify_ldt", "iopl", "ioperm", "personality", "vmsplice", "acct"),
    *("init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load", "reboot", "swapon", "swapoff"),
    *("syslog", "quotactl", "quotactl_fd", "nfsservctl", "vhangup", "lookup_dcookie"),
    *("settimeofday", "clock_settime", "clock_adjtime", "adjtimex", "stime", "sethostname", "setdomainname"),
    # memory that no limit counts
    *("memfd_create", "memfd_secret", "shmget", "shmat", "msgget", "semget", "mq_open"),
    # nodes of devices
    *("mknod", "mknodat"),
)
_CLONE_THREAD = 0x00010000


@functools.cache
def program() -> bytes:
    """The filter as BPF, for ``bwrap --seccomp``; another architecture's calls end the process.

    Raises:
        MissingDependency: pyseccomp or the C library libseccomp is not installed.
    """
    try:
        import pyseccomp as seccomp
    except (ImportError, OSError, RuntimeError) as error:  # it looks for the C library when it is imported
        raise MissingDependency(
            f"the sandbox's filter of system calls cannot be made ({error}): pip install pyseccomp, and "
            "apt-get install libseccomp2",
            extra="codecontests",
        ) from error
    rules = seccomp.SyscallFilter(seccomp.ALLOW)

    def deny(name: str, code: int, *args: object) -> None:
        if seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) >= 0:  # not every architecture and version has every one
            rules.add_rule(seccomp.ERRNO(code), name, *args)

    for name in _NO_PROCESSES:
        deny(name, errno.EAGAIN)
    deny("clone", errno.EAGAIN, seccomp.Arg(0, seccomp.MASKED_EQ, _CLONE_THREAD, 0))
    deny("clone3", errno.ENOSYS)  # its flags cannot be seen by a filter; the C library falls back to clone
    for name in _FORBIDDEN:
        deny(name, errno.EPERM)
    fd = os.memfd_create("seccomp")
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            rules.export_bpf(file)
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)
