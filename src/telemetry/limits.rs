//! What the machine grants us: open files, memory and processors, from the cgroup first and the machine second.
//!
//! Roots of `/proc` and `/sys` are parameters, so that tests bring their own.

use std::fs;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::process::{Resource, getrlimit, setrlimit};

/// A limit of open files, before and after raising it. `None` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// Soft limit at the start.
    pub before: Option<u64>,
    /// Soft limit now.
    pub soft: Option<u64>,
    /// Hard limit.
    pub hard: Option<u64>,
}

/// Raises the soft limit of open files to the hard one. When the system refuses, the old limit stays and is reported.
pub fn raise_file_limit() -> FileLimit {
    let old = getrlimit(Resource::Nofile);
    let mut wanted = old;
    wanted.current = old.maximum;
    let raised = setrlimit(Resource::Nofile, wanted).is_ok();
    let soft = if raised { old.maximum } else { old.current };
    FileLimit { before: old.current, soft, hard: old.maximum }
}

/// Whether a new socket takes one of the last tenth of the open files that the process may have, which is left to storage:
/// it must be closed at once. The system gives the lowest free number, so a number tells how many files are open at least.
pub fn is_one_too_many(socket: BorrowedFd<'_>) -> bool {
    // Read once: the limit is raised before the first socket, and then stays.
    static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
    let limit = *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current);
    let number = u64::try_from(socket.as_raw_fd()).unwrap_or(0);
    limit.is_some_and(|limit| left_to_sockets(limit) <= number)
}

/// Nine tenths of the limit.
fn left_to_sockets(limit: u64) -> u64 {
    limit - limit.div_ceil(10)
}

/// Where a limit was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitSource {
    /// The control group of the process.
    Cgroup,
    /// The machine.
    Machine,
}

/// Bytes of memory that the process may use, and who says so. `None` when neither cgroup nor machine tell.
pub fn memory_limit() -> Option<(u64, LimitSource)> {
    memory_limit_under(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
}

/// Processors that the process may use, rounded up from a cgroup's quota; at least 1.
pub fn cpu_count() -> usize {
    let machine = std::thread::available_parallelism().map_or(1, |n| n.get());
    cpu_quota_under(Path::new("/proc"), Path::new("/sys/fs/cgroup")).map_or(machine, |quota| quota.min(machine)).max(1)
}

fn memory_limit_under(proc: &Path, cgroup_root: &Path) -> Option<(u64, LimitSource)> {
    let machine = machine_memory(proc);
    let limits = cgroup_files(proc, cgroup_root, "memory", ["memory.max", "memory.limit_in_bytes"]);
    let cgroup = limits.iter().filter_map(|text| text.trim().parse::<u64>().ok()).min();
    match (cgroup, machine) {
        // A limit above the machine's memory (version 1 writes a huge number for "none") limits nothing.
        (Some(limit), Some(total)) if total <= limit => Some((total, LimitSource::Machine)),
        (Some(limit), _) => Some((limit, LimitSource::Cgroup)),
        (None, Some(total)) => Some((total, LimitSource::Machine)),
        (None, None) => None,
    }
}

fn machine_memory(proc: &Path) -> Option<u64> {
    let text = fs::read_to_string(proc.join("meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn cpu_quota_under(proc: &Path, cgroup_root: &Path) -> Option<usize> {
    let texts = cgroup_files(proc, cgroup_root, "cpu", ["cpu.max", "cpu.cfs_quota_us"]);
    let periods = cgroup_files(proc, cgroup_root, "cpu", ["", "cpu.cfs_period_us"]);
    let v1_period = periods.first().and_then(|text| text.trim().parse::<f64>().ok());
    texts
        .iter()
        .filter_map(|text| {
            let mut words = text.split_whitespace();
            let quota: f64 = words.next()?.parse().ok()?;
            let period: f64 = words.next().and_then(|word| word.parse().ok()).or(v1_period)?;
            (0.0 < quota && 0.0 < period).then(|| (quota / period).ceil() as usize)
        })
        .min()
}

/// Contents of a limit file at each level from the process's own group up to the root, for both cgroup versions.
fn cgroup_files(proc: &Path, root: &Path, controller: &str, [v2, v1]: [&str; 2]) -> Vec<String> {
    let Ok(membership) = fs::read_to_string(proc.join("self/cgroup")) else { return Vec::new() };
    let mut texts = Vec::new();
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (base, file): (PathBuf, &str) = if controllers.is_empty() {
            (root.to_path_buf(), v2)
        } else if controllers.split(',').any(|name| name == controller) {
            (root.join(controllers), v1)
        } else {
            continue;
        };
        if file.is_empty() {
            continue;
        }
        // In a container the path is that of the host and need not exist here; the root then is our own group.
        let mut levels: Vec<&str> = path.trim_matches('/').split('/').filter(|level| !level.is_empty()).collect();
        loop {
            let folder = levels.iter().filter(|level| **level != "..").fold(base.clone(), |at, level| at.join(level));
            texts.extend(fs::read_to_string(folder.join(file)).ok());
            if levels.pop().is_none() {
                break;
            }
        }
    }
    texts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_files_is_left_to_storage() {
        assert_eq!([0, 1, 9, 10, 100, 1024].map(left_to_sockets), [0, 0, 8, 9, 90, 921]);
    }

    fn machine(membership: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/self/cgroup", membership);
        write("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n");
        files.iter().for_each(|(path, text)| write(path, text));
        dir
    }

    #[track_caller]
    fn check(dir: &tempfile::TempDir, memory: (u64, LimitSource), cpus: Option<usize>) {
        let (proc, sys) = (dir.path().join("proc"), dir.path().join("sys"));
        assert_eq!(memory_limit_under(&proc, &sys), Some(memory));
        assert_eq!(cpu_quota_under(&proc, &sys), cpus);
    }

    #[test]
    fn the_tightest_level_of_version_2_counts() {
        let files = [
            ("sys/a/memory.max", "1000\n"),
            ("sys/a/b/memory.max", "max\n"),
            ("sys/a/b/cpu.max", "150000 100000\n"),
            ("sys/a/cpu.max", "max 100000\n"),
        ];
        check(&machine("0::/a/b\n", &files), (1000, LimitSource::Cgroup), Some(2));
    }

    #[test]
    fn version_1_is_read_where_version_2_is_not() {
        let files = [
            ("sys/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
            ("sys/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
        ];
        let dir = machine("4:memory:/host/path\n3:cpu,cpuacct:/host/path\n", &files);
        check(&dir, (8_388_608 * 1024, LimitSource::Machine), Some(1));
    }

    #[test]
    fn the_file_limit_is_raised_to_the_hard_one() {
        let limit = raise_file_limit();
        assert_eq!(limit.soft, limit.hard);
        assert!(1 <= cpu_count());
    }
}
