//! `promtool debug pprof|metrics|all`: profiles and metrics of a server, put into an archive.

use std::fs::File;
use std::io::{self, Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use url::Url;

use super::server::Server;
use super::{Command, ENABLE_FEATURE, EXPERIMENTAL, Given, refuse};
use crate::cli::EXIT_FAILURE;
use crate::cli::flag_spec::FlagSpec;
use crate::client::Request;

/// The name of the archive, in the current folder.
const ARCHIVE: &str = "debug.tar.gz";
/// Longest time for one of them; profiles take half a minute.
const WITHIN: Duration = Duration::from_secs(120);
/// Longest profile, uncompressed.
const PROFILE_LEN_MAX: u64 = 1 << 30;

const PROFILES: [(&str, &str); 6] = [
    ("/debug/pprof/profile?seconds=30", "cpu.pb"),
    ("/debug/pprof/block", "block.pb"),
    ("/debug/pprof/goroutine", "goroutine.pb"),
    ("/debug/pprof/heap", "heap.pb"),
    ("/debug/pprof/mutex", "mutex.pb"),
    ("/debug/pprof/threadcreate", "threadcreate.pb"),
];
const TRACE: (&str, &str) = ("/debug/pprof/trace?seconds=30", "trace.pb");
const METRICS: (&str, &str) = ("/metrics", "metrics.txt");

static FLAGS: [FlagSpec; 2] = [EXPERIMENTAL, ENABLE_FEATURE];

pub(super) static PPROF: Command = Command {
    path: &["debug", "pprof"],
    words: "<server>",
    summary: "Fetch profiling debug information.",
    flags: &FLAGS,
    run: |given| run(given, &[&PROFILES, &[TRACE]]),
};
pub(super) static METRICS_ONLY: Command = Command {
    path: &["debug", "metrics"],
    words: "<server>",
    summary: "Fetch metrics debug information.",
    flags: &FLAGS,
    run: |given| run(given, &[&[METRICS]]),
};
pub(super) static ALL: Command = Command {
    path: &["debug", "all"],
    words: "<server>",
    summary: "Fetch all debug information.",
    flags: &FLAGS,
    run: |given| run(given, &[&PROFILES, &[TRACE], &[METRICS]]),
};

fn run(given: &Given, groups: &[&[(&str, &str)]]) -> u8 {
    let server = match given.words.as_slice() {
        [server] => server,
        [] => return refuse("required argument 'server' not provided"),
        [_, more, ..] => return refuse(&format!("unexpected {more}")),
    };
    match collect(server, groups) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error completing debug command: {error}");
            EXIT_FAILURE
        }
    }
}

fn collect(server: &str, groups: &[&[(&str, &str)]]) -> Result<(), String> {
    let failed = |error: io::Error| format!("error creating archive \"{ARCHIVE}\": {error}");
    let mut archive = GzEncoder::new(File::create(ARCHIVE).map_err(failed)?, Compression::default());
    let client = Server::new(server, &[], WITHIN, None)?;
    for (path, name) in groups.iter().copied().flatten() {
        let url = format!("{server}{path}");
        let _ = writeln!(io::stdout(), "collecting: {url}");
        let wrong = |error: String| format!("error executing HTTP request: {error}");
        let parsed = Url::parse(&url).map_err(|error| wrong(error.to_string()))?;
        let answer = client.send(Request::get(parsed)).map_err(wrong)?;
        if !(200..300).contains(&answer.status) {
            // A server that lacks one of them still has the others.
            let _ = writeln!(io::stderr(), "skipped: the server answered {} for {path}", answer.status);
            continue;
        }
        let is_profile = PROFILES.iter().any(|(known, _)| known == path);
        let body = if is_profile { unpacked(&answer.body)? } else { answer.body };
        put(&mut archive, name, &body).map_err(|error| format!("error writing into the archive: {error}"))?;
    }
    // Two empty blocks end an archive.
    let end = archive.write_all(&[0; 1024]).and_then(|()| archive.finish()).and_then(|mut file| file.flush());
    end.map_err(|error| format!("error closing archive writer: {error}"))?;
    let _ = writeln!(io::stdout(), "Compiling debug information complete, all files written in \"{ARCHIVE}\".");
    Ok(())
}

/// A profile without its compression.
fn unpacked(body: &[u8]) -> Result<Vec<u8>, String> {
    if !body.starts_with(&[0x1f, 0x8b]) {
        return Ok(body.to_vec());
    }
    let mut out = Vec::new();
    let read = MultiGzDecoder::new(body).take(PROFILE_LEN_MAX).read_to_end(&mut out);
    read.map_err(|error| format!("error post-processing HTTP response body: decompressing profile: {error}"))?;
    Ok(out)
}

/// A file of an archive: a block that describes it, and its bytes in blocks of 512.
fn put(archive: &mut impl Write, name: &str, body: &[u8]) -> io::Result<()> {
    let mut head = [0u8; 512];
    let mut field = |at: usize, text: &str| {
        if let Some(room) = head.get_mut(at..at + text.len()) {
            room.copy_from_slice(text.as_bytes());
        }
    };
    field(0, name);
    field(100, "0000666\0");
    field(108, "0000000\0");
    field(116, "0000000\0");
    field(124, &format!("{:011o}\0", body.len()));
    field(136, "00000000000\0");
    // The sum counts its own field as blanks.
    field(148, "        ");
    field(156, "0");
    field(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(room) = head.get_mut(148..156) {
        room.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive.write_all(&head)?;
    archive.write_all(body)?;
    archive.write_all(&vec![0; body.len().next_multiple_of(512) - body.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_have_whole_blocks_and_right_sums() {
        let mut out = Vec::new();
        put(&mut out, "a.txt", b"hello").unwrap();
        assert_eq!(out.len(), 1024);
        assert_eq!((&out[..6], &out[124..135], &out[512..517]), (&b"a.txt\0"[..], &b"00000000005"[..], &b"hello"[..]));
        let sum = u32::from_str_radix(std::str::from_utf8(&out[148..154]).unwrap(), 8).unwrap();
        let bytes: u32 = out[..148].iter().chain(&out[156..512]).map(|byte| u32::from(*byte)).sum();
        assert_eq!(sum, bytes + 8 * 32);
    }
}
