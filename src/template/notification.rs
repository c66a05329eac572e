//! Templates of notifications: Alertmanager's functions and the data that they get.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::call::{Functions, Signature, Type};
use super::exec::{MissingKey, TreeSet, execute};
use super::functions::time_value;
use super::regexps::Regexps;
use super::time::Time;
use super::value::{ListKind, MapKind, Value};
use super::{TemplateError, builtins, encoding, humanize, json, layout, methods, parse, words};
use crate::model::alert::Alert;
use crate::model::labels::Labels;
use crate::model::time::TimestampMs;

/// Most route labels that may stand within each other.
const ROUTE_LABEL_DEPTH_MAX: usize = 8;

/// Named templates that notifications may call.
#[derive(Clone, Debug, Default)]
pub struct NotificationTemplates {
    trees: TreeSet,
}

/// Expands a template of a notification that calls no named templates, such as a webhook's URL.
pub fn expand_notification(text: &str, data: &Value, now: TimestampMs) -> Result<String, TemplateError> {
    NotificationTemplates::default().expand(text, data, now)
}

impl NotificationTemplates {
    /// Adds the templates that a file defines; they replace those of the same names. Errors show `name`.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), TemplateError> {
        self.trees.add(parse::parse(name, text, &is_function).map_err(TemplateError)?);
        Ok(())
    }

    /// Expands a text, which may call the named templates, over the data. `now` is what `now` and `since` go by.
    pub fn expand(&self, text: &str, data: &Value, now: TimestampMs) -> Result<String, TemplateError> {
        let functions = NotificationFunctions {
            templates: self,
            data,
            now,
            regexps: Regexps::default(),
            resolved: RefCell::new(BTreeMap::new()),
            resolving: RefCell::new(Vec::new()),
        };
        functions.expand(text).map_err(TemplateError)
    }
}

fn is_function(name: &str) -> bool {
    signature(name).is_some() || builtins::signature(name).is_some()
}

fn signature(name: &str) -> Option<Signature> {
    const STR: Type = Type::Str;
    Some(match name {
        "toUpper" | "toLower" | "title" | "trimSpace" | "safeHtml" | "safeUrl" | "urlUnescape" | "routeLabels"
        | "base64encode" | "base64decode" => Signature::new(&[STR]),
        "join" => Signature::new(&[STR, Type::Strings]),
        "match" | "toDate" | "mustToDate" => Signature::new(&[STR, STR]),
        "reReplaceAll" => Signature::new(&[STR, STR, STR]),
        "stringSlice" => Signature::variadic(&[], STR),
        "date" | "tz" => Signature::new(&[STR, Type::Time]),
        "now" => Signature::new(&[]),
        "since" => Signature::new(&[Type::Time]),
        "humanizeDuration" | "toJson" => Signature::new(&[Type::Any]),
        "list" | "dict" => Signature::variadic(&[], Type::Any),
        "append" => Signature::variadic(&[Type::Anys], Type::Any),
        _ => return None,
    })
}

struct NotificationFunctions<'a> {
    templates: &'a NotificationTemplates,
    data: &'a Value,
    now: TimestampMs,
    regexps: Regexps,
    /// Route labels that were expanded.
    resolved: RefCell<BTreeMap<String, String>>,
    /// Names of the route labels that are being expanded, outermost first.
    resolving: RefCell<Vec<String>>,
}

impl NotificationFunctions<'_> {
    fn expand(&self, text: &str) -> Result<String, String> {
        let mut trees = self.templates.trees.clone();
        let parsed = parse::parse("", text, &is_function)?;
        // The text itself is executed even if it is empty; what it defines joins the named templates.
        let (own, defined) = parsed.into_iter().partition::<Vec<_>, _>(|tree| tree.name.is_empty());
        trees.add(defined);
        match own.last() {
            Some(tree) => execute(tree, &trees, self, MissingKey::Zero, self.data),
            None => Ok(String::new()),
        }
    }

    /// A route's label, expanded once; labels may name each other, but not in a circle.
    fn route_label(&self, name: &str) -> Result<String, String> {
        let Value::Struct(data) = self.data.indirect() else { return Ok(String::new()) };
        let Some(Value::Map(labels)) = data.field("RouteLabels") else { return Ok(String::new()) };
        let Some(raw) = labels.entries.get(name).and_then(Value::as_str) else { return Ok(String::new()) };
        if let Some(known) = self.resolved.borrow().get(name) {
            return Ok(known.clone());
        }
        {
            let mut resolving = self.resolving.borrow_mut();
            if resolving.iter().any(|known| known == name) {
                return Err(format!("route label cycle detected: {} -> {name}", resolving.join(" -> ")));
            }
            if ROUTE_LABEL_DEPTH_MAX <= resolving.len() {
                return Err(format!("route labels are nested more than {ROUTE_LABEL_DEPTH_MAX} levels deep"));
            }
            resolving.push(name.to_owned());
        }
        let expanded = self.expand(raw);
        self.resolving.borrow_mut().pop();
        let expanded = expanded?;
        self.resolved.borrow_mut().insert(name.to_owned(), expanded.clone());
        Ok(expanded)
    }
}

impl Functions for NotificationFunctions<'_> {
    fn signature(&self, name: &str) -> Option<Signature> {
        signature(name)
    }

    fn steps(&self, name: &str, args: &[Value]) -> usize {
        match (name, args) {
            ("match" | "reReplaceAll", [pattern, ..]) => self.regexps.steps(pattern),
            _ => 0,
        }
    }

    fn call(&self, name: &str, args: &[Value]) -> Result<Value, String> {
        let text = |index: usize| args.get(index).and_then(Value::as_str).unwrap_or("");
        let first = args.first().unwrap_or(&Value::Nil);
        let second = args.get(1).unwrap_or(&Value::Nil);
        match name {
            "toUpper" => Ok(Value::text(text(0).to_uppercase())),
            "toLower" => Ok(Value::text(text(0).to_lowercase())),
            "title" => Ok(Value::text(words::title(text(0), words::Rest::Lowered))),
            "trimSpace" => Ok(Value::text(text(0).trim())),
            "safeHtml" | "safeUrl" => Ok(first.clone()),
            "urlUnescape" => encoding::query_unescape(text(0)).map(Value::text),
            "routeLabels" => self.route_label(text(0)).map(Value::text),
            "base64encode" => Ok(Value::text(encoding::base64_encode(text(0).as_bytes()))),
            "base64decode" => {
                encoding::base64_decode(text(0)).map(|raw| Value::text(String::from_utf8_lossy(&raw).into_owned()))
            }
            "join" => {
                let texts: Vec<_> = match second {
                    Value::List(list) => list.items.iter().filter_map(Value::as_str).collect(),
                    _ => Vec::new(),
                };
                methods::joined(&texts, text(0)).map(Value::text)
            }
            "match" => self.regexps.matches(text(0), text(1)),
            "reReplaceAll" => self.regexps.replace(text(0), text(1), text(2)),
            "stringSlice" => Ok(Value::list(ListKind::Strings, args.to_vec())),
            "date" => Ok(Value::text(time_of(second).map_or_else(String::new, |time| layout::format(time, text(0))))),
            "tz" => match time_of(second).and_then(|time| time.in_zone(text(0))) {
                Some(time) => Ok(Value::Time(time)),
                None => Err(format!("unknown time zone {}", text(0))),
            },
            "now" => Ok(time_value(self.now)),
            "since" => {
                let now = Time::from_unix_millis(self.now.0);
                Ok(Value::Duration(time_of(first).map_or(0, |time| now.since(time))))
            }
            "humanizeDuration" => humanize::to_float(first).map(|number| Value::text(humanize::duration(number))),
            "toDate" => Ok(Value::Time(layout::parse(text(0), text(1)).unwrap_or(Time::ZERO))),
            "mustToDate" => layout::parse(text(0), text(1)).map(Value::Time),
            "toJson" => json::to_json(first).map(Value::text),
            "list" => Value::list(ListKind::Any, args.to_vec()).check_nesting(),
            "append" => {
                let mut items = if let Value::List(list) = first { list.items.to_vec() } else { Vec::new() };
                items.extend(args.iter().skip(1).cloned());
                Value::list(ListKind::Any, items).check_nesting()
            }
            "dict" => dict(args),
            _ => Err(format!("no function {name}")),
        }
    }
}

fn time_of(value: &Value) -> Option<&Time> {
    if let Value::Time(time) = value { Some(time) } else { None }
}

fn dict(args: &[Value]) -> Result<Value, String> {
    if !args.len().is_multiple_of(2) {
        return Err("dict requires an even number of arguments".to_owned());
    }
    let mut entries = BTreeMap::new();
    for pair in args.chunks(2) {
        let [key, value] = pair else { continue };
        let Value::Str(key) = key else { return Err("dict keys must be strings".to_owned()) };
        entries.insert(key.clone(), value.clone());
    }
    Value::map(MapKind::Any, entries).check_nesting()
}

/// What a notification is about.
#[derive(Clone, Copy, Debug)]
pub struct NotificationData<'a> {
    /// Name of the receiver.
    pub receiver: &'a str,
    /// The alerts of the group, firing or resolved as of `now`.
    pub alerts: &'a [Alert],
    /// The time by which alerts count as resolved.
    pub now: TimestampMs,
    /// Why the notification is sent.
    pub reason: &'a str,
    /// Labels that the group was made by.
    pub group_labels: &'a Labels,
    /// Labels of the route, which may be templates.
    pub route_labels: &'a Labels,
    /// Where users find Alertmanager.
    pub external_url: &'a str,
}

impl NotificationData<'_> {
    /// The value that templates of the notification get as their dot.
    pub fn value(&self) -> Value {
        let firing = self.alerts.iter().any(|alert| !alert.is_resolved_at(self.now));
        let alerts = self.alerts.iter().map(|alert| self.alert(alert)).collect();
        let labels: Vec<&Labels> = self.alerts.iter().map(|alert| &alert.labels).collect();
        let annotations: Vec<&Labels> = self.alerts.iter().map(|alert| &alert.annotations).collect();
        let fields = vec![
            ("Receiver", Value::text(quote_meta(self.receiver))),
            ("Status", Value::text(if firing { "firing" } else { "resolved" })),
            ("Alerts", Value::list(ListKind::Alerts, alerts)),
            ("NotificationReason", Value::text(self.reason)),
            ("GroupLabels", Value::labels(MapKind::Kv, self.group_labels)),
            ("CommonLabels", Value::labels(MapKind::Kv, &common(&labels))),
            ("CommonAnnotations", Value::labels(MapKind::Kv, &common(&annotations))),
            ("RouteLabels", Value::labels(MapKind::Kv, self.route_labels)),
            ("ExternalURL", Value::text(self.external_url)),
        ];
        Value::record("template.Data", fields).pointer()
    }

    fn alert(&self, alert: &Alert) -> Value {
        let resolved = alert.is_resolved_at(self.now);
        // The end of an alert that fires is a guess, which notifications do not show.
        let ends_at = if resolved { Time::from_unix_millis(alert.ends_at.0) } else { Time::ZERO };
        let fields = vec![
            ("Status", Value::text(if resolved { "resolved" } else { "firing" })),
            ("Labels", Value::labels(MapKind::Kv, &alert.labels)),
            ("Annotations", Value::labels(MapKind::Kv, &alert.annotations)),
            ("StartsAt", Value::Time(Time::from_unix_millis(alert.starts_at.0))),
            ("EndsAt", Value::Time(ends_at)),
            ("GeneratorURL", Value::text(alert.generator_url.as_str())),
            ("Fingerprint", Value::text(alert.fingerprint().to_string())),
        ];
        Value::record("template.Alert", fields)
    }
}

/// What all have, with the same values.
fn common(all: &[&Labels]) -> Labels {
    let Some((first, rest)) = all.split_first() else { return Labels::empty() };
    let shared = first.iter().filter(|(name, value)| rest.iter().all(|other| other.get(name) == Some(value)));
    Labels::from_pairs(shared)
}

/// Go's `regexp.QuoteMeta`, which Alertmanager applies to the receiver's name.
fn quote_meta(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\.+*?()|[]{}^$".contains(c) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
