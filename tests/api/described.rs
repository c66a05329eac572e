//! `/api/v1/openapi.yaml` held against what is answered: every operation is called with parameters that fit its schema and with
//! some that do not. Statuses and types of content are those that stand there, and bodies fit their schemas. A full run of a
//! schema-driven fuzzer against a server with data found nothing else.

use serde_json::Value;

use crate::client::{Answer, Setup, TestServer};

/// Schemas and operations.
struct Described(Value);

impl Described {
    /// What a `$ref` stands for.
    fn resolved<'a>(&'a self, schema: &'a Value) -> &'a Value {
        match schema["$ref"].as_str() {
            Some(path) => self.0.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("no {path}")),
            None => schema,
        }
    }

    /// What of a value does not fit a schema.
    fn misfit(&self, schema: &Value, value: &Value, place: &str) -> Option<String> {
        let schema = self.resolved(schema);
        for part in schema["allOf"].as_array().into_iter().flatten() {
            if let Some(misfit) = self.misfit(part, value, place) {
                return Some(misfit);
            }
        }
        let is_type = |name: &str| match name {
            "object" => value.is_object(),
            "array" => value.is_array(),
            "string" => value.is_string(),
            "integer" => value.is_i64() || value.is_u64(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "null" => value.is_null(),
            other => panic!("unknown type {other}"),
        };
        let types = match &schema["type"] {
            Value::Array(types) => types.iter().filter_map(Value::as_str).collect(),
            Value::String(name) => vec![name.as_str()],
            _ => Vec::new(),
        };
        if !types.is_empty() && !types.iter().any(|name| is_type(name)) {
            return Some(format!("{place} is no {types:?}: {value}"));
        }
        if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
            return Some(format!("{place} is none of {}: {value}", schema["enum"]));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                return Some(format!("{place}.{name} is missing in {value}"));
            }
        }
        for (name, inner) in value.as_object().into_iter().flatten() {
            let known = schema["properties"].get(name).or_else(|| schema.get("additionalProperties"));
            let misfit = known.and_then(|schema| self.misfit(schema, inner, &format!("{place}.{name}")));
            if misfit.is_some() {
                return misfit;
            }
        }
        let items = schema.get("items").map(|schema| (schema, value.as_array()));
        let (schema, items) = items.and_then(|(schema, items)| Some((schema, items?)))?;
        items.iter().enumerate().find_map(|(at, item)| self.misfit(schema, item, &format!("{place}[{at}]")))
    }

    /// A value for a parameter: one that fits, or one that hardly does.
    fn example(&self, name: &str, schema: &Value, is_good: bool) -> String {
        if !is_good {
            return match self.resolved(schema)["type"].as_str() {
                Some("integer") => "-7x".to_owned(),
                _ => "{\"\u{e9}\u{0}[".to_owned(),
            };
        }
        let schema = self.resolved(schema);
        let word = match name {
            "query" | "match[]" | "search[]" => "up",
            "match_target" => "{job=\"a\"}",
            "labels" => "{\"a\":\"b\"}",
            "scrapePool" => "a",
            "label" => "job",
            "group_next_token" | "group_limit" => "1",
            "metric_name_pattern" => "a.*",
            "limit" | "batch_size" | "fuzz_threshold" | "limit_per_metric" => "5",
            "step" => "15",
            _ if schema.get("enum").is_some() => schema["enum"][0].as_str().unwrap(),
            _ if schema["type"] == "boolean" => "true",
            "start" => "1435781430",
            "end" => "1435781450",
            _ => "1",
        };
        word.to_owned()
    }
}

fn encode(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn check(described: &Described, operation: &Value, shown: &str, answer: &Answer) {
    let status = answer.status.to_string();
    let response = &operation["responses"][&status];
    assert!(response.is_object(), "{shown}: {status} is not described: {}", answer.text_lossy());
    let kind = answer.header("Content-Type").unwrap_or_default();
    let Some(content) = response["content"].as_object() else {
        assert!(answer.body.is_empty(), "{shown}: {status} has a body");
        return;
    };
    let bare = kind.split(';').next().unwrap();
    let schema = content.get(&kind).or_else(|| content.get(bare));
    let schema = schema.unwrap_or_else(|| panic!("{shown}: {status} with {kind} is not described"));
    if bare == "application/json" {
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        if let Some(misfit) = described.misfit(&schema["schema"], &body, "body") {
            panic!("{shown}: {status}: {misfit}");
        }
    }
}

#[test]
fn answers_are_as_described() {
    let server = TestServer::start(Setup { enable_lifecycle: true, ..Setup::default() });
    let text = server.get("/api/v1/openapi.yaml").text();
    let described = Described(serde_yaml::from_str(&text).unwrap());
    let mut statuses = std::collections::BTreeMap::new();
    for (path, operations) in described.0["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            if path == "/notifications/live" {
                continue;
            }
            // All parameters fit; each in turn does not; each in turn is missing; none is there.
            let form =
                &operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]["properties"];
            let query = operation["parameters"].as_array().into_iter().flatten().filter(|p| p["in"] == "query");
            let mut names: Vec<(String, &Value)> =
                query.map(|p| (p["name"].as_str().unwrap().to_owned(), &p["schema"])).collect();
            names.extend(form.as_object().into_iter().flatten().map(|(name, schema)| (name.clone(), schema)));
            let pair = |(name, schema): &(String, &Value), is_good| {
                format!("{}={}", encode(name), encode(&described.example(name, schema, is_good)))
            };
            let mut forms = vec![String::new()];
            forms.push(names.iter().map(|one| pair(one, true)).collect::<Vec<_>>().join("&"));
            for odd in 0..names.len() {
                let others = |with: Option<bool>| {
                    let pairs = names.iter().enumerate().filter_map(|(at, one)| match (at == odd, with) {
                        (true, None) => None,
                        (true, Some(is_good)) => Some(pair(one, is_good)),
                        (false, _) => Some(pair(one, true)),
                    });
                    pairs.collect::<Vec<_>>().join("&")
                };
                forms.extend([others(None), others(Some(false))]);
            }
            let method = method.to_uppercase();
            for form_text in forms {
                let target = format!("/api/v1{}", path.replace("{name}", "job"));
                let answer = match form.is_object() {
                    true => server.post_form(&target, &form_text),
                    false => server.request(&method, &format!("{target}?{form_text}"), &[], ""),
                };
                *statuses.entry(answer.status).or_insert(0) += 1;
                check(&described, operation, &format!("{method} {path} {form_text}"), &answer);
            }
        }
    }
    assert!(20 < statuses[&200] && 20 < statuses[&400], "{statuses:?}");
}
