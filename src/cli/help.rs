//! The text of `--help`: grouped, two columns, made to be read.

use crate::cli::flag_spec::{FlagSpec, Kind};

/// Width that the text is wrapped to.
const WIDTH: usize = 100;
const INDENT: usize = 8;

/// Help of the server.
pub(super) fn server(flags: &[FlagSpec]) -> String {
    let head = String::from(
        "usage: watchfire [<flags>]\n\nA monitoring server compatible with Prometheus. Without flags and without \
         ./prometheus.yml it monitors\nitself on http://127.0.0.1:9090 with a built-in configuration.\n\n\
         Other members of the family: watchfire alertmanager | promtool | amtool | pushgateway |\n\
         blackbox-exporter | snmp-exporter\n",
    );
    table(head, flags)
}

/// `head` and the flags of a table; `--help` and `--version` come first.
pub(super) fn table(head: String, flags: &[FlagSpec]) -> String {
    let mut out = head;
    out.push_str("\n  -h, --help\n        Show this text.\n  --version\n        Show the version.\n");
    let mut group = "";
    for spec in flags.iter().filter(|spec| !spec.hidden) {
        if spec.group != group {
            group = spec.group;
            out.push_str(&format!("\n{group}:\n"));
        }
        out.push_str(&format!("  {}\n", usage(spec)));
        wrap(&mut out, spec.help);
    }
    out.trim_end().to_owned()
}

fn usage(spec: &FlagSpec) -> String {
    let name = spec.name;
    let placeholder = match spec.kind {
        Kind::Switch => return format!("--[no-]{name}{}", if spec.default == "true" { " (on)" } else { "" }),
        Kind::Text | Kind::Messages(_) => "text",
        Kind::List => "text ...",
        Kind::Integer | Kind::Float => "number",
        Kind::Duration | Kind::GoDuration => "duration",
        Kind::Size | Kind::AutoSize => "size",
        Kind::Word(words) => return format!("--{name}={} ({})", words.join("|"), spec.default),
        Kind::LogLevel => "level",
        Kind::LogFormat => "format",
    };
    if spec.default.is_empty() {
        format!("--{name}=<{placeholder}>")
    } else {
        format!("--{name}=<{placeholder}> ({})", spec.default)
    }
}

fn wrap(out: &mut String, text: &str) {
    let mut column = 0;
    for word in text.split(' ') {
        if column == 0 || WIDTH < column + 1 + word.len() {
            if column != 0 {
                out.push('\n');
            }
            out.push_str(&" ".repeat(INDENT));
            column = INDENT;
        } else {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += word.len();
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flag_table::FLAGS;

    #[test]
    fn shows_visible_flags_and_fits_the_width() {
        let text = server(FLAGS);
        for spec in FLAGS {
            let shown = text.lines().any(|line| {
                line.trim_start().trim_start_matches("--").trim_start_matches("[no-]").split(['=', ' ']).next()
                    == Some(spec.name)
            });
            assert_eq!(shown, !spec.hidden, "{}", spec.name);
        }
        let long = text.lines().find(|line| WIDTH + 20 < line.len());
        assert_eq!(long, None);
    }
}
