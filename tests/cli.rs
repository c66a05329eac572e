//! The program itself: what it prints, where, and its exit codes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_watchfire")).args(args).output().unwrap()
}

#[track_caller]
fn check_refused(args: &[&str], code: i32, start: &str) {
    let output = run(args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(text.starts_with(start), "{text:?} does not start with {start:?}");
    assert!(output.stdout.is_empty());
}

#[test]
fn help_version_and_default_config_go_to_stdout() {
    for (arg, start) in [
        ("--help", "usage: watchfire "),
        ("-h", "usage: watchfire "),
        ("--version", "watchfire, version "),
        ("--print-default-config", "# The configuration"),
    ] {
        let output = run(&[arg]);
        assert_eq!(output.status.code(), Some(0), "{arg}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(start), "{arg}");
        assert!(output.stderr.is_empty(), "{arg}");
    }
}

#[test]
fn bad_arguments_are_refused() {
    check_refused(&["--foo"], 1, "Error parsing command line arguments: unknown long flag '--foo'\n");
    check_refused(
        &["--query.timeout=x"],
        2,
        "Error parsing command line arguments: not a valid duration string: \"x\" (--query.timeout)\n",
    );
    check_refused(&["--storage.agent.path=x"], 3, "The following flag(s) can only be used in agent mode: ");
    check_refused(&["--auto-gomemlimit.ratio=0"], 1, "--auto-gomemlimit.ratio must be greater than 0 ");
    check_refused(&["amtool", "alert"], 2, "watchfire amtool: not built yet\n");
    let server_only = "The following flag(s) can not be used in agent mode: [\"--storage.tsdb.path\"]";
    check_refused(&["--agent", "--storage.tsdb.path=x"], 3, server_only);
    let batch = "--storage.agent.checkpoint-batch-size must be greater than 0.";
    check_refused(&["--agent", "--storage.agent.checkpoint-batch-size=0"], 1, batch);
    check_refused(&["--web.config.file=/absent.yml"], 1, "");
}

#[test]
fn words_that_make_no_command_line_end_with_1() {
    let start = "Error parsing command line arguments: ";
    check_refused(&["extra"], 1, &format!("{start}unexpected extra\n"));
    check_refused(&["--config.file"], 1, &format!("{start}expected argument for flag '--config.file'\n"));
    check_refused(&["-x"], 1, &format!("{start}unknown short flag '-x'\n"));
    check_refused(&["@/absent"], 1, &format!("{start}failed to open arguments file \"/absent\": open /absent: "));
    check_refused(&["--web.page-title=a", "--web.page-title=b"], 2, start);
}

#[test]
fn sizes_and_addresses_are_checked_before_the_start() {
    let segment = "flag 'storage.tsdb.wal-segment-size' must be set between 10MB and 256MB";
    check_refused(&["--storage.tsdb.wal-segment-size=5MB"], 1, segment);
    check_refused(&["--storage.tsdb.wal-segment-size=300MB"], 1, segment);
    let chunk = "flag 'storage.tsdb.max-block-chunk-segment-size' must be set over 1MB";
    check_refused(&["--storage.tsdb.max-block-chunk-segment-size=1KB"], 1, chunk);
    check_refused(
        &["--web.external-url=::bad"],
        2,
        "parse external URL \"::bad\": parse \"::bad\": missing protocol scheme",
    );
    check_refused(&["--web.listen-address=127.0.0.1:x"], 2, "parse external URL \"\": parse \"http://");
}
