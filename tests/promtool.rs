//! `watchfire promtool`, run as users run it: output, exit codes, files it writes.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on should say where")]

#[path = "promtool/query.rs"]
mod query;
mod support;
#[path = "promtool/tsdb.rs"]
mod tsdb;

use std::fs;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_watchfire");

/// What a run has left behind.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
    dir: TempDir,
}

/// Runs `promtool test promql` with `args` in a folder that holds `files`.
fn test_promql(files: &[(&str, &str)], args: &[&str]) -> Ran {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(dir.path().join(name), text).unwrap();
    }
    let mut words = vec!["promtool", "test", "promql"];
    words.extend(args);
    run(dir, BINARY, &words)
}

fn run(dir: TempDir, program: &str, args: &[&str]) -> Ran {
    let output = Command::new(program).args(args).current_dir(dir.path()).output().unwrap();
    Ran {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
        dir,
    }
}

const LOAD: &str = "load 1m
  f{a=\"1\"} 1 2 3
  f{a=\"2\"} 10 20 30
  h {{schema:0 sum:3 count:3 buckets:[1 2]}}x2
  g {{schema:0 sum:3 count:3 buckets:[1 2] counter_reset_hint:gauge}}x2

";

/// Runs one evaluation over [`LOAD`], which has to fail with a difference that holds `problem`.
#[track_caller]
fn check_fails(eval: &str, problem: &str) {
    let ran = test_promql(&[("x.test", &format!("{LOAD}{eval}\n"))], &["x.test"]);
    assert_eq!(ran.code, 1, "{eval}\n{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.starts_with("FAILED x.test\nx.test:7: "), "{eval}\n{}", ran.stdout);
    assert!(ran.stdout.contains("\n  expected:") && ran.stdout.contains("\n  got:"), "{eval}\n{}", ran.stdout);
    assert!(ran.stdout.contains(problem), "{eval}: no {problem:?} in\n{}", ran.stdout);
}

#[track_caller]
fn check_passes(eval: &str) {
    let ran = test_promql(&[("x.test", &format!("{LOAD}{eval}\n"))], &["x.test"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "ok x.test (1 evals)\n"), "{eval}\n{}", ran.stderr);
}

#[test]
fn values_that_differ_fail() {
    check_passes("eval instant at 1m f\n  f{a=\"1\"} 2\n  f{a=\"2\"} 20");
    check_fails("eval instant at 1m f\n  f{a=\"1\"} 2", "difference: unexpected metric f{a=\"2\"} in result");
    check_fails(
        "eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} 2\n  f{a=\"3\"} 2",
        "expected metric f{a=\"3\"} not found",
    );
    check_fails("eval instant at 1m f{a=\"1\"}", "  expected: nothing\n  got: f{a=\"1\"} 2\n");
    check_fails("eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} 2.001", "expected 2.001 for f{a=\"1\"} but got 2");
    check_passes("eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} 2.0000001");
    check_fails("eval instant at 1m f{a=\"1\"}\n  2", "expected scalar 2 but got series");
    check_fails("eval instant at 1m 2\n  {} 2", "expected vector or matrix result, but got scalar 2");
    check_fails("eval instant at 1m 2\n  3", "expected 3 for the scalar but got 2");
    check_fails("eval instant at 1m \"a\"\n  expect string \"b\"", "expected string \"b\" but got \"a\"");
    check_fails("eval instant at 1m \"a\"", "expected no string");
    check_fails("eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} NaN", "expected NaN");
    check_fails("eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} stale", "for f{a=\"1\"} but got 2");
}

#[test]
fn points_that_differ_fail() {
    let range = "eval range from 0 to 2m step 1m f{a=\"1\"}";
    check_passes(&format!("{range}\n  f{{a=\"1\"}} 1 2 3"));
    check_fails(&format!("{range}\n  f{{a=\"1\"}} 1 2"), "got: f{a=\"1\"} 1 @[0] 2 @[60000] 3 @[120000]\n");
    check_fails(&format!("{range}\n  f{{a=\"1\"}} 1 2 3 4"), "more points are expected");
    check_fails(&format!("{range}\n  f{{a=\"1\"}} 1 _ 3"), "expected: f{a=\"1\"} 1 @[0] 3 @[120000]\n");
    check_fails(&format!("{range}\n  f{{a=\"1\"}} 1 2 5"), "expected 5 for f{a=\"1\"} at 120000 ms but got 3");
    check_fails(&format!("{range}\n  expect ordered\n  f{{a=\"1\"}} 1 2 3"), "expected ordered result");
    check_fails(&format!("{range}\n  3"), "expected scalar 3 but got series");
    check_fails(
        "eval instant at 2m f{a=\"1\"}[2m]\n  expect range vector from 1m to 2m step 30s\n  f{a=\"1\"} 2 3",
        "but got",
    );
    check_passes("eval instant at 2m f{a=\"1\"}[2m]\n  expect range vector from 1m to 2m step 1m\n  f{a=\"1\"} 2 3");
}

#[test]
fn histograms_that_differ_fail() {
    check_passes("eval instant at 1m h\n  h {{schema:0 sum:3 count:3 buckets:[1 2]}}");
    check_fails("eval instant at 1m h\n  h {{schema:0 sum:3 count:3 buckets:[2 1]}}", "buckets:[2 1]");
    check_fails("eval instant at 1m h\n  h {{schema:1 sum:3 count:3 buckets:[1 2]}}", "schema:1");
    check_fails("eval instant at 1m h\n  h {{schema:0 sum:4 count:3 buckets:[1 2]}}", "sum:4");
    check_fails("eval instant at 1m h\n  h {{schema:0 sum:3 count:3 buckets:[1 2] offset:1}}", "offset:1");
    check_fails("eval instant at 1m h\n  h {{schema:0 sum:3 count:4 z_bucket:1 buckets:[1 2]}}", "z_bucket:1");
    check_fails("eval instant at 1m h\n  h 3", "expected a float for h but got {{");
    check_fails(
        "eval instant at 1m f{a=\"1\"}\n  f{a=\"1\"} {{count:2}}",
        "expected a histogram for f{a=\"1\"} but got 2",
    );
    // A hint is compared only where one is written.
    check_passes("eval instant at 1m g\n  g {{sum:3 count:3 buckets:[1 2]}}");
    check_passes("eval instant at 1m g\n  g {{sum:3 count:3 buckets:[1 2] counter_reset_hint:gauge}}");
    check_fails("eval instant at 1m g\n  g {{sum:3 count:3 buckets:[1 2] counter_reset_hint:reset}}", "reset");
    check_fails("eval range from 0 to 1m step 1m h\n  h {{sum:3 count:3 buckets:[1 2]}}", "expected histograms at");
}

#[test]
fn annotations_that_differ_fail() {
    let info = "eval instant at 1m h + 1";
    check_passes(&format!("{info}\n  expect info\n  expect no_warn"));
    check_fails(&format!("{info}\n  expect no_info"), "expected: info: none\n");
    check_fails(&format!("{info}\n  expect info msg: PromQL info: something else"), "but found [");
    check_fails(&format!("{info}\n  expect info regex: ^warning"), "expected: info: a match of `^warning`\n");
    check_fails(&format!("{info}\n  expect warn"), "expected: warn: any text\n  got: info: PromQL info: incompatible");
    check_fails(
        "eval instant at 1m f{a=\"1\"}\n  expect warn\n  f{a=\"1\"} 2",
        "expected: warn: any text\n  got: nothing",
    );
    check_fails("eval_warn instant at 1m f{a=\"1\"}\n  f{a=\"1\"} 2", "expected: warn: at least one");
    check_fails("eval_info instant at 1m f{a=\"1\"}\n  f{a=\"1\"} 2", "expected: info: at least one");
    let both = "eval instant at 1m quantile(2, f) or rate(f[2m])";
    let quantile = "expect warn regex: quantile value";
    check_fails(&format!("{both}\n  {quantile}\n  expect info regex: nothing"), "but found [");
    check_fails("eval instant at 1m quantile(2, f) and quantile(3, f)\n  expect warn regex: got 2", "unexpected warn");
}

#[test]
fn failures_that_differ_fail() {
    let join = "eval instant at 1m f + on() f";
    check_passes(&format!("{join}\n  expect fail"));
    check_passes(&format!("{join}\n  expect fail regex: many-to-many matching not allowed"));
    check_fails(&format!("{join}\n  expect fail msg: another"), "expected: failure: \"another\"\n  got: error: found");
    check_fails(
        &format!("{join}\n  expect fail regex: ^many"),
        "expected: failure: a match of `^many`\n  got: error: ",
    );
    check_fails(join, "got: error: found duplicate series for the match group");
    check_fails("eval instant at 1m f{a=\"1\"}\n  expect fail", "expected an error but got none");
    check_fails("eval_fail instant at 1m f + on() f\n  expected_fail_message x", "expected: failure: \"x\"");
    check_fails("eval_fail instant at 1m f + on() f\n  expected_fail_regexp ^x", "expected: failure: a match of `^x`");
    check_passes("eval_fail instant at 1m f + on() f\n  expected_fail_regexp duplicate series");
    check_fails("eval range from 0 to 1m step 1m f + on() f", "got: error: found duplicate series");
}

#[test]
fn another_order_fails_where_the_order_counts() {
    check_passes("eval instant at 1m sort_desc(f)\n  expect ordered\n  f{a=\"2\"} 20\n  f{a=\"1\"} 2");
    check_passes("eval instant at 1m sort_desc(f)\n  f{a=\"1\"} 2\n  f{a=\"2\"} 20");
    let text = "expected f{a=\"2\"} at position 1 but was at 0";
    check_fails("eval instant at 1m sort_desc(f)\n  expect ordered\n  f{a=\"1\"} 2\n  f{a=\"2\"} 20", text);
    check_fails("eval_ordered instant at 1m sort_desc(f)\n  f{a=\"1\"} 2\n  f{a=\"2\"} 20", text);
}

#[test]
fn instant_evaluations_are_repeated_in_other_ways() {
    // At the one time that is named there is one point, as expected; but no range query has range vectors.
    check_fails("eval instant at 1m f{a=\"1\"}[1m]\n  f{a=\"1\"} 2", "got: error: invalid expression type");
    check_fails("eval instant at 1m f{a=\"1\"}[1m]\n  f{a=\"1\"} 2", "  evaluated: in range mode\n");
    // Times of the query differ between these ways, so nothing is repeated.
    check_passes("eval instant at 1m vector(end())\n  {} 60");
    check_passes("eval instant at 1m f{a=\"1\"} + time()\n  {a=\"1\"} 62");
}

#[test]
fn all_failures_are_told_not_the_first() {
    let one = format!(
        "{LOAD}eval instant at 0 f{{a=\"1\"}}\n  f{{a=\"1\"}} 7\n\neval instant at 0 2\n  2\n\neval instant at 0 3\n  4\n"
    );
    let files =
        [("a.test", one.as_str()), ("b.test", "eval instant at 0 1\n  1\n"), ("c.test", "eval instant at 0 1\n  2\n")];
    let ran = test_promql(&files, &["a.test", "b.test", "c.test"]);
    assert_eq!(ran.code, 1);
    assert_eq!(
        ran.stdout,
        "FAILED a.test\na.test:7: f{a=\"1\"}\n  expected: f{a=\"1\"} 7\n  got: f{a=\"1\"} 1\n  difference: expected 7 for \
         f{a=\"1\"} but got 1\na.test:13: 3\n  expected: scalar 4\n  got: scalar 3\n  difference: expected 4 for the scalar \
         but got 3\nok b.test (1 evals)\nFAILED c.test\nc.test:1: 1\n  expected: scalar 2\n  got: scalar 1\n  difference: \
         expected 2 for the scalar but got 1\n"
    );
    assert_eq!(ran.stderr, "");
}

#[track_caller]
fn check_load_fails(load: &str, problem: &str) {
    let script = format!("{load}\n\neval instant at 0 1\n  2\n\nclear\n\neval instant at 0 1\n  1\n");
    let ran = test_promql(&[("x.test", &script)], &["x.test"]);
    assert_eq!(ran.code, 1, "{load}\n{}{}", ran.stdout, ran.stderr);
    let told = ": load\n  ";
    assert!(ran.stdout.starts_with("FAILED x.test\nx.test:") && ran.stdout.contains(told), "{load}\n{}", ran.stdout);
    assert!(ran.stdout.contains(problem), "{load}: no {problem:?} in\n{}", ran.stdout);
    assert!(ran.stdout.ends_with("; 1 evals up to the next clear were not run\n"), "{}", ran.stdout);
}

#[test]
fn what_storage_refuses_fails() {
    check_load_fails("load 1m\n  h {{schema:12 count:1 buckets:[1]}}", "invalid schema");
    check_load_fails("load 1m\n  h {{count:-1}}", "observation count is negative");
    check_load_fails("load 1m\n  x 1 2\n\nload 1m\n  x 1", "x: out of order sample at 0 ms");
    check_load_fails("load 1m\n  x 1 2\n\nload 1m\n  x _ 3", "x: duplicate sample for timestamp 60000 ms");
    check_load_fails("load 1m\n  {} 1", "empty labelset: invalid sample");
    let buckets = "h_bucket{le=\"1\"} 5\n  h_bucket{le=\"+Inf\"} 3";
    check_load_fails(&format!("load_with_nhcb 1m\n  {buckets}"), "count is not cumulative");
    check_load_fails("load_with_nhcb 1m\n  h_bucket{le=\"+Inf\"} 3\n  h_count 4", "count mismatch");
    check_load_fails("load_with_nhcb 1m\n  h_bucket 3", "expected bucket label in h_bucket");
    // What is the same once more is no error, and a gap moves nothing.
    let again = "load 1m\n  x 1 2\n\nload 1m\n  x _ 2 3\n\neval range from 0 to 2m step 1m x\n  x 1 2 3\n";
    assert_eq!(test_promql(&[("x.test", again)], &["x.test"]).code, 0);
}

#[track_caller]
fn check_no_script(script: &str, line: usize, problem: &str) {
    let ran = test_promql(&[("x.test", script), ("y.test", "eval instant at 0 1\n  1\n")], &["x.test", "y.test"]);
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (2, "FAILED x.test\nok y.test (1 evals)\n"),
        "{script}\n{}",
        ran.stderr
    );
    assert!(ran.stderr.starts_with(&format!("x.test:{line}: ")), "{script}\n{}", ran.stderr);
    assert!(ran.stderr.contains(problem), "{script}: no {problem:?} in {}", ran.stderr);
}

#[test]
fn what_is_no_script_ends_with_2() {
    check_no_script("clear\nfoo\n", 2, "invalid command \"foo\"");
    check_no_script("load 5x\n  x 1\n", 1, "invalid duration");
    check_no_script("load_with 5m\n  x 1\n", 1, "invalid load command");
    check_no_script("load 5m\n  x{ 1\n", 2, "parse error");
    check_no_script("load 5m\n  x@st 0\n", 2, "@st line has no following sample line");
    check_no_script("load 5m\n  x@st 0 0\n  x 1\n", 3, "@st line has 2 values but sample line has 1");
    check_no_script("load 5m\n  y@st 0\n  x 1\n", 3, "@st metric does not match");
    check_no_script("\n# comment\neval instant at 0 sum(\n", 3, "unclosed left parenthesis");
    check_no_script("eval instant at 0 x\n  expect warn\n  expect no_warn\n", 3, "warn and no_warn");
    let missing = test_promql(&[], &["absent.test"]);
    assert_eq!((missing.code, missing.stdout.as_str()), (2, "FAILED absent.test\n"));
    assert!(missing.stderr.starts_with("absent.test: "), "{}", missing.stderr);
    // The worse of two outcomes decides.
    let both = test_promql(&[("x.test", "eval instant at 0 1\n  2\n")], &["absent.test", "x.test"]);
    assert_eq!(both.code, 2);
}

#[test]
fn arguments_that_make_no_sense_end_with_1() {
    for (args, problem) in [
        (&[][..], "required argument 'test-file' not provided"),
        (&["--foo", "x"], "unknown long flag '--foo'"),
        (&["--run=(", "x"], "--run: error parsing regexp: missing closing ): `(`"),
        (&["--engine=x", "x"], "enum value must be one of test,server, got 'x'"),
        (&["--max-samples=x", "x"], "strconv.ParseFloat: parsing \"x\": invalid syntax"),
    ] {
        let ran = test_promql(&[], args);
        assert_eq!((ran.code, ran.stdout.as_str()), (1, ""), "{args:?}");
        assert!(ran.stderr.starts_with(&format!("promtool: error: {problem}")), "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.ends_with(", try --help\n"), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn the_settings_are_those_of_the_chosen_engine() {
    let limitk = "load 1m\n  x 1 2\n\neval instant at 1m limitk(1, x)\n  x 2\n";
    let fill =
        "load 1m\n  x{a=\"1\"} 1\n  y{a=\"2\"} 1\n\neval instant at 0 x + fill(0) y\n  {a=\"1\"} 1\n  {a=\"2\"} 1\n";
    let anchored = "load 1m\n  x 1 2 3\n\neval instant at 2m increase(x[1m] anchored)\n  {} 1\n";
    let starts = "load 1m\n  x_total@st -30s\n  x_total 5\n\neval instant at 0 start_timestamp(x_total)\n  {} -30\n";
    let names = "load 1m\n  x 1\n\neval instant at 0 sum by (__name__) (abs(x))\n  {} 1\n";
    let steps = "load 1m\n  x 1 2 3\n\neval instant at 2m sum_over_time(x[2m:])\n  {} 5\n";
    let code = |script: &str, flags: &[&str]| {
        let mut args = vec!["x.test"];
        args.extend(flags);
        test_promql(&[("x.test", script)], &args).code
    };
    let feature = |name: &str| format!("--enable-feature={name}");
    for (script, needed) in [
        (limitk, vec![feature("promql-experimental-functions")]),
        (fill, vec![feature("promql-binop-fill-modifiers")]),
        (anchored, vec![feature("promql-extended-range-selectors")]),
        (starts, vec![feature("promql-experimental-functions,use-start-timestamps,st-storage")]),
        (steps, vec![]),
    ] {
        assert_eq!(code(script, &[]), 0, "{script}");
        assert_eq!(code(script, &["--engine=server"]), i32::from(!needed.is_empty()), "{script}");
        let mut flags = vec!["--engine=server"];
        flags.extend(needed.iter().map(String::as_str));
        assert_eq!(code(script, &flags), 0, "{script} {flags:?}");
    }
    assert_eq!((code(names, &[]), code(names, &["--engine=server"])), (0, 0));
    // What does not parse with a server's settings is a failure of the query, which a script may expect.
    let refused = "eval instant at 0 limitk(1, x)\n  expect fail regex: experimental\n";
    assert_eq!((code(refused, &["--engine=server"]), code(refused, &[])), (0, 1));
    let lookback = "load 1m\n  x 1\n\neval instant at 4m x\n  x 1\n";
    assert_eq!(
        (code(lookback, &[]), code(lookback, &["--lookback-delta=4m"]), code(lookback, &["--lookback-delta", "0"])),
        (0, 1, 0)
    );
    let samples = "load 1s\n  x 0+1x20000\n\neval instant at 20000s count_over_time(x[20000s])\n  {} 20000\n";
    assert_eq!(
        (code(samples, &[]), code(samples, &["--max-samples=20001"]), code(samples, &["--engine=server"])),
        (1, 0, 0)
    );
    let typed =
        "load 1m\n  x{__type__=\"counter\"} 1 2\n\neval instant at 1m rate(x[2m]) * 0\n  expect no_info\n  {} 0\n";
    assert_eq!((code(typed, &[]), code(typed, &[&feature("type-and-unit-labels")])), (1, 0));
    let unknown = test_promql(&[("x.test", "clear\n")], &["x.test", "--enable-feature=nope"]);
    assert_eq!(
        (unknown.code, unknown.stderr.as_str()),
        (0, "  WARNING: Unknown feature passed to --enable-feature: nope\n")
    );
}

#[test]
fn run_picks_evaluations_by_their_name() {
    let script = "load 1m\n  x 1\n\neval instant at 0 x + 1\n  {} 9\n\neval instant at 0 x\n  x 1\n";
    let files = [("a.test", script), ("b.test", script)];
    let stdout = |flags: &[&str]| {
        let mut args = vec!["a.test", "b.test"];
        args.extend(flags);
        let ran = test_promql(&files, &args);
        (ran.code, ran.stdout.lines().filter(|line| !line.starts_with(' ')).map(str::to_owned).collect::<Vec<_>>())
    };
    let lines = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    assert_eq!(stdout(&["--run=: x$"]), (0, lines(&["ok a.test (1 evals)", "ok b.test (1 evals)"])));
    assert_eq!(
        stdout(&["--run", "a.test:4:", "--run=b.test:7"]),
        (1, lines(&["FAILED a.test", "a.test:4: x + 1", "ok b.test (1 evals)"]))
    );
    assert_eq!(stdout(&["--run=nothing"]), (0, lines(&["ok a.test (0 evals)", "ok b.test (0 evals)"])));
}

#[test]
fn results_are_written_as_junit() {
    let script = "eval instant at 0 1\n  1\n\neval instant at 0 1 < bool 2\n  0\n\nload 1m\n  {} 1\n";
    let ran = test_promql(&[("a.test", script), ("b.test", "foo")], &["--junit=out.xml", "a.test", "b.test"]);
    assert_eq!(ran.code, 2);
    let written = fs::read_to_string(ran.dir.path().join("out.xml")).unwrap();
    for part in [
        "<testsuites><testsuite name=\"a.test\" tests=\"3\" failures=\"2\" errors=\"0\" skipped=\"0\" timestamp=\"20",
        "<testcase name=\"a.test:1: 1\"></testcase>",
        "<testcase name=\"a.test:4: 1 &lt; bool 2\"><failure>  expected: scalar 0&#xA;  got: scalar 1&#xA;",
        "<testcase name=\"a.test:7: load\"><failure>  empty labelset: invalid sample; 0 evals",
        "<testsuite name=\"b.test\" tests=\"1\" failures=\"0\" errors=\"1\"",
        "<error>b.test:1: invalid command &#34;foo&#34;</error>",
    ] {
        assert!(written.contains(part), "no {part} in {written}");
    }
    let unwritable = test_promql(&[("a.test", "clear")], &["--junit=/absent/out.xml", "a.test"]);
    assert_eq!(unwritable.code, 1);
    assert!(unwritable.stderr.starts_with("cannot write /absent/out.xml: "), "{}", unwritable.stderr);
}

#[test]
fn each_file_starts_empty_at_time_zero() {
    let files = [("a.test", "load 1m\n  x 1\n"), ("b.test", "eval instant at 0 x\n"), ("c.test", "load 1m\n  x 2\n")];
    let ran = test_promql(&files, &["a.test", "b.test", "c.test"]);
    assert_eq!(ran.stdout, "ok a.test (0 evals)\nok b.test (1 evals)\nok c.test (0 evals)\n");
}

#[test]
fn the_scripts_of_prometheus_pass_in_one_run_without_flags() {
    let Some(conformance) = support::conformance_dir() else {
        println!("skipped: no conformance data");
        return;
    };
    let mut files: Vec<String> = fs::read_dir(conformance.join("promqltest"))
        .unwrap()
        .map(|entry| entry.unwrap().path().to_str().unwrap().to_owned())
        .filter(|path| path.ends_with(".test"))
        .collect();
    files.sort();
    assert_eq!(files.len(), 21);
    let ran = test_promql(&[], &files.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(ran.code, 0, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.lines().filter(|line| line.starts_with("ok ")).count(), 21, "{}", ran.stdout);
}

#[test]
fn links_make_the_binary_act_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("x.test"), "eval instant at 0 1\n  1\n").unwrap();
    let at = dir.path().to_str().unwrap().to_owned();
    let made = run(dir, BINARY, &["install-links", &at]);
    assert_eq!((made.code, made.stderr.as_str()), (0, ""), "{}", made.stdout);
    assert_eq!(made.stdout, format!("{at}/prometheus made\n{at}/promtool made\n"));
    let linked = run(made.dir, &format!("{at}/promtool"), &["test", "promql", "x.test"]);
    assert_eq!((linked.code, linked.stdout.as_str()), (0, "ok x.test (1 evals)\n"));
    let version = run(linked.dir, &format!("{at}/promtool"), &["--version"]);
    assert!(version.stdout.starts_with("promtool, version "), "{}", version.stdout);
    // Under this name nothing runs bare: the file that is missing is named.
    let prometheus = run(version.dir, &format!("{at}/prometheus"), &[]);
    assert_eq!(prometheus.code, 2, "{}", prometheus.stderr);
    assert!(prometheus.stderr.contains("prometheus.yml"), "{}", prometheus.stderr);
    let again = run(prometheus.dir, BINARY, &["install-links", &at]);
    assert_eq!(again.stdout, format!("{at}/prometheus is there\n{at}/promtool is there\n"));
    fs::remove_file(Path::new(&at).join("promtool")).unwrap();
    fs::write(Path::new(&at).join("promtool"), "mine").unwrap();
    let kept = run(again.dir, BINARY, &["install-links", &at]);
    assert_eq!((kept.code, kept.stderr), (1, format!("{at}/promtool: something else has this name\n")));
    assert_eq!(fs::read_to_string(Path::new(&at).join("promtool")).unwrap(), "mine");
    assert_eq!(run(kept.dir, BINARY, &["install-links"]).code, 2);
}

#[test]
fn help_and_what_is_not_built() {
    let ran = |args: &[&str]| run(tempfile::tempdir().unwrap(), BINARY, args);
    let help = ran(&["promtool", "--help"]);
    assert_eq!(help.code, 0);
    assert!(help.stdout.contains("test promql [<flags>] <test-file>..."), "{}", help.stdout);
    let help = ran(&["promtool", "test", "promql", "-h"]);
    assert!(help.stdout.contains("--engine=test|server (test)") && help.stdout.contains("--junit="), "{}", help.stdout);
    let other = ran(&["promtool", "promql", "format", "x"]);
    assert_eq!((other.code, other.stderr.as_str()), (2, "watchfire promtool promql: not built yet\n"));
    let group = ran(&["promtool", "tsdb", "bench"]);
    assert_eq!(group.stderr, "promtool: error: must select a subcommand of 'tsdb bench', try --help\n");
    let unknown = ran(&["promtool", "foo"]);
    assert_eq!(
        (unknown.code, unknown.stderr.as_str()),
        (1, "promtool: error: expected command but got \"foo\", try --help\n")
    );
}

#[test]
fn the_write_benchmark_leaves_what_it_has_written() {
    let dir = tempfile::tempdir().unwrap();
    let series: String = (0..30).map(|i| format!("{{\"__name__\":\"m\",\"i\":\"{}\"}}\n", i % 20)).collect();
    fs::write(dir.path().join("series.json"), series).unwrap();
    let args = ["promtool", "tsdb", "bench", "write", "--metrics=15", "--scrapes=150", "series.json"];
    let done = run(dir, BINARY, &args);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = done.stdout.lines().map(|line| line.split(['=', ':']).next().unwrap_or("")).collect();
    let expected = [
        ">> start stage",
        ">> completed stage",
        ">> start stage",
        "ingestion completed",
        ">> completed stage",
        " > total samples",
        " > samples/sec",
        ">> start stage",
        ">> completed stage",
    ];
    assert_eq!(lines, expected);
    // Rounds of a hundred scrapes, as Prometheus has them.
    assert!(done.stdout.contains(" > total samples: 3000\n"), "{}", done.stdout);
    let dump = ["promtool", "tsdb", "dump", "benchout/storage"];
    let again = run(done.dir, BINARY, &dump);
    assert_eq!(again.stdout.lines().count(), 3_000, "{}", again.stderr);
    assert!(again.stdout.starts_with("{__name__=\"m\", i=\"0\"} 1.23457789e+08 30000\n"));
    let none = run(again.dir, BINARY, &["promtool", "tsdb", "bench", "write", "gone.json"]);
    assert_eq!((none.code, none.stderr.as_str()), (1, "open gone.json: no such file or directory\n"));
}

/// Arguments of `check`, and what Prometheus's promtool 3.14.0 printed for them in the folder of its own test data.
const CHECKS: &str = include_str!("promtool_checks.json");

#[test]
fn configurations_and_rules_are_checked_as_in_prometheus() {
    let Some(conformance) = support::conformance_dir() else {
        println!("skipped: no conformance data");
        return;
    };
    let cases: Vec<serde_json::Value> = serde_json::from_str(CHECKS).unwrap();
    let mut differences = Vec::new();
    for case in &cases {
        let args: Vec<&str> = case["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
        let dir = conformance.join("promtool");
        let output = Command::new(BINARY).arg("promtool").args(&args).current_dir(dir).output().unwrap();
        let [stdout, stderr] = [output.stdout, output.stderr].map(|raw| String::from_utf8(raw).unwrap());
        let got = (output.status.code().map(i64::from), stdout.as_str(), stderr.as_str());
        let wanted = (case["code"].as_i64(), case["stdout"].as_str().unwrap(), case["stderr"].as_str().unwrap());
        if got != wanted {
            differences.push(format!("{args:?}\n  wanted {wanted:?}\n  got    {got:?}"));
        }
    }
    assert!(cases.len() > 30);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn rules_are_read_from_standard_input() {
    use std::io::Write as _;
    let mut child = Command::new(BINARY)
        .args(["promtool", "check", "rules"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let rules = "groups:\n- name: g\n  rules:\n  - record: a:b\n    expr: sum(\n";
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "Checking standard input\n");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("  FAILED:\n5:11: group \"g\", rule 1, \"a:b\": could not parse expression: "),
        "{stderr}"
    );
}

#[test]
fn web_configurations_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("good.yml"), "rate_limit: {burst: 1, interval: 1s}\n").unwrap();
    fs::write(dir.path().join("bad.yml"), "tls_server_config: {cert: a}\n").unwrap();
    let ran = run(dir, BINARY, &["promtool", "check", "web-config", "good.yml", "bad.yml"]);
    let expected = "good.yml SUCCESS\nbad.yml FAILED: missing one of key or key_file\n";
    assert_eq!((ran.code, ran.stderr.as_str()), (1, expected));
    let none = run(ran.dir, BINARY, &["promtool", "check", "web-config"]);
    assert_eq!(none.stderr, "promtool: error: required argument 'web-config-files' not provided, try --help\n");
}

#[test]
fn discovery_is_shown_before_and_after_relabelling() {
    let dir = tempfile::tempdir().unwrap();
    let config = "scrape_configs: [{job_name: a, static_configs: [{targets: ['h:1', 'h:2']}], \
                  relabel_configs: [{source_labels: [__address__], regex: 'h:2', action: drop}]}]";
    fs::write(dir.path().join("p.yml"), config).unwrap();
    let check = ["promtool", "check", "service-discovery", "--timeout=1ms", "p.yml"];
    let shown = run(dir, BINARY, &[&check[..], &["a"]].concat());
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let results: Vec<serde_json::Value> = serde_json::from_str(&shown.stdout).unwrap();
    let addresses: Vec<&str> =
        results.iter().map(|one| one["discoveredLabels"]["__address__"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["h:1", "h:2"]);
    assert_eq!(results[0]["labels"]["instance"], "h:1");
    let unknown = run(shown.dir, BINARY, &[&check[..], &["b"]].concat());
    assert_eq!((unknown.code, unknown.stderr.as_str()), (1, "Job b not found. Select one of:\n\ta\n"));
    let missing = run(unknown.dir, BINARY, &check);
    assert_eq!(missing.stderr, "promtool: error: required argument 'job' not provided, try --help\n");
}
