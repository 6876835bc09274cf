//! The system calls that neither std nor nix wraps in a form this crate can use. All unsafe code of
//! the crate is here; every function is safe to call.
#![expect(
    unsafe_code,
    reason = "wait4, waitid with any signal number, sigaction, descriptor flags, leases and pre_exec need it"
)]

use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus};

/// An ended child and what it and the children it waited for used.
#[derive(Debug)]
pub(crate) struct EndedChild {
    /// How it ended.
    pub(crate) status: ExitStatus,
    /// User plus system time.
    pub(crate) cpu_milliseconds: u64,
    /// Largest resident set.
    pub(crate) memory_bytes: u64,
}

/// Returns a child that has ended and leaves it as it is: its process id, and so its group's, cannot be
/// given to another process before [`reap`].
pub(crate) fn ended_child() -> Option<i32> {
    // SAFETY: siginfo_t is plain data; all bits zero is a valid value of it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` lives across the call and is the type the call writes.
    if unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, flags) } != 0 {
        return None;
    }
    // SAFETY: after success the structure is either still zero or filled for SIGCHLD.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then_some(pid)
}

/// Collects an ended child; `None` when it has not ended or is no child of ours.
pub(crate) fn reap(pid: i32) -> Option<EndedChild> {
    let mut status = 0;
    // SAFETY: rusage is plain data; all bits zero is a valid value of it.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to live values of the types the call writes.
    let result = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage) };
    (result == pid).then(|| EndedChild {
        status: ExitStatus::from_raw(status),
        cpu_milliseconds: milliseconds(usage.ru_utime) + milliseconds(usage.ru_stime),
        memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * 1024,
    })
}

fn milliseconds(time: libc::timeval) -> u64 {
    let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_usec);
    u64::try_from(micros / 1000).unwrap_or(0)
}

/// Gives every ignored signal but SIGPIPE a handler that does nothing. To this process that is the same, but a
/// program it executes starts with the default action instead of an ignored signal (nohup, `&` in
/// scripts); SIGPIPE is reset by std when it spawns.
pub(crate) fn catch_ignored_signals() {
    extern "C" fn nothing(_signal: libc::c_int) {}
    for signal in 1..=libc::SIGRTMAX() {
        if signal == libc::SIGPIPE {
            continue;
        }
        // SAFETY: both structures are valid and live; the handler touches nothing, so it is
        // async-signal-safe. Signals that cannot be caught make the calls fail without effect.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut action) == 0 && action.sa_sigaction == libc::SIG_IGN {
                action.sa_sigaction = nothing as *const () as libc::sighandler_t;
                action.sa_flags = libc::SA_RESTART;
                libc::sigaction(signal, &raw const action, std::ptr::null_mut());
            }
        }
    }
}

/// Marks every descriptor from 3 on close-on-exec: ours are anyway, but the batch system may have left some
/// open in us.
pub(crate) fn close_inherited_on_exec() -> std::io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(descriptor) = name.to_str().and_then(|text| text.parse::<i32>().ok()) else {
            continue;
        };
        if descriptor > 2 {
            // SAFETY: changes a flag only; a descriptor closed meanwhile gives EBADF, which does
            // not matter.
            unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
        }
    }
    Ok(())
}

/// Whether no other process, and no other opening in this one, has the file open: only then does the kernel grant
/// a write lease (fcntl(2)). False where the file system has no leases.
pub(crate) fn is_sole_opener(file: &std::fs::File) -> bool {
    use std::os::fd::AsRawFd;
    /// From `asm-generic/fcntl.h`; the libc crate lacks it.
    const F_SETSIG: libc::c_int = 10;
    let descriptor = file.as_raw_fd();
    // SAFETY: system calls on an open descriptor and plain integers. An opening in the moment between the two
    // would send SIGURG, which does nothing, instead of SIGIO, which ends a process.
    unsafe {
        libc::fcntl(descriptor, F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_WRLCK) == 0
            && libc::fcntl(descriptor, libc::F_SETLEASE, libc::F_UNLCK) == 0
    }
}

/// Makes `command`, when spawned, the leader of a new session (and so of a new process group, without a
/// terminal) that inherits no descriptor but 0, 1 and 2.
pub(crate) fn new_session(command: &mut Command) -> &mut Command {
    let prepare = || {
        nix::unistd::setsid()?;
        // SAFETY: a system call on plain integers. CLOSE_RANGE_CLOEXEC only marks descriptors, so the
        // pipe by which std reports a failed exec works on. Kernels before 5.11 answer EINVAL or ENOSYS
        // (close_range(2)); then std's own O_CLOEXEC has to do.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        Ok(())
    };
    // SAFETY: between fork and exec the closure makes two system calls, setsid(2) and close_range(2),
    // which are async-signal-safe; it takes no lock, allocates nothing and borrows nothing.
    unsafe { command.pre_exec(prepare) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leads_its_own_session_with_three_descriptors() {
        use nix::fcntl::{FcntlArg, FdFlag, fcntl};
        let inheritable = std::fs::File::open("/dev/null").unwrap();
        fcntl(&inheritable, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let script = "read -r stat < /proc/$$/stat; set -- ${stat##*) }; echo $$ $4; \
            for fd in /proc/$$/fd/*; do echo ${fd##*/}; done";
        let output = new_session(Command::new("bash").args(["-c", script])).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words[0], words[1], "{text}");
        // The shell opens the folder to list it, under the first free number.
        let left = words[2..].iter().filter(|fd| **fd != "3").count();
        assert_eq!(left, 3, "{text}");
        drop(inheritable);
    }
}
