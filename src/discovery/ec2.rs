//! Targets from EC2's instances, as in Prometheus `discovery/aws/ec2.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tokio::time::Instant;

use crate::config::discovery::Ec2Sd;
use crate::discovery::api::ApiClient;
use crate::discovery::aws_credentials::{Aws, AwsSettings};
use crate::discovery::aws_xml::Element;
use crate::discovery::error::LookError;
use crate::discovery::labels::{host_port, sanitize};
use crate::discovery::refresh::{Refreshed, Source, look_within};
use crate::discovery::surroundings::Surroundings;
use crate::discovery::{ADDRESS, TargetGroup};
use crate::model::clock::SharedClock;
use crate::model::labels::{Labels, LabelsBuilder};

const PREFIX: &str = "__meta_ec2_";
const API_VERSION: &str = "2016-11-15";
/// Pages of instances at most; EC2 has a thousand on each.
const PAGES_MAX: usize = 10_000;

/// The instances of one region.
pub struct Ec2Source {
    config: Ec2Sd,
    aws: Aws,
    /// Ids of availability zones by their names in this account, once they could be had.
    zones: Option<BTreeMap<String, String>>,
}

impl Ec2Source {
    /// The region of a configuration.
    pub fn new(config: &Ec2Sd, surroundings: &Surroundings, clock: &SharedClock) -> Self {
        let settings = AwsSettings {
            region: config.region.clone(),
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
            profile: config.profile.clone(),
            role_arn: config.role_arn.clone(),
            external_id: config.external_id.clone(),
            fips: false,
        };
        let aws = Aws::new(ApiClient::new(&config.http), settings, surroundings, &Arc::clone(clock));
        Self { config: config.clone(), aws, zones: None }
    }

    async fn call(&mut self, action: &str, more: &[(String, String)], deadline: Instant) -> Result<Element, LookError> {
        let mut form = vec![("Action".to_owned(), action.to_owned()), ("Version".to_owned(), API_VERSION.to_owned())];
        form.extend_from_slice(more);
        let endpoint = Some(self.config.endpoint.as_str()).filter(|endpoint| !endpoint.is_empty());
        self.aws.call(("ec2", endpoint), &form, deadline).await
    }

    async fn groups(&mut self) -> Result<Refreshed, LookError> {
        let deadline = Instant::now() + look_within(self.config.refresh_interval.to_std());
        let region = self.aws.region().await?;
        if self.zones.is_none() {
            match self.call("DescribeAvailabilityZones", &[], deadline).await {
                Ok(answer) => self.zones = Some(zones(&answer)),
                Err(err) => {
                    let (component, discovery) = ("discovery", "ec2");
                    tracing::debug!(component, discovery, %err, "Unable to describe availability zones");
                }
            }
        }
        let (mut targets, mut page, filters) = (Vec::new(), None::<String>, self.filters());
        for _ in 0..PAGES_MAX {
            let mut form = filters.clone();
            form.extend(page.take().map(|token| ("NextToken".to_owned(), token)));
            let answer = match self.call("DescribeInstances", &form, deadline).await {
                Ok(answer) => answer,
                Err(error) => {
                    // Other credentials may do, as after a rotation.
                    self.aws.forget_keys();
                    return Err(error.during("could not describe instances"));
                }
            };
            for reservation in answer.items("reservationSet") {
                for instance in reservation.items("instancesSet") {
                    targets.extend(self.target(instance, reservation.text("ownerId"), &region));
                }
            }
            page = answer.text("nextToken").map(str::to_owned);
            if page.is_none() {
                break;
            }
        }
        Ok(vec![TargetGroup { source: region, targets, labels: Labels::empty() }].into())
    }

    /// The conditions of the configuration, as parameters.
    fn filters(&self) -> Vec<(String, String)> {
        let mut form = Vec::new();
        for (index, filter) in self.config.filters.iter().enumerate() {
            form.push((format!("Filter.{}.Name", index + 1), filter.name.clone()));
            for (number, value) in filter.values.iter().enumerate() {
                form.push((format!("Filter.{}.Value.{}", index + 1, number + 1), value.clone()));
            }
        }
        form
    }

    /// The target of an instance; none for one without an address.
    fn target(&self, instance: &Element, owner: Option<&str>, region: &str) -> Option<Labels> {
        let within_vpc = instance.text("vpcId").is_some();
        let addresses =
            if within_vpc { ipv6_addresses(instance) } else { Ipv6 { all: Vec::new(), primary: Vec::new() } };
        let private_ip = instance.text("privateIpAddress");
        let default_ipv6 = addresses.first();
        let address = host_port(private_ip.or(default_ipv6)?, self.config.port);
        let zone = instance.child("placement").and_then(|placement| placement.text("availabilityZone"));
        let zone_id = zone.and_then(|zone| self.zones.as_ref()?.get(zone));
        let mut labels = LabelsBuilder::new();
        labels.set(ADDRESS, &address);
        let mut set = |name: &str, value: Option<&str>| {
            labels.set(&format!("{PREFIX}{name}"), value.unwrap_or(""));
        };
        set("instance_id", instance.text("instanceId"));
        set("region", Some(region));
        set("owner_id", owner);
        set("default_ipv6_address", default_ipv6);
        set("private_ip", private_ip);
        set("private_dns_name", instance.text("privateDnsName"));
        set("platform", instance.text("platform"));
        if let Some(public_ip) = instance.text("ipAddress") {
            set("public_ip", Some(public_ip));
            set("public_dns_name", instance.text("dnsName"));
        }
        set("primary_ipv6_addresses", joined(&addresses.primary).as_deref());
        set("ipv6_addresses", joined(&addresses.all).as_deref());
        set("ami", instance.text("imageId"));
        set("availability_zone", zone);
        set("availability_zone_id", zone_id.map(String::as_str));
        set("instance_state", instance.child("instanceState").and_then(|state| state.text("name")));
        set("instance_type", instance.text("instanceType"));
        set("instance_lifecycle", instance.text("instanceLifecycle"));
        set("architecture", instance.text("architecture"));
        if within_vpc {
            set("vpc_id", instance.text("vpcId"));
            set("primary_subnet_id", instance.text("subnetId"));
            let mut subnets: Vec<&str> = Vec::new();
            for subnet in instance.items("networkInterfaceSet").filter_map(|interface| interface.text("subnetId")) {
                if !subnets.contains(&subnet) {
                    subnets.push(subnet);
                }
            }
            set("subnet_id", Some(&format!(",{},", subnets.join(","))));
        }
        for tag in instance.items("tagSet") {
            if let Some(key) = tag.text("key") {
                set(&format!("tag_{}", sanitize(key)), tag.text("value"));
            }
        }
        Some(labels.build())
    }
}

impl Source for Ec2Source {
    fn look(&mut self) -> BoxFuture<'_, Result<Refreshed, LookError>> {
        self.groups().boxed()
    }
}

fn zones(answer: &Element) -> BTreeMap<String, String> {
    let pair = |zone: &Element| Some((zone.text("zoneName")?.to_owned(), zone.text("zoneId")?.to_owned()));
    answer.items("availabilityZoneInfo").filter_map(pair).collect()
}

/// Addresses of version 6 of an instance's interfaces.
struct Ipv6<'a> {
    all: Vec<&'a str>,
    /// By the number of the interface's device; empty where there is none.
    primary: Vec<&'a str>,
}

impl<'a> Ipv6<'a> {
    /// The first primary one, else the first.
    fn first(&self) -> Option<&'a str> {
        self.primary.iter().chain(&self.all).copied().find(|address| !address.is_empty())
    }
}

/// Devices of an instance at most: their numbers decide how long a list is.
const DEVICES_MAX: usize = 256;

fn ipv6_addresses(instance: &Element) -> Ipv6<'_> {
    let mut found = Ipv6 { all: Vec::new(), primary: Vec::new() };
    for interface in instance.items("networkInterfaceSet").filter(|interface| interface.text("subnetId").is_some()) {
        let device = interface.child("attachment").and_then(|attachment| attachment.text("deviceIndex"));
        let device: Option<usize> =
            device.and_then(|device| device.parse().ok()).filter(|device| *device < DEVICES_MAX);
        for entry in interface.items("ipv6AddressesSet") {
            let Some(address) = entry.text("ipv6Address") else { continue };
            found.all.push(address);
            let Some(device) = device.filter(|_| entry.text("isPrimaryIpv6") == Some("true")) else { continue };
            if found.primary.len() <= device {
                found.primary.resize(device + 1, "");
            }
            if let Some(slot) = found.primary.get_mut(device) {
                *slot = address;
            }
        }
    }
    found
}

/// The parts with commas between and around them; none of none.
fn joined(parts: &[&str]) -> Option<String> {
    (!parts.is_empty()).then(|| format!(",{},", parts.join(",")))
}
