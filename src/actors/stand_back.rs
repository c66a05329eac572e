//! How a thread stands back behind others of the process where cores are short, without any permission.

use std::io;

/// How much lower its priority is than that of the process, in the system's steps: each is worth a quarter more time.
pub const NICENESS: i32 = 10;
/// The lowest priority that there is.
pub(crate) const NICENESS_MAX: i32 = 19;

/// How long it would go on if nobody came, in nanoseconds: the most that Linux takes. From 6.12 on a thread that wakes up and has a
/// shorter slice, as all others have, is let through at once; before, this is passed over.
const SLICE_NS: u64 = 100_000_000;

/// Lowers the priority of this thread to `niceness`, and of those that it starts from now on. Where the system refuses, it goes on as it
/// was.
pub(crate) fn stand_back(niceness: i32) {
    if set_long_slices(niceness).is_err() {
        let _ = rustix::process::setpriority_process(None, niceness);
    }
}

/// `struct sched_attr` of Linux, as far as its first version goes (`sched_setattr(2)`).
#[repr(C)]
#[derive(Default)]
struct SchedAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// `SCHED_FLAG_KEEP_POLICY`: the class of the thread stays what it is.
const KEEP_POLICY: u64 = 0x08;

/// Sets niceness and slice of this thread together. Errors where the system knows no such call, or the thread is in a class without
/// them.
#[allow(unsafe_code, reason = "no library has this call for classes without deadlines")]
fn set_long_slices(nice: i32) -> io::Result<()> {
    const LEN: u32 = size_of::<SchedAttr>() as u32;
    let attr = SchedAttr { size: LEN, flags: KEEP_POLICY, nice, runtime: SLICE_NS, ..SchedAttr::default() };
    let (own, no_flags) = (0 as libc::pid_t, 0 as libc::c_uint);
    // SAFETY: `attr` is laid out as the system expects, says how long it is, and lives through the call, which only reads it.
    let code = unsafe { libc::syscall(libc::SYS_sched_setattr, own, &raw const attr, no_flags) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn niceness_counts_for_the_thread_and_those_that_it_starts() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let before = own();
        let lower = (before + NICENESS).min(NICENESS_MAX);
        let stood_back = move || {
            stand_back(lower);
            (own(), std::thread::spawn(own).join().unwrap())
        };
        assert_eq!(std::thread::spawn(stood_back).join().unwrap(), (lower, lower));
        assert_eq!(own(), before);
    }

    #[test]
    fn linux_takes_the_slice() {
        let lower = (rustix::process::getpriority_process(None).unwrap() + 1).min(NICENESS_MAX);
        match std::thread::spawn(move || set_long_slices(lower)).join().unwrap() {
            Ok(()) => {}
            // Where a sandbox knows no such call the niceness is all there is.
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}"),
        }
    }
}
