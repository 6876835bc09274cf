//! The one module where `unsafe` is allowed: what neither std nor nix offers safely.

use std::process::Command;

/// Makes `command`, when spawned, the leader of a new session (and so of a new process group, without a
/// terminal) that inherits no descriptor but 0, 1 and 2.
#[expect(unsafe_code, reason = "pre_exec is unsafe by signature")]
pub fn new_session(command: &mut Command) -> &mut Command {
    use std::os::unix::process::CommandExt;
    let prepare = || {
        nix::unistd::setsid()?;
        // SAFETY: a system call on plain integers. CLOSE_RANGE_CLOEXEC only marks descriptors, so the
        // pipe by which std reports a failed exec works on. Kernels before 5.11 answer EINVAL or ENOSYS
        // (close_range(2)); then std's own O_CLOEXEC has to do.
        unsafe {
            libc::syscall(
                libc::SYS_close_range,
                3,
                u32::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            )
        };
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
        let output = new_session(Command::new("bash").args(["-c", script]))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let words: Vec<_> = text.split_whitespace().collect();
        assert_eq!(words[0], words[1], "{text}");
        // The shell opens the folder to list it, under the first free number.
        let left = words[2..].iter().filter(|fd| **fd != "3").count();
        assert_eq!(left, 3, "{text}");
        drop(inheritable);
    }
}
