//! The labels of a data point: its attributes, what its resource and its scope add, and a name.

use std::collections::{BTreeSet, HashMap};

use crate::config::OtlpConfig;
use crate::model::labels::{INSTANCE, JOB, Labels, LabelsBuilder, METRIC_NAME};
use crate::remote::otlp::metrics::Warning;
use crate::remote::otlp::names::Names;
use crate::remote::otlp::value::Attribute;

/// Attributes that name the service.
const SERVICE_NAMESPACE: &str = "service.namespace";
const SERVICE_NAME: &str = "service.name";
const SERVICE_INSTANCE: &str = "service.instance.id";
/// Names of labels that are remembered.
const NAMES_MAX: usize = 1 << 12;

/// What the labels of all points of a resource have in common.
#[derive(Clone, Debug, Default)]
pub(super) struct ResourceLabels {
    job: String,
    instance: String,
    promoted: Vec<(String, String)>,
}

/// What a scope adds.
#[derive(Clone, Debug, Default)]
pub(super) struct ScopeLabels {
    labels: Vec<(String, String)>,
}

/// Makes labels by the rules of a configuration.
pub(super) struct Labeller<'a> {
    config: &'a OtlpConfig,
    pub(super) names: Names,
    known: HashMap<String, String>,
    /// Names that several attributes of a request have become.
    collided: BTreeSet<String>,
}

impl<'a> Labeller<'a> {
    pub(super) fn new(config: &'a OtlpConfig) -> Self {
        Self { config, names: Names::of(config), known: HashMap::new(), collided: BTreeSet::new() }
    }

    fn label(&mut self, name: &str) -> Result<String, String> {
        if let Some(known) = self.known.get(name) {
            return Ok(known.clone());
        }
        let label = self.names.label(name)?;
        if self.known.len() < NAMES_MAX {
            self.known.insert(name.to_owned(), label.clone());
        }
        Ok(label)
    }

    /// What all points of a resource with these attributes have.
    pub(super) fn resource(&mut self, attributes: &[Attribute]) -> Result<ResourceLabels, String> {
        let mut labels = ResourceLabels::default();
        if let Some(name) = get(attributes, SERVICE_NAME) {
            labels.job = match get(attributes, SERVICE_NAMESPACE) {
                Some(namespace) => format!("{namespace}/{name}"),
                None => name.to_owned(),
            };
        }
        labels.instance = get(attributes, SERVICE_INSTANCE).unwrap_or("").to_owned();
        let (all, listed) = match self.config.promote_all_resource_attributes {
            true => (true, &self.config.ignore_resource_attributes),
            false => (false, &self.config.promote_resource_attributes),
        };
        for attribute in attributes.iter().filter(|attribute| listed.contains(&attribute.key) != all) {
            labels.promoted.push((self.label(&attribute.key)?, attribute.value.clone()));
        }
        Ok(labels)
    }

    /// What the points of a scope have, if that is wanted.
    pub(super) fn scope(
        &mut self,
        [name, version, schema_url]: [&str; 3],
        attributes: &[Attribute],
    ) -> Result<Option<ScopeLabels>, String> {
        if !self.config.promote_scope_metadata || name.is_empty() {
            return Ok(None);
        }
        let mut labels = Vec::new();
        for attribute in attributes {
            labels.push((self.label(&format!("otel_scope_{}", attribute.key))?, attribute.value.clone()));
        }
        let own = [("otel_scope_name", name), ("otel_scope_version", version), ("otel_scope_schema_url", schema_url)];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(Some(ScopeLabels { labels }))
    }

    /// The labels of a point with these attributes, without a name.
    pub(super) fn point(
        &mut self,
        attributes: &mut Vec<Attribute>,
        resource: &ResourceLabels,
        scope: Option<&ScopeLabels>,
        warnings: &mut Vec<Warning>,
    ) -> Result<LabelsBuilder, String> {
        attributes.retain(|attribute| attribute.key != METRIC_NAME);
        let mut labels = self.attributes(attributes, warnings)?;
        for (name, value) in &resource.promoted {
            if labels.get(name).is_empty() {
                labels.set(name, value);
            }
        }
        set_identity(&mut labels, resource);
        for (name, value) in scope.into_iter().flat_map(|scope| &scope.labels) {
            labels.set(name, value);
        }
        Ok(labels)
    }

    /// The labels of `target_info`; `None` if there would be nothing to tell, or nobody to tell it of.
    pub(super) fn target_info(
        &mut self,
        attributes: &[Attribute],
        resource: &ResourceLabels,
        warnings: &mut Vec<Warning>,
    ) -> Result<Option<Labels>, String> {
        let is_identity = |attribute: &Attribute| {
            [SERVICE_NAMESPACE, SERVICE_NAME, SERVICE_INSTANCE].contains(&attribute.key.as_str())
        };
        if attributes.iter().all(is_identity) {
            return Ok(None);
        }
        let keep = self.config.keep_identifying_resource_attributes;
        let mut kept: Vec<Attribute> =
            attributes.iter().filter(|attribute| keep || !is_identity(attribute)).cloned().collect();
        let mut labels = self.attributes(&mut kept, warnings)?;
        set_identity(&mut labels, resource);
        labels.set(METRIC_NAME, "target_info");
        let identified = labels.contains(JOB) || labels.contains(INSTANCE);
        Ok(identified.then(|| labels.build()))
    }

    fn attributes(
        &mut self,
        attributes: &mut [Attribute],
        warnings: &mut Vec<Warning>,
    ) -> Result<LabelsBuilder, String> {
        attributes.sort_by(|a, b| a.key.cmp(&b.key));
        let mut labels = LabelsBuilder::new();
        for attribute in attributes.iter() {
            if !self.names.escapes {
                if attribute.key.is_empty() {
                    // Prometheus's words; its check of names that stand twice takes the empty one for such.
                    return Err("label name \"\" is not unique: invalid sample".to_owned());
                }
                labels.set(&attribute.key, &attribute.value);
                continue;
            }
            let name = self.label(&attribute.key)?;
            match labels.get(&name) {
                "" => labels.set(&name, &attribute.value),
                before => {
                    let both = format!("{before};{}", attribute.value);
                    if self.collided.len() < NAMES_MAX && self.collided.insert(name.clone()) {
                        warnings.push(Warning::LabelNameCollision);
                    }
                    labels.set(&name, &both)
                }
            };
        }
        Ok(labels)
    }
}

fn get<'a>(attributes: &'a [Attribute], key: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| attribute.key == key).map(|attribute| attribute.value.as_str())
}

fn set_identity(labels: &mut LabelsBuilder, resource: &ResourceLabels) {
    for (name, value) in [(JOB, &resource.job), (INSTANCE, &resource.instance)] {
        if !value.is_empty() {
            labels.set(name, value);
        }
    }
}
