//! `promtool tsdb …` and `promtool test rules`, with what Prometheus 3.14's promtool prints for the same input.

use std::fs;
use std::path::Path;

use super::{BINARY, run};

/// A data directory with the blocks that Prometheus has written, or with its log.
pub(super) fn folder(of: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("data/wal")).unwrap();
    for source in of {
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(source), &dir.path().join("data"));
    }
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() { copy(&from, &to) } else { fs::copy(&from, &to).map(drop).unwrap() }
    }
}

/// Runs `promtool` with words; returns exit code, stdout and stderr.
fn promtool(dir: tempfile::TempDir, words: &[&str]) -> (tempfile::TempDir, (i32, String, String)) {
    let mut args = vec!["promtool"];
    args.extend(words);
    let ran = run(dir, BINARY, &args);
    (ran.dir, (ran.code, ran.stdout, ran.stderr))
}

#[test]
fn blocks_are_listed_and_analyzed() {
    let (dir, (code, out, _)) = promtool(folder(&["blocks"]), &["tsdb", "list"]);
    let expected = "\
BLOCK ULID                  MIN TIME       MAX TIME       DURATION      NUM SAMPLES  NUM CHUNKS   NUM SERIES   SIZE
01M8AB1KYMRFKX3DJAEBCFQ2SZ  1699999200000  1700006392001  1h59m52.001s  2880         60           45           9194
01M8AB1M0NQQ6J0JGN96PMCAYD  1700006400000  1700013592001  1h59m52.001s  2840         60           45           9043
";
    assert_eq!((code, out.as_str()), (0, expected));
    let (dir, (_, out, _)) = promtool(dir, &["tsdb", "list", "-r", "data"]);
    let line = "01M8AB1KYMRFKX3DJAEBCFQ2SZ  2023-11-14 22:00:00 +0000 UTC  2023-11-14 23:59:52 +0000 UTC  1h59m52.001s  \
                2880         60           45           8KiB1002B";
    assert_eq!(out.lines().nth(1), Some(line));
    let (dir, (code, out, _)) = promtool(dir, &["tsdb", "analyze", "--limit=2", "--extended"]);
    let expected = "\
Block ID: 01M8AB1M0NQQ6J0JGN96PMCAYD
Duration: 1h59m52.001s
Total Series: 45
Label names: 8
Postings (unique label pairs): 53
Postings entries (total label pairs): 95

Label pairs most involved in churning:
3 __name__=many
0 __name__=http_requests_total

Label names most involved in churning:
3 __name__
3 v

Most common label pairs:
40 __name__=many
2 __name__=http_requests_total
";
    assert_eq!((code, out.get(..expected.len())), (0, Some(expected)), "{out}");
    assert!(
        out.ends_with("buckets per histogram chunk: N/A\n\n") && out.contains("\nCompaction analysis:\n\n"),
        "{out}"
    );
    let (dir, ran) = promtool(dir, &["tsdb", "analyze", "data", "nothing"]);
    assert_eq!(ran, (1, String::new(), "invalid block ID nothing\n".to_owned()));
    let (_, ran) = promtool(dir, &["tsdb", "list", "none"]);
    assert_eq!(ran, (1, String::new(), "opening the db dir: stat none: no such file or directory\n".to_owned()));
}

#[test]
fn samples_of_blocks_and_log_are_dumped_and_nothing_is_changed() {
    let dir = folder(&["native/first", "native/second"]);
    let (dir, (code, out, err)) = promtool(dir, &["tsdb", "dump"]);
    let first = "{__name__=\"h\", instance=\"a:1\", job=\"x\", kind=\"whole\"} {count:3, sum:0.7940480595998711, \
                 (3.3635856610148576,3.6680161728186844]:3} 1699999201000";
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.lines().any(|line| line == first), "{:?}", out.lines().next());
    let names = |dir: &tempfile::TempDir| fs::read_dir(dir.path().join("data")).unwrap().count();
    assert_eq!((names(&dir), fs::read_dir(dir.path().join("data/wal")).unwrap().count()), (3, 0));

    let log = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/native/wal"), &log.path().join("data/wal"));
    let (log, (_, out, _)) = promtool(log, &["tsdb", "dump", "data"]);
    assert_eq!((out.lines().count(), out.lines().next()), (2121, Some(first)), "in the order of the series' age");
    let (_, (_, out, _)) = promtool(log, &["tsdb", "dump", "--min-time=1699999201000", "--max-time=1699999201000"]);
    assert_eq!(out.lines().next(), Some(first));
    assert!(out.lines().all(|line| line.ends_with(" 1699999201000")));
    let (_, ran) = promtool(tempfile::tempdir().unwrap(), &["tsdb", "dump", "."]);
    let missing = "read WAL: find last checkpoint: open wal: no such file or directory\n";
    assert_eq!((ran.0, ran.2.replace("./", "").as_str()), (1, missing));
}

const OPENMETRICS: &str = r#"# HELP a Some.
# TYPE a counter
a_total{x="1"} 1 1700000000
a_total{x="2",y="q\"uo\\te\nnl"} 2.5 1700000000
a_total{x="1"} 1e7 1700000015.123
# TYPE b gauge
b -Inf 1700000000
b 0.00001 1700010000
# TYPE h histogram
h_bucket{le="1"} 3 1700020000 # {id="x"} 0.5
h_count 4 1700020000
# EOF
"#;

#[test]
fn blocks_are_made_of_openmetrics_and_dumped_again() {
    let dir = folder(&[]);
    fs::write(dir.path().join("in.txt"), OPENMETRICS).unwrap();
    let words = ["tsdb", "create-blocks-from", "openmetrics", "in.txt", "data", "--label=z=1"];
    let (dir, (code, out, err)) = promtool(dir, &words);
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 4), "{out}");
    let rows: Vec<String> = out.lines().skip(1).map(|line| line.chars().skip(28).collect()).collect();
    assert!(rows[0].starts_with("1700000000000  1700000015124  15.124s      4            3            3  "), "{out}");
    assert!(rows[1].starts_with("1700010000000  1700010000001  1ms          1            1            1  "), "{out}");
    let (dir, (_, out, _)) = promtool(dir, &["tsdb", "dump-openmetrics", "data"]);
    let expected = r#"a_total{x="1",z="1"} 1 1700000000.000
a_total{x="1",z="1"} 1e+07 1700000015.123
a_total{x="2",y="q\"uo\\te\nnl",z="1"} 2.5 1700000000.000
b{z="1"} -Inf 1700000000.000
b{z="1"} 1e-05 1700010000.000
h_bucket{le="1.0",z="1"} 3 1700020000.000
h_count{z="1"} 4 1700020000.000
# EOF
"#;
    assert_eq!(out, expected);
    let (dir, (_, out, _)) = promtool(dir, &["tsdb", "dump", "--format=seriesjson", "--match={x=~\".+\"}", "data"]);
    let expected = "{\"__name__\":\"a_total\",\"x\":\"1\",\"z\":\"1\"}\n\
                    {\"__name__\":\"a_total\",\"x\":\"2\",\"y\":\"q\\\"uo\\\\te\\nnl\",\"z\":\"1\"}\n";
    assert_eq!(out, expected);
    fs::write(dir.path().join("bad.txt"), "a 1\n# EOF\n").unwrap();
    let (_, ran) = promtool(dir, &["tsdb", "create-blocks-from", "openmetrics", "bad.txt", "data"]);
    let error = "getting min and max timestamp: expected timestamp for series got none\n";
    assert_eq!(ran, (1, String::new(), error.to_owned()));
}

const RULES: &str = "\
groups:
- name: g
  rules:
  - {record: job:up:sum, expr: sum by (job) (up)}
  - {alert: Down, expr: up == 0, for: 2m, labels: {severity: page}, annotations: {summary: '{{ $labels.instance }} is down'}}
";

const TESTS: &str = "\
rule_files: [rules.yml]
evaluation_interval: 1m
tests:
- name: good
  interval: 1m
  input_series:
  - {series: 'up{job=\"j\", instance=\"a\"}', values: '1 1 0 0 0 0'}
  - {series: 'up{job=\"j\", instance=\"b\"}', values: '1x5'}
  alert_rule_test:
  - {eval_time: 3m, alertname: Down}
  - eval_time: 4m
    alertname: Down
    exp_alerts:
    - exp_labels: {severity: page, job: j, instance: a}
      exp_annotations: {summary: a is down}
  promql_expr_test:
  - {expr: 'job:up:sum', eval_time: 5m, exp_samples: [{labels: 'job:up:sum{job=\"j\"}', value: 1}]}
";

#[test]
fn rules_are_tested() {
    let dir = folder(&[]);
    fs::write(dir.path().join("rules.yml"), RULES).unwrap();
    fs::write(dir.path().join("good.yml"), TESTS).unwrap();
    let bad = TESTS
        .replace("value: 1}", "value: 2}")
        .replace("eval_time: 4m", "eval_time: 3m")
        .replace("name: good", "name: bad");
    fs::write(dir.path().join("bad.yml"), bad).unwrap();
    let (dir, ran) = promtool(dir, &["test", "rules", "good.yml"]);
    assert_eq!(ran, (0, "  SUCCESS\n\n".to_owned(), String::new()));
    let (dir, (code, out, err)) = promtool(dir, &["test", "rules", "--junit=out.xml", "good.yml", "bad.yml"]);
    let expected = "  FAILED:
    name: bad,
    alertname: Down, time: 3m, 
        exp:[
            0:
              Labels:{alertname=\"Down\", instance=\"a\", job=\"j\", severity=\"page\"}
              Annotations:{summary=\"a is down\"}
            ], 
        got:[]
    expr: \"job:up:sum\", time: 5m,
        exp: {__name__=\"job:up:sum\", job=\"j\"} 2E+00
        got: {__name__=\"job:up:sum\", job=\"j\"} 1E+00
";
    assert_eq!((code, out.as_str(), err.as_str()), (1, "  SUCCESS\n\n\n\n\n", expected));
    let junit = fs::read_to_string(dir.path().join("out.xml")).unwrap();
    assert!(junit.contains("<testsuite name=\"bad.yml\" tests=\"1\" failures=\"2\""), "{junit}");
    let (_, (code, _, _)) = promtool(dir, &["test", "rules", "--run=nothing", "bad.yml"]);
    assert_eq!(code, 0);
}
