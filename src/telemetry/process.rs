//! Metrics of the process from `/proc`: the `process_*` family of Prometheus's client library and the thread counts that
//! stand in for Go's scheduler. What cannot be read is left out.

use std::fs;
use std::path::Path;

use crate::model::labels::Labels;
use crate::telemetry::metrics::{MetricFamily, MetricKind, MetricValue, Registry};

/// Ticks per second of the CPU times in `/proc`, fixed by the kernel's interface on all platforms we build for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Adds the process metrics to a registry; they are read at each gathering.
pub fn register(registry: &Registry) {
    registry.collect_with(|| collect(Path::new("/proc")));
}

/// Number of threads of the process; 0 where `/proc` does not tell.
pub fn thread_count() -> u64 {
    Stat::read(Path::new("/proc")).map_or(0, |stat| stat.threads)
}

/// Resident memory in bytes; 0 where `/proc` does not tell.
pub fn resident_bytes() -> u64 {
    Stat::read(Path::new("/proc")).map_or(0, |stat| stat.resident_pages * page_len())
}

/// A thread of this process.
pub struct ThreadStat {
    /// The system's number for it.
    pub id: u64,
    /// Its name; at most 15 bytes.
    pub name: String,
    /// What it does: `R` runs, `S` sleeps, `D` waits for a disk.
    pub state: char,
    /// Time spent on processors, in seconds.
    pub cpu_seconds: f64,
}

/// All threads of this process by number; none where `/proc` does not tell.
pub fn threads() -> Vec<ThreadStat> {
    let Ok(entries) = fs::read_dir("/proc/self/task") else { return Vec::new() };
    let read = |entry: fs::DirEntry| -> Option<ThreadStat> {
        let text = fs::read_to_string(entry.path().join("stat")).ok()?;
        let (head, tail) = text.rsplit_once(')')?;
        let (id, name) = head.split_once('(')?;
        let fields: Vec<&str> = tail.split_whitespace().collect();
        let ticks = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(ThreadStat {
            id: id.trim().parse().ok()?,
            name: name.to_owned(),
            state: fields.first()?.chars().next()?,
            cpu_seconds: ticks(14)?.checked_add(ticks(15)?)? as f64 / TICKS_PER_SECOND,
        })
    };
    let mut threads: Vec<ThreadStat> = entries.filter_map(|entry| read(entry.ok()?)).collect();
    threads.sort_unstable_by_key(|thread| thread.id);
    threads
}

fn collect(proc: &Path) -> Vec<MetricFamily> {
    let mut out = Vec::new();
    let mut add = |name: &str, help: &str, kind: MetricKind, value: Option<f64>| {
        let Some(value) = value else { return };
        let metrics = vec![(Labels::empty(), MetricValue::Number(value))];
        out.push(MetricFamily { name: name.to_owned(), help: help.to_owned(), kind, metrics });
    };
    use MetricKind::{Counter, Gauge};
    let stat = Stat::read(proc);
    let stat = stat.as_ref();
    let cpu = stat.map(|s| s.cpu_ticks as f64 / TICKS_PER_SECOND);
    add("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", Counter, cpu);
    let start = stat.and_then(|s| Some(boot_seconds(proc)? + s.start_ticks as f64 / TICKS_PER_SECOND));
    let help = "Start time of the process since unix epoch in seconds.";
    add("process_start_time_seconds", help, Gauge, start);
    let resident = stat.map(|s| (s.resident_pages * page_len()) as f64);
    add("process_resident_memory_bytes", "Resident memory size in bytes.", Gauge, resident);
    add("process_virtual_memory_bytes", "Virtual memory size in bytes.", Gauge, stat.map(|s| s.virtual_len as f64));
    let help = "Maximum amount of virtual memory available in bytes.";
    add("process_virtual_memory_max_bytes", help, Gauge, limit(proc, "Max address space"));
    let open = fs::read_dir(proc.join("self/fd")).ok().map(|entries| entries.count().saturating_sub(1) as f64);
    add("process_open_fds", "Number of open file descriptors.", Gauge, open);
    let help = "Maximum number of open file descriptors.";
    add("process_max_fds", help, Gauge, limit(proc, "Max open files"));
    let octets = network_octets(proc);
    let help = "Number of bytes received by the process over the network.";
    add("process_network_receive_bytes_total", help, Counter, octets.map(|(received, _)| received));
    let help = "Number of bytes sent by the process over the network.";
    add("process_network_transmit_bytes_total", help, Counter, octets.map(|(_, sent)| sent));
    let threads = stat.map(|s| s.threads as f64);
    add("go_threads", "Number of OS threads created.", Gauge, threads);
    let help = "Number of OS threads; they stand for goroutines, which this server does not have.";
    add("go_goroutines", help, Gauge, threads);
    out
}

struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_len: u64,
    resident_pages: u64,
}

impl Stat {
    fn read(proc: &Path) -> Option<Self> {
        let text = fs::read_to_string(proc.join("self/stat")).ok()?;
        // The second field, the program's name, may hold anything; the last parenthesis ends it.
        let fields: Vec<u64> =
            text.rsplit_once(')')?.1.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        let field = |number: usize| fields.get(number - 3).copied();
        Some(Self {
            cpu_ticks: field(14)?.checked_add(field(15)?)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_len: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn page_len() -> u64 {
    u64::try_from(rustix::param::page_size()).unwrap_or(4096)
}

fn boot_seconds(proc: &Path) -> Option<f64> {
    let text = fs::read_to_string(proc.join("stat")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// The soft limit of a line in `/proc/self/limits`; 2^64 - 1 for `unlimited`, as Prometheus's client reports it.
fn limit(proc: &Path, name: &str) -> Option<f64> {
    let text = fs::read_to_string(proc.join("self/limits")).ok()?;
    let soft = text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.to_owned();
    if soft == "unlimited" { Some(u64::MAX as f64) } else { soft.parse().ok() }
}

/// (received, sent) of the `IpExt` pair of lines: names above values.
fn network_octets(proc: &Path) -> Option<(f64, f64)> {
    let text = fs::read_to_string(proc.join("self/net/netstat")).ok()?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let find = |wanted: &str| -> Option<f64> {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        pairs.find(|(name, _)| *name == wanted)?.1.parse().ok()
    };
    Some((find("InOctets")?, find("OutOctets")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_process_whose_name_has_parentheses() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let tail: Vec<String> = (4..=52).map(|n| (n * 10).to_string()).collect();
        write("self/stat", &format!("1 (a) b) S {}", tail.join(" ")));
        write("stat", "cpu 1\nbtime 1000\n");
        write(
            "self/limits",
            "Limit  Soft Hard Units\nMax open files 1024 4096 files\nMax address space unlimited unlimited bytes\n",
        );
        write("self/net/netstat", "TcpExt: A\nTcpExt: 1\nIpExt: InOctets X OutOctets\nIpExt: 7 0 9\n");
        let families = collect(dir.path());
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"));
            match family.metrics[0].1 {
                MetricValue::Number(value) => value,
                ref other => panic!("{other:?}"),
            }
        };
        assert_eq!(value("process_cpu_seconds_total"), 2.9);
        assert_eq!(value("process_start_time_seconds"), 1002.2);
        assert_eq!(value("process_virtual_memory_bytes"), 230.0);
        assert_eq!(value("process_resident_memory_bytes"), 240.0 * page_len() as f64);
        assert_eq!(value("process_max_fds"), 1024.0);
        assert_eq!(value("process_virtual_memory_max_bytes"), 1.8446744073709552e19);
        assert_eq!(
            (value("process_network_receive_bytes_total"), value("process_network_transmit_bytes_total")),
            (7.0, 9.0)
        );
        assert_eq!(value("go_threads"), 200.0);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        assert!(collect(Path::new("/nonexistent")).is_empty());
        assert!(0 < thread_count() && 0 < resident_bytes());
    }
}
