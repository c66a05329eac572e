//! Targets from DNS records, as in Prometheus `discovery/dns`. A name that cannot be looked up keeps the records that it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};

use crate::config::discovery::DnsSd;
use crate::discovery::dns_wire::{Kind, Record};
use crate::discovery::error::LookError;
use crate::discovery::labels::{host_port, ipv6_text};
use crate::discovery::metrics::SourceMetrics;
use crate::discovery::refresh::{Refreshed, Source};
use crate::discovery::resolver::ResolvConf;
use crate::discovery::surroundings::Surroundings;
use crate::discovery::{ADDRESS, TargetGroup};
use crate::model::labels::Labels;

/// Names that are looked up at the same time.
const LOOKUPS_MAX: usize = 16;

/// The names of one configuration.
pub struct DnsSource {
    names: Vec<String>,
    kind: Kind,
    port: i64,
    surroundings: Surroundings,
    metrics: Arc<SourceMetrics>,
    /// The last good groups, by name.
    known: BTreeMap<String, TargetGroup>,
}

impl DnsSource {
    /// The names of a configuration. `last` are groups of an earlier source with the same settings.
    pub fn new(
        config: &DnsSd,
        surroundings: &Surroundings,
        metrics: &Arc<SourceMetrics>,
        last: &[TargetGroup],
    ) -> Self {
        let kind = match config.record_type.to_ascii_uppercase().as_str() {
            "A" => Kind::A,
            "AAAA" => Kind::Aaaa,
            "MX" => Kind::Mx,
            "NS" => Kind::Ns,
            _ => Kind::Srv,
        };
        Self {
            names: config.names.clone(),
            kind,
            port: config.port,
            surroundings: surroundings.clone(),
            metrics: Arc::clone(metrics),
            known: last.iter().map(|group| (group.source.clone(), group.clone())).collect(),
        }
    }

    async fn lookup(&self, name: &str) -> Result<TargetGroup, LookError> {
        self.metrics.dns_lookups.inc();
        let looked_up = async { ResolvConf::load(&self.surroundings).await?.lookup(name, self.kind).await }.await;
        let records = looked_up.inspect_err(|_| self.metrics.dns_lookup_failures.inc())?;
        let targets = records.into_iter().filter_map(|record| target(name, self.port, record)).collect();
        Ok(TargetGroup { source: name.to_owned(), targets, labels: Labels::empty() })
    }
}

impl Source for DnsSource {
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
        let look = async {
            let mut lookups = Vec::with_capacity(self.names.len());
            for name in &self.names {
                lookups.push(self.lookup(name).boxed());
            }
            let found: Vec<_> = stream::iter(lookups).buffered(LOOKUPS_MAX).collect().await;
            let mut failure = None;
            for group in found {
                match group {
                    Ok(group) => drop(self.known.insert(group.source.clone(), group)),
                    Err(error) => drop(failure.get_or_insert(error)),
                }
            }
            let groups = self.names.iter().filter_map(|name| self.known.get(name).cloned()).collect();
            Ok(Refreshed { groups, failure })
        };
        look.boxed()
    }
}

fn target(name: &str, port: i64, record: Record) -> Option<Labels> {
    let bare = |name: &str| name.trim_end_matches('.').to_owned();
    let (address, own) = match record {
        Record::A(address) => (host_port(&address.to_string(), port), Vec::new()),
        Record::Aaaa(address) => (host_port(&ipv6_text(address), port), Vec::new()),
        Record::Srv { target, port } => {
            let labels = vec![
                ("__meta_dns_srv_record_port", port.to_string()),
                ("__meta_dns_srv_record_target", target.clone()),
            ];
            (host_port(&bare(&target), port), labels)
        }
        Record::Mx(target) => (host_port(&bare(&target), port), vec![("__meta_dns_mx_record_target", target)]),
        Record::Ns(target) => (host_port(&bare(&target), port), vec![("__meta_dns_ns_record_target", target)]),
        Record::Cname => return None,
        Record::Other(kind) => {
            tracing::warn!(component = "discovery", discovery = "dns", name, kind, "Invalid record");
            return None;
        }
    };
    let common = [(ADDRESS, address), ("__meta_dns_name", name.to_owned())];
    Some(Labels::from_pairs(common.into_iter().chain(own)))
}
