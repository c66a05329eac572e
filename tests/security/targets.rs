//! What a hostile target can reach: its own series, and nothing of others.

use std::fs;

use crate::support::{Exporter, Server, encode, wait_for};

fn start(folder: &std::path::Path, jobs: &str, more: &str) -> Server {
    let text = format!("global: {{scrape_interval: 100ms, external_labels: {{dc: x}}}}\nscrape_configs:\n{jobs}{more}");
    fs::write(folder.join("prometheus.yml"), text).unwrap();
    Server::start(folder, &["--config.file=prometheus.yml"])
}

#[test]
fn a_target_cannot_speak_for_another() {
    let honest = Exporter::start("a 1\n");
    let lies = format!(
        "a{{instance=\"{honest}\",job=\"honest\"}} 666\nup 0\nup{{instance=\"{honest}\",job=\"honest\"}} 0\n\
         scrape_duration_seconds 666\nb{{exported_job=\"y\",job=\"x\"}} 7\nc{{__name__=\"a\"}} 8\nd{{dc=\"z\"}} 9\n\
         e{{__address__=\"127.0.0.1:1\",__scrape_interval__=\"1ms\",__param_x=\"y\"}} 10\n",
        honest = honest.addr
    );
    let liar = Exporter::start(&lies);
    let folder = tempfile::tempdir().unwrap();
    let jobs = format!(
        "- {{job_name: honest, static_configs: [{{targets: ['{}']}}]}}\n- {{job_name: liar, static_configs: [{{targets: ['{}']}}]}}\n",
        honest.addr, liar.addr
    );
    let server = start(folder.path(), &jobs, "");
    wait_for("both targets", || (server.single("count(up)") == Some(2.0)).then_some(()));
    wait_for("the liar's samples", || {
        let samples = server.single("scrape_samples_scraped{job=\"liar\"}")?;
        (0.0 < samples || server.single("up{job=\"liar\"}") == Some(0.0)).then_some(())
    });
    // One line of a name twice is no exposition; what is wrong with it fails the whole and nobody else.
    let mine = format!("instance=\"{}\"", liar.addr);
    assert_eq!(server.single("count(a{job=\"honest\"})"), Some(1.0));
    assert_eq!(server.single("a{job=\"honest\"}"), Some(1.0));
    assert_eq!(server.single("up{job=\"honest\"}"), Some(1.0));

    liar.set_body(&lies.replace("c{__name__=\"a\"} 8\n", ""));
    wait_for("the liar's series", || server.single("b").filter(|value| *value == 7.0));
    assert_eq!(server.single("a{job=\"honest\"}"), Some(1.0), "another target's series was changed");
    assert_eq!(server.single("up{job=\"honest\"}"), Some(1.0));
    assert_eq!(server.single("a{job=\"liar\",exported_job=\"honest\"}"), Some(666.0));
    assert_eq!(server.single("b{job=\"liar\",exported_job=\"y\",exported_exported_job=\"x\"}"), Some(7.0));
    // What the server says of a target, the target cannot say.
    assert_eq!(server.single(&format!("up{{job=\"liar\",exported_job=\"\",{mine}}}")), Some(1.0));
    assert!(server.single("scrape_duration_seconds{job=\"liar\",exported_job=\"\"}").unwrap() < 600.0);
    // Labels are no settings: there are two targets as before, with the interval of the configuration.
    let targets = server.get("/api/v1/targets?state=active").json();
    let active = targets["data"]["activeTargets"].as_array().unwrap().clone();
    assert_eq!(active.len(), 2);
    assert!(active.iter().all(|target| target["scrapeInterval"] == "100ms"), "{targets}");
    assert_eq!(server.single("count({__name__=~\".+\",job!~\"honest|liar\"})"), None, "series without a job of ours");
}

#[test]
fn honored_labels_are_the_owners_choice() {
    let liar = Exporter::start("a{instance=\"other\",job=\"other\"} 2\n");
    let folder = tempfile::tempdir().unwrap();
    let job = format!("- {{job_name: liar, honor_labels: true, static_configs: [{{targets: ['{}']}}]}}\n", liar.addr);
    let server = start(folder.path(), &job, "");
    wait_for("the series", || server.single("a{job=\"other\",instance=\"other\"}").filter(|value| *value == 2.0));
    assert_eq!(server.single("up{job=\"liar\"}"), Some(1.0));
}

/// Whoever writes what a discovery tells names targets, and reaches nothing else by them.
#[test]
fn discovery_names_targets_and_reaches_nothing_else() {
    let honest = Exporter::start("a 1\n");
    let folder = tempfile::tempdir().unwrap();
    let group = |targets: &str, labels: &str| format!("{{\"targets\":[\"{targets}\"],\"labels\":{{{labels}}}}}");
    let addr = honest.addr.as_str();
    let bad = [
        group(addr, "\"__scheme__\":\"file\",\"__metrics_path__\":\"/etc/passwd\",\"n\":\"1\""),
        group(addr, "\"__scheme__\":\"unix\",\"n\":\"2\""),
        group("/etc/passwd", "\"n\":\"3\""),
        group("me:CANARY@127.0.0.1:1", "\"n\":\"4\""),
        group(addr, "\"__scrape_interval__\":\"-1s\",\"n\":\"5\""),
        group("", "\"n\":\"6\""),
    ];
    // Odd, but targets: a path is a path of theirs, a label no directive.
    let odd = [
        group(addr, "\"__metrics_path__\":\"/../../../etc/passwd\",\"n\":\"7\""),
        group(addr, "\"__param_x\":\"\\r\\nHost: evil\",\"job\":\"other\",\"n\":\"8\""),
    ];
    let write = |text: &str| {
        fs::write(folder.path().join("fresh"), text).unwrap();
        fs::rename(folder.path().join("fresh"), folder.path().join("sd.json")).unwrap();
    };
    write(&format!("[{}]", [&bad[..], &odd].concat().join(",")));
    let server = start(folder.path(), "- {job_name: j, file_sd_configs: [{files: [sd.json]}]}\n", "");
    wait_for("the odd ones", || (server.single("count(a)") == Some(2.0)).then_some(()));
    let numbers = || {
        let targets = server.get("/api/v1/targets?state=active").json();
        let active = targets["data"]["activeTargets"].as_array().unwrap().clone();
        let mut numbers: Vec<String> =
            active.iter().map(|target| target["labels"]["n"].as_str().unwrap().to_owned()).collect();
        numbers.sort();
        numbers
    };
    assert_eq!(numbers(), ["7", "8"]);
    // What is sent has one line, one host, and a path below the target's root.
    let mut lines: Vec<String> = honest.requests().into_iter().map(|(line, _)| line).collect();
    lines.sort();
    lines.dedup();
    assert_eq!(lines, ["GET /etc/passwd HTTP/1.1", "GET /metrics?x=%0D%0AHost%3A+evil HTTP/1.1"]);
    assert!(honest.heads().iter().all(|head| head.to_ascii_lowercase().matches("host:").count() == 1));
    assert!(!server.log().contains("root:"));
    // What cannot be read changes nothing.
    for text in ["[{\"targets\": [1]}]", "[", "{\"targets\": []}", "[{\"targets\":[\"x:1\"],\"labels\":{\"a\":[]}}]"] {
        let read = |server: &Server| {
            let text = server.get("/metrics").text();
            let line = text.lines().find_map(|line| line.strip_prefix("prometheus_sd_file_read_errors_total "));
            line.map_or(0.0, |value| value.parse::<f64>().unwrap())
        };
        let before = read(&server);
        write(text);
        wait_for("the error", || (before < read(&server)).then_some(()));
        assert_eq!(numbers(), ["7", "8"], "{text}");
    }
}

#[test]
fn what_targets_and_rules_say_is_never_markup() {
    const ATTACK: &str = "<img src=x onerror=alert(1)>";
    let exporter = Exporter::start(&format!(
        "# HELP a {ATTACK}\n# TYPE a gauge\na{{x=\"{ATTACK}\",y=\"javascript:alert(1)\"}} 1\n{{\"{ATTACK}\"}} 2\n\
         # TYPE h histogram\nh_bucket{{le=\"{ATTACK}\"}} 1\nh_bucket{{le=\"+Inf\"}} 1\nh_sum 1\nh_count 1\n"
    ));
    let broken = Exporter::start(&format!("a {ATTACK}\n"));
    let folder = tempfile::tempdir().unwrap();
    let rule = format!(
        "groups:\n- name: '{ATTACK}'\n  interval: 100ms\n  rules:\n  - {{alert: '{ATTACK}', expr: 'a > 0', \
         labels: {{x: '{ATTACK}'}}, annotations: {{summary: '{ATTACK}', link: 'javascript:alert(1)'}}}}\n  \
         - {{record: r, expr: 'a / on(nope) group_left a', labels: {{x: '{ATTACK}'}}}}\n"
    );
    fs::write(folder.path().join("rules.yml"), rule).unwrap();
    let jobs = format!(
        "- {{job_name: '{ATTACK}', static_configs: [{{targets: ['{}', '{}'], labels: {{x: '{ATTACK}'}}}}]}}\n",
        exporter.addr, broken.addr
    );
    let server = start(folder.path(), &jobs, "rule_files: [rules.yml]\n");
    wait_for("the alert", || server.single("ALERTS{alertstate=\"firing\"}"));
    wait_for("the failed scrape", || (server.single("count(up == 0)") == Some(1.0)).then_some(()));
    let expression = encode(&format!("{{__name__=\"{ATTACK}\"}} or a or h_bucket or ALERTS or \"{ATTACK}\""));
    for path in [
        "/query?g0.expr=",
        "/graph?g0.expr=",
        "/alerts?x=",
        "/rules?x=",
        "/targets?search=",
        "/service-discovery?x=",
        "/status?x=",
        "/tsdb-status?x=",
        "/config?x=",
        "/flags?x=",
        "/actors?x=",
        "/alertmanager-discovery?x=",
    ] {
        let page = server.get(&format!("{path}{expression}"));
        let text = page.text();
        assert!(!text.contains("<img"), "{path}: {text}");
        let links = text.split("href=").skip(1).map(|rest| rest.trim_start_matches(['"', '\'']));
        for link in links {
            let link = link.to_ascii_lowercase();
            assert!(
                !["javascript:", "data:", "vbscript:"].iter().any(|scheme| link.trim_start().starts_with(scheme)),
                "{path}: {link:.60}"
            );
        }
    }
    // Programs get it as it is, in JSON that no browser takes for a page.
    let answer = server.get(&format!("/api/v1/query?query={}", encode("a")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
}

#[test]
fn expressions_that_other_engines_choke_on_are_linear_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::start(&format!("a{{x=\"{}\"}} 1\n", "a".repeat(20_000)));
    let job = format!("- {{job_name: j, static_configs: [{{targets: ['{}']}}]}}\n", exporter.addr);
    let server = start(folder.path(), &job, "");
    wait_for("the series", || server.single("a"));
    for (pattern, status) in [
        ("(a+)+b", 200),
        ("(a|a)*b", 200),
        ("(a|aa)+b", 200),
        ("(.*a){20}b", 200),
        ("([a-z]+)*b", 200),
        ("(a*)*(a*)*(a*)*b", 200),
        ("((a{100}){100}){100}", 400),
        ("((((a{30}){30}){30}){30})", 400),
        ("(?:a{1000}){1000}", 400),
        ("[[:word:]]{1000}{1000}", 400),
    ] {
        let selector = encode(&format!("a{{x=~\"{pattern}\"}}"));
        for path in [format!("/api/v1/query?query={selector}"), format!("/api/v1/series?match[]={selector}")] {
            let answer = server.get(&path);
            assert_eq!(answer.status, status, "{pattern}: {}", answer.text());
        }
        let replace = encode(&format!("label_replace(a, \"y\", \"$1\", \"x\", \"{pattern}\")"));
        let answer = server.get(&format!("/api/v1/query?query={replace}"));
        assert!(
            answer.status == 200 && status == 200 || answer.status >= 400 && status == 400,
            "{pattern}: {}",
            answer.text()
        );
    }
    assert_eq!(server.single("a"), Some(1.0));
}
