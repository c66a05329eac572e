//! What discovery finds within a time, for those who want to see it once.

use std::io;

use futures::future::{FutureExt, join_all};
use tokio::time::{Instant, timeout_at};

use crate::config::discovery::DiscoveryConfigs;
use crate::discovery::{ProviderKit, Providers, TargetGroup};

/// What was found.
#[derive(Debug, Default, PartialEq)]
pub struct Collected {
    /// The groups of static targets, then those that providers found last.
    pub groups: Vec<TargetGroup>,
    /// Why providers failed last.
    pub failures: Vec<String>,
    /// Fields whose providers are not there yet.
    pub not_built: Vec<&'static str>,
}

/// Lets all providers of the set `set` look until the deadline, in a runtime. Errors when the system gives no thread.
pub async fn collect(
    config: &DiscoveryConfigs,
    set: &str,
    kit: &ProviderKit,
    deadline: Instant,
) -> io::Result<Collected> {
    let Providers { built, not_built } = Providers::from(config);
    let mut looks = Vec::new();
    for one in &built {
        let mut provider = one.start(kit, set, &[])?;
        let look = async move {
            let (mut groups, mut failure) = (Vec::new(), None);
            while let Ok(look) = timeout_at(deadline, provider.next()).await {
                groups = look.groups.unwrap_or(groups);
                failure = look.failure;
            }
            (groups, failure)
        };
        looks.push(look.boxed());
    }
    let groups = config.static_groups().iter().map(TargetGroup::from).collect();
    let mut collected = Collected { groups, failures: Vec::new(), not_built };
    for (groups, failure) in join_all(looks).await {
        collected.groups.extend(groups);
        collected.failures.extend(failure);
    }
    Ok(collected)
}
