//! What is asked of the allocator: to give back what was freed, and its samples of allocations, for heap profiles. It takes samples only
//! if it was told at its start, which is that of the process: otherwise an allocation costs what it costs without. One in 512 KiB of
//! what is allocated is noted with its stack.

use std::ffi::{CStr, CString, c_void};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use rustix::fs::MemfdFlags;

/// Where the allocator looks for settings when it starts.
const VARIABLE: &str = "_RJEM_MALLOC_CONF";
/// Samples are taken; what was allocated and freed is counted as well.
const SAMPLING: &str = "prof:true,prof_accum:true";
/// Longest text of samples that is read.
const SAMPLES_LEN_MAX: u64 = 256 << 20;

/// Why there are no samples.
#[derive(Debug, thiserror::Error)]
pub enum AllocatorError {
    /// The allocator is another one, or was started without sampling.
    #[error("the allocator of this process takes no samples")]
    NotSampling,
    /// The allocator refused.
    #[error("the allocator refused {what}: error {code}")]
    Refused {
        /// The name of what was asked of it.
        what: &'static str,
        /// The system's number of the error.
        code: i32,
    },
    /// The text of the samples could not be held.
    #[error("cannot hold the samples: {0}")]
    Io(#[from] io::Error),
}

/// Gives what was freed back to the system at once, in place of keeping it for a while. For who has let go of much and will not need as
/// much again: it takes a system call for each stretch of pages, and touching fresh ones takes longer.
#[allow(unsafe_code, reason = "the allocator has a C interface alone")]
pub fn give_back() {
    let (old, old_len, new) = (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the name ends with a zero; this call takes no value and returns none. The number stands for all arenas. Should the
    // allocator refuse, nothing has changed.
    let _ = unsafe { tikv_jemalloc_sys::mallctl(c"arena.4096.purge".as_ptr(), old, old_len, new, 0) };
}

/// Whether the allocator can take samples.
pub fn can_sample() -> bool {
    read_flag(c"opt.prof") == Some(true)
}

/// Has the allocator take samples from now on: unless it does, the process is started anew in its place, with the same number
/// and arguments, and told so. To be called before anything else has begun. Returns if it does, or cannot.
pub fn sample_from_the_start() -> Result<(), AllocatorError> {
    if can_sample() {
        return Ok(());
    }
    let settings = std::env::var(VARIABLE).unwrap_or_default();
    // Told already, so this is another allocator.
    if settings.contains(SAMPLING) {
        return Err(AllocatorError::NotSampling);
    }
    let settings = if settings.is_empty() { SAMPLING.to_owned() } else { format!("{settings},{SAMPLING}") };
    let mut args = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    Err(command.args(args).env(VARIABLE, settings).exec().into())
}

/// The samples as the allocator writes them: what is in use and what was ever allocated, by stack. May take some
/// milliseconds; blocks the thread.
pub fn samples() -> Result<Vec<u8>, AllocatorError> {
    if !can_sample() {
        return Err(AllocatorError::NotSampling);
    }
    // The allocator writes to a file by its name; this one is in memory alone.
    let mut file = File::from(rustix::fs::memfd_create(c"heap", MemfdFlags::CLOEXEC).map_err(io::Error::from)?);
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)?;
    let mut pointer = path.as_ptr();
    write(c"prof.dump", "prof.dump", &mut pointer)?;
    file.rewind()?;
    let mut text = Vec::new();
    file.take(SAMPLES_LEN_MAX).read_to_end(&mut text)?;
    Ok(text)
}

#[allow(unsafe_code, reason = "the allocator has a C interface alone")]
fn read_flag(name: &CStr) -> Option<bool> {
    let (mut value, mut len) = (0u8, size_of::<bool>());
    // SAFETY: `name` ends with a zero; both flags that are asked for are of one byte, which `value` is, and `len` says so: the
    // allocator writes no more.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), (&raw mut value).cast(), &raw mut len, std::ptr::null_mut(), 0)
    };
    (code == 0).then_some(value != 0)
}

#[allow(unsafe_code, reason = "the allocator has a C interface alone")]
fn write<T: Copy>(name: &CStr, what: &'static str, value: &mut T) -> Result<(), AllocatorError> {
    let (old, old_len) = (std::ptr::null_mut::<c_void>(), std::ptr::null_mut());
    // SAFETY: `name` ends with a zero; `value` lives through the call and is as long as it says. The allocator compares that
    // with the type of the setting (a `bool`, a pointer to a text that ends with a zero) and refuses another length.
    let code = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), old, old_len, std::ptr::from_mut(value).cast(), size_of::<T>())
    };
    if code == 0 { Ok(()) } else { Err(AllocatorError::Refused { what, code }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests use another allocator, so this one says no; the profile itself is tested through the program.
    #[test]
    fn without_its_settings_it_refuses() {
        assert!(!can_sample());
        assert!(matches!(samples(), Err(AllocatorError::NotSampling)));
        assert_eq!(read_flag(c"no.such.name"), None);
    }
}
