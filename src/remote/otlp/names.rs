//! Names: what OpenTelemetry calls a metric, a unit or an attribute becomes the name of a metric or label, by the rules of
//! Prometheus's `otlptranslator`.

use crate::config::OtlpConfig;
use crate::model::go;

/// Units and what they are called in names of metrics.
const UNITS: &[(&str, &str)] = &[
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("g", "grams"),
    ("Cel", "celsius"),
    ("Hz", "hertz"),
    ("1", ""),
    ("%", "percent"),
];
/// Units behind a slash.
const PER_UNITS: &[(&str, &str)] =
    &[("s", "second"), ("m", "minute"), ("h", "hour"), ("d", "day"), ("w", "week"), ("mo", "month"), ("y", "year")];

/// What a metric is, as far as its name depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Gauge,
    MonotonicCounter,
    Other,
}

/// The rules in effect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Names {
    /// Characters that old names cannot have become underscores.
    pub(super) escapes: bool,
    /// Units and types are appended.
    pub(super) suffixes: bool,
    key_before_underscore: bool,
    keeps_underscores: bool,
}

impl Names {
    pub(super) fn of(config: &OtlpConfig) -> Self {
        let strategy = config.translation_strategy.as_str();
        Self {
            escapes: matches!(strategy, "UnderscoreEscapingWithSuffixes" | "UnderscoreEscapingWithoutSuffixes"),
            suffixes: matches!(strategy, "UnderscoreEscapingWithSuffixes" | "NoUTF8EscapingWithSuffixes"),
            key_before_underscore: config.label_name_underscore_sanitization,
            keeps_underscores: config.label_name_preserve_multiple_underscores,
        }
    }

    /// The name of a metric. The error has the words of Prometheus.
    pub(super) fn metric(&self, name: &str, unit: &str, kind: Kind) -> Result<String, String> {
        if !self.escapes {
            return Ok(if self.suffixes { with_suffixes(name, unit, kind) } else { name.to_owned() });
        }
        let normalized = if self.suffixes { normalized(name, unit, kind) } else { escaped(name) };
        if normalized.is_empty() {
            return Err(format!("normalization for metric {} resulted in empty name", go::quote(name)));
        }
        if normalized != name && only_underscores(&normalized) {
            let (name, normalized) = (go::quote(name), go::quote(&normalized));
            return Err(format!("normalization for metric {name} resulted in invalid name {normalized}"));
        }
        Ok(normalized)
    }

    /// The name of a label. The error has the words of Prometheus.
    pub(super) fn label(&self, name: &str) -> Result<String, String> {
        if name.is_empty() {
            return Err("label name is empty".to_owned());
        }
        if !self.escapes {
            return match only_underscores(name) {
                true => Err(format!("label name {} contains only underscores", go::quote(name))),
                false => Ok(name.to_owned()),
            };
        }
        let mut normalized = self.sanitized(name);
        if normalized.starts_with(|c: char| c.is_ascii_digit()) {
            normalized.insert_str(0, "key_");
        } else if self.key_before_underscore && normalized.starts_with('_') && !normalized.starts_with("__") {
            normalized.insert_str(0, "key");
        }
        if only_underscores(&normalized) {
            let (name, normalized) = (go::quote(name), go::quote(&normalized));
            return Err(format!("normalization for label name {name} resulted in invalid name {normalized}"));
        }
        Ok(normalized)
    }

    fn sanitized(&self, name: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric();
        if self.keeps_underscores {
            return name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
        }
        let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
        let mut out = String::with_capacity(name.len());
        for c in inner.unwrap_or(name).chars() {
            match plain(c) {
                true => out.push(c),
                false if out.ends_with('_') => {}
                false => out.push('_'),
            }
        }
        if inner.is_some() { format!("__{out}__") } else { out }
    }
}

fn only_underscores(name: &str) -> bool {
    name.chars().all(|c| c == '_')
}

/// Characters of old metric names, without the underscore.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == ':'
}

fn starts_with_digit(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_digit())
}

/// Without suffixes: runs of other characters become one underscore.
fn escaped(name: &str) -> String {
    let parts: Vec<&str> = name.split(|c: char| !is_plain(c) && c != '_').filter(|part| !part.is_empty()).collect();
    let joined = parts.join("_");
    if starts_with_digit(&joined) { format!("_{joined}") } else { joined }
}

/// With unit and type, by words.
fn normalized(name: &str, unit: &str, kind: Kind) -> String {
    let mut words: Vec<String> =
        name.split(|c: char| !is_plain(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let (main, per) = unit_suffixes(unit);
    add_unit_words(&mut words, clean_unit(&main), clean_unit(&per));
    let mut end_with = |word: &str| {
        words.retain(|other| other != word);
        words.push(word.to_owned());
    };
    if kind == Kind::MonotonicCounter {
        end_with("total");
    }
    // Some senders count objects in the unit 1, so only gauges are taken for ratios.
    if unit == "1" && kind == Kind::Gauge {
        end_with("ratio");
    }
    let joined = words.join("_");
    if starts_with_digit(&joined) { format!("_{joined}") } else { joined }
}

fn add_unit_words(words: &mut Vec<String>, mut main: String, mut per: String) {
    if words.contains(&main) {
        main.clear();
    }
    if per == "per_" {
        per.clear();
    } else {
        per = per.strip_suffix('_').unwrap_or(&per).to_owned();
        if words.contains(&per) {
            per.clear();
        }
    }
    if !per.is_empty() {
        main = main.strip_suffix('_').unwrap_or(&main).to_owned();
    }
    words.extend([main, per].into_iter().filter(|word| !word.is_empty()));
}

/// With unit and type, and the name as it is.
fn with_suffixes(name: &str, unit: &str, kind: Kind) -> String {
    let mut name = name.to_owned();
    let (ratio, total) = (unit == "1" && kind == Kind::Gauge, kind == Kind::MonotonicCounter);
    if ratio {
        name = without_suffix(&name, "ratio").to_owned();
    }
    if total {
        name = without_suffix(&name, "total").to_owned();
    }
    let (main, per) = unit_suffixes(unit);
    if !per.is_empty() {
        name = without_suffix(&name, &per).to_owned();
    }
    if !main.is_empty() && !name.ends_with(&main) {
        name = format!("{name}_{main}");
    }
    let ends = [(!per.is_empty(), per.as_str()), (total, "total"), (ratio, "ratio")];
    for (_, end) in ends.into_iter().filter(|(applies, _)| *applies) {
        name = format!("{name}_{end}");
    }
    name
}

fn without_suffix<'a>(name: &'a str, suffix: &str) -> &'a str {
    let Some(rest) = name.strip_suffix(suffix) else { return name };
    // The character before it goes as well; Prometheus takes a byte.
    match rest.char_indices().next_back() {
        Some((at, _)) if 0 < at => rest.get(..at).unwrap_or(name),
        _ => name,
    }
}

/// What a unit adds to a name: of the unit itself, and of what stands behind a slash.
fn unit_suffixes(unit: &str) -> (String, String) {
    let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
    let named = |unit: &str, table: &[(&str, &str)]| -> String {
        let unit = unit.trim();
        if unit.contains(['{', '}']) {
            return String::new();
        }
        table.iter().find(|(short, _)| *short == unit).map_or(unit, |(_, long)| long).to_owned()
    };
    let per = named(per, PER_UNITS);
    (named(main, UNITS), if per.is_empty() { per } else { format!("per_{per}") })
}

/// The unit that metadata tells.
pub(super) fn unit(unit: &str) -> String {
    let (main, per) = unit_suffixes(unit);
    let parts = [clean_unit(&main), clean_unit(&per)];
    let joined = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_");
    let begun = joined.strip_prefix('_').unwrap_or(&joined);
    begun.strip_suffix('_').unwrap_or(begun).to_owned()
}

fn clean_unit(unit: &str) -> String {
    let mut out = String::with_capacity(unit.len());
    for c in unit.chars() {
        match is_plain(c) {
            true => out.push(c),
            false if out.ends_with('_') => {}
            false => out.push('_'),
        }
    }
    out.strip_prefix('_').map(str::to_owned).unwrap_or(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(strategy: &str) -> Names {
        let config = OtlpConfig { translation_strategy: strategy.to_owned(), ..OtlpConfig::default() };
        Names { key_before_underscore: true, keeps_underscores: true, ..Names::of(&config) }
    }

    #[test]
    fn metrics_are_named_by_their_unit_and_type() {
        let names = names("UnderscoreEscapingWithSuffixes");
        for (name, unit, kind, expected) in [
            ("http.server.duration", "ms", Kind::Other, "http_server_duration_milliseconds"),
            ("requests", "1", Kind::MonotonicCounter, "requests_total"),
            ("hit.ratio", "1", Kind::Gauge, "hit_ratio"),
            ("hits", "1", Kind::Gauge, "hits_ratio"),
            ("system.io", "By/s", Kind::Gauge, "system_io_bytes_per_second"),
            ("total_things", "{thing}", Kind::MonotonicCounter, "things_total"),
            ("2xx", "", Kind::Other, "_2xx"),
            ("a__b:c", "foo bar", Kind::Other, "a_b:c_foo_bar"),
            ("x_seconds", "s", Kind::Other, "x_seconds"),
        ] {
            assert_eq!(names.metric(name, unit, kind).as_deref(), Ok(expected), "{name}");
        }
        assert!(names.metric("é", "", Kind::Other).unwrap_err().ends_with("resulted in empty name"));
    }

    #[test]
    fn other_strategies_leave_what_they_say() {
        let plain = names("UnderscoreEscapingWithoutSuffixes");
        assert_eq!(plain.metric("a.b__c", "s", Kind::MonotonicCounter).as_deref(), Ok("a_b__c"));
        let utf8 = names("NoUTF8EscapingWithSuffixes");
        assert_eq!(utf8.metric("a.b", "By/s", Kind::MonotonicCounter).as_deref(), Ok("a.b_bytes_per_second_total"));
        assert_eq!(utf8.metric("a.b_total", "s", Kind::MonotonicCounter).as_deref(), Ok("a.b_seconds_total"));
        assert_eq!(names("NoTranslation").metric("a.b", "s", Kind::Gauge).as_deref(), Ok("a.b"));
    }

    #[test]
    fn units_have_names() {
        for (given, expected) in [
            ("s", "seconds"),
            ("By/s", "bytes_per_second"),
            ("1", ""),
            ("{x}", ""),
            ("/m", "per_minute"),
            ("a b%", "a_b"),
        ] {
            assert_eq!(unit(given), expected, "{given}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let names = names("UnderscoreEscapingWithSuffixes");
        let label = |name: &str| names.label(name);
        assert_eq!(label("http.method").as_deref(), Ok("http_method"));
        assert_eq!(label("a..b").as_deref(), Ok("a__b"));
        assert_eq!(label("1a").as_deref(), Ok("key_1a"));
        assert_eq!(label("_a").as_deref(), Ok("key_a"));
        assert_eq!(label("__a__").as_deref(), Ok("__a__"));
        assert!(label("").is_err() && label("...").is_err());
        let collapsing = Names { keeps_underscores: false, ..names };
        assert_eq!(collapsing.label("a..b__c").as_deref(), Ok("a_b_c"));
        assert_eq!(collapsing.label("__a..b__").as_deref(), Ok("__a_b__"));
    }
}
