//! Where targets are found: the `*_sd_configs` and `static_configs` of jobs and of Alertmanagers.
//!
//! Static and file discovery are at work; the bodies of the others are read and checked like Prometheus does, so that
//! every good file loads and is shown in full, and each has a warning of its own until its provider exists.

mod aws;
mod cloud;
mod cloud_more;
mod container;
mod kubernetes;
mod registry;

pub use self::aws::{AwsSd, Ec2Sd, EcsSd, ElasticacheSd, LightsailSd, MskSd, RdsSd};
pub use self::cloud::{AzureSd, DigitalOceanSd, GceSd, HetznerSd, IonosSd, LinodeSd};
pub use self::cloud_more::{OciSd, OpenstackSd, OutscaleSd, OvhcloudSd, ScalewaySd, StackitSd, TritonSd, VultrSd};
pub use self::container::{DockerSd, DockerSwarmSd, KumaSd, MarathonSd, NomadSd};
pub use self::kubernetes::KubernetesSd;
pub use self::registry::{ConsulSd, DnsSd, EurekaSd, HttpSd, NerveSd, PuppetdbSd, ServersetSd, UyuniSd};

use super::path::FilePath;
use super::target_groups::{StaticConfigs, TargetGroup};
use super::url::ConfigUrl;
use super::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::go;

block! {
    /// `file_sd_configs`: files with target groups.
    pub struct FileSd("*file.SDConfig", "file.plain") {
        /// Names or patterns of the files.
        pub files: Vec<FilePath> = "files", always;
        /// Time between looks at the files besides being notified; 5 m unless set.
        pub refresh_interval: PromDuration = "refresh_interval", omitempty;
    }
}

block! {
    /// All discovery of a job.
    pub struct DiscoveryConfigs("discovery.Configs") {
        /// `aws_sd_configs`, see [`AwsSd`].
        pub aws: Vec<AwsSd> = "aws_sd_configs", omitempty;
        /// `azure_sd_configs`, see [`AzureSd`].
        pub azure: Vec<AzureSd> = "azure_sd_configs", omitempty;
        /// `consul_sd_configs`, see [`ConsulSd`].
        pub consul: Vec<ConsulSd> = "consul_sd_configs", omitempty;
        /// `digitalocean_sd_configs`, see [`DigitalOceanSd`].
        pub digitalocean: Vec<DigitalOceanSd> = "digitalocean_sd_configs", omitempty;
        /// `dns_sd_configs`, see [`DnsSd`].
        pub dns: Vec<DnsSd> = "dns_sd_configs", omitempty;
        /// `docker_sd_configs`, see [`DockerSd`].
        pub docker: Vec<DockerSd> = "docker_sd_configs", omitempty;
        /// `dockerswarm_sd_configs`, see [`DockerSwarmSd`].
        pub dockerswarm: Vec<DockerSwarmSd> = "dockerswarm_sd_configs", omitempty;
        /// `ec2_sd_configs`, see [`Ec2Sd`].
        pub ec2: Vec<Ec2Sd> = "ec2_sd_configs", omitempty;
        /// `ecs_sd_configs`, see [`EcsSd`].
        pub ecs: Vec<EcsSd> = "ecs_sd_configs", omitempty;
        /// `elasticache_sd_configs`, see [`ElasticacheSd`].
        pub elasticache: Vec<ElasticacheSd> = "elasticache_sd_configs", omitempty;
        /// `eureka_sd_configs`, see [`EurekaSd`].
        pub eureka: Vec<EurekaSd> = "eureka_sd_configs", omitempty;
        /// Files with target groups.
        pub file: Vec<FileSd> = "file_sd_configs", omitempty;
        /// `gce_sd_configs`, see [`GceSd`].
        pub gce: Vec<GceSd> = "gce_sd_configs", omitempty;
        /// `hetzner_sd_configs`, see [`HetznerSd`].
        pub hetzner: Vec<HetznerSd> = "hetzner_sd_configs", omitempty;
        /// `http_sd_configs`, see [`HttpSd`].
        pub http: Vec<HttpSd> = "http_sd_configs", omitempty;
        /// `ionos_sd_configs`, see [`IonosSd`].
        pub ionos: Vec<IonosSd> = "ionos_sd_configs", omitempty;
        /// `kubernetes_sd_configs`, see [`KubernetesSd`].
        pub kubernetes: Vec<KubernetesSd> = "kubernetes_sd_configs", omitempty;
        /// `kuma_sd_configs`, see [`KumaSd`].
        pub kuma: Vec<KumaSd> = "kuma_sd_configs", omitempty;
        /// `lightsail_sd_configs`, see [`LightsailSd`].
        pub lightsail: Vec<LightsailSd> = "lightsail_sd_configs", omitempty;
        /// `linode_sd_configs`, see [`LinodeSd`].
        pub linode: Vec<LinodeSd> = "linode_sd_configs", omitempty;
        /// `marathon_sd_configs`, see [`MarathonSd`].
        pub marathon: Vec<MarathonSd> = "marathon_sd_configs", omitempty;
        /// `msk_sd_configs`, see [`MskSd`].
        pub msk: Vec<MskSd> = "msk_sd_configs", omitempty;
        /// `nerve_sd_configs`, see [`NerveSd`].
        pub nerve: Vec<NerveSd> = "nerve_sd_configs", omitempty;
        /// `nomad_sd_configs`, see [`NomadSd`].
        pub nomad: Vec<NomadSd> = "nomad_sd_configs", omitempty;
        /// `oci_sd_configs`, see [`OciSd`].
        pub oci: Vec<OciSd> = "oci_sd_configs", omitempty;
        /// `openstack_sd_configs`, see [`OpenstackSd`].
        pub openstack: Vec<OpenstackSd> = "openstack_sd_configs", omitempty;
        /// `outscale_sd_configs`, see [`OutscaleSd`].
        pub outscale: Vec<OutscaleSd> = "outscale_sd_configs", omitempty;
        /// `ovhcloud_sd_configs`, see [`OvhcloudSd`].
        pub ovhcloud: Vec<OvhcloudSd> = "ovhcloud_sd_configs", omitempty;
        /// `puppetdb_sd_configs`, see [`PuppetdbSd`].
        pub puppetdb: Vec<PuppetdbSd> = "puppetdb_sd_configs", omitempty;
        /// `rds_sd_configs`, see [`RdsSd`].
        pub rds: Vec<RdsSd> = "rds_sd_configs", omitempty;
        /// `scaleway_sd_configs`, see [`ScalewaySd`].
        pub scaleway: Vec<ScalewaySd> = "scaleway_sd_configs", omitempty;
        /// `serverset_sd_configs`, see [`ServersetSd`].
        pub serverset: Vec<ServersetSd> = "serverset_sd_configs", omitempty;
        /// `stackit_sd_configs`, see [`StackitSd`].
        pub stackit: Vec<StackitSd> = "stackit_sd_configs", omitempty;
        /// Target groups written in the file.
        pub static_configs: StaticConfigs = "static_configs", omitempty;
        /// `triton_sd_configs`, see [`TritonSd`].
        pub triton: Vec<TritonSd> = "triton_sd_configs", omitempty;
        /// `uyuni_sd_configs`, see [`UyuniSd`].
        pub uyuni: Vec<UyuniSd> = "uyuni_sd_configs", omitempty;
        /// `vultr_sd_configs`, see [`VultrSd`].
        pub vultr: Vec<VultrSd> = "vultr_sd_configs", omitempty;
    }
}

impl DiscoveryConfigs {
    /// Target groups written in the file.
    pub fn static_groups(&self) -> &[TargetGroup] {
        &self.static_configs
    }

    /// Names of the configured kinds of discovery, as fields of the file.
    pub fn kinds(&self) -> Vec<&'static str> {
        let mut kinds = Vec::new();
        self.each(&mut |name, count, _| {
            if count > 0 {
                kinds.push(name);
            }
        });
        kinds
    }

    /// Errors for empty entries.
    pub(super) fn check(&self) -> Result<(), String> {
        let mut null = None;
        self.each(&mut |name, _, has_null| {
            if has_null {
                null.get_or_insert(name);
            }
        });
        match null {
            Some(name) => Err(format!("empty or null section in {name}")),
            None => Ok(()),
        }
    }

    /// Errors for targets that look like URLs.
    pub(super) fn check_static_targets(&self) -> Result<(), String> {
        let mut targets = self.static_configs.iter().flat_map(|group| &group.targets);
        match targets.find(|target| target.contains('/')) {
            Some(target) => Err(format!("{} is not a valid hostname", go::quote(target))),
            None => Ok(()),
        }
    }

    /// Calls `seen` for each kind with its name, the number of entries and whether one of them is null.
    fn each(&self, seen: &mut dyn FnMut(&'static str, usize, bool)) {
        fn one<T: Default + PartialEq>(
            name: &'static str,
            list: &[T],
            seen: &mut dyn FnMut(&'static str, usize, bool),
        ) {
            seen(name, list.len(), list.contains(&T::default()));
        }
        one("aws_sd_configs", &self.aws, seen);
        one("azure_sd_configs", &self.azure, seen);
        one("consul_sd_configs", &self.consul, seen);
        one("digitalocean_sd_configs", &self.digitalocean, seen);
        one("dns_sd_configs", &self.dns, seen);
        one("docker_sd_configs", &self.docker, seen);
        one("dockerswarm_sd_configs", &self.dockerswarm, seen);
        one("ec2_sd_configs", &self.ec2, seen);
        one("ecs_sd_configs", &self.ecs, seen);
        one("elasticache_sd_configs", &self.elasticache, seen);
        one("eureka_sd_configs", &self.eureka, seen);
        one("file_sd_configs", &self.file, seen);
        one("gce_sd_configs", &self.gce, seen);
        one("hetzner_sd_configs", &self.hetzner, seen);
        one("http_sd_configs", &self.http, seen);
        one("ionos_sd_configs", &self.ionos, seen);
        one("kubernetes_sd_configs", &self.kubernetes, seen);
        one("kuma_sd_configs", &self.kuma, seen);
        one("lightsail_sd_configs", &self.lightsail, seen);
        one("linode_sd_configs", &self.linode, seen);
        one("marathon_sd_configs", &self.marathon, seen);
        one("msk_sd_configs", &self.msk, seen);
        one("nerve_sd_configs", &self.nerve, seen);
        one("nomad_sd_configs", &self.nomad, seen);
        one("oci_sd_configs", &self.oci, seen);
        one("openstack_sd_configs", &self.openstack, seen);
        one("outscale_sd_configs", &self.outscale, seen);
        one("ovhcloud_sd_configs", &self.ovhcloud, seen);
        one("puppetdb_sd_configs", &self.puppetdb, seen);
        one("rds_sd_configs", &self.rds, seen);
        one("scaleway_sd_configs", &self.scaleway, seen);
        one("serverset_sd_configs", &self.serverset, seen);
        one("stackit_sd_configs", &self.stackit, seen);
        seen("static_configs", self.static_configs.len(), false);
        one("triton_sd_configs", &self.triton, seen);
        one("uyuni_sd_configs", &self.uyuni, seen);
        one("vultr_sd_configs", &self.vultr, seen);
    }
}

impl Preset for FileSd {
    fn preset() -> Self {
        Self { refresh_interval: PromDuration::from_secs(300), ..Self::default() }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.files.is_empty() {
            return Err("file service discovery config must contain at least one path name".to_owned());
        }
        match self.files.iter().find(|name| !is_file_pattern(name)) {
            Some(name) => Err(format!("path name {} is not valid for file discovery", go::quote(name))),
            None => Ok(()),
        }
    }
}

/// `^[^*]*(\*[^/]*)?\.(json|yml|yaml|JSON|YML|YAML)$`
fn is_file_pattern(name: &str) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let known = ["json", "yml", "yaml", "JSON", "YML", "YAML"].contains(&extension);
    known && stem.split_once('*').is_none_or(|(_, after)| !after.contains('/'))
}

/// Errors unless `role` is one of `known`.
fn expect_role(role: &str, known: &[&str], missing: &str, kind: &str) -> Result<(), String> {
    if known.contains(&role) {
        Ok(())
    } else if role.is_empty() && !missing.is_empty() {
        Err(missing.to_owned())
    } else {
        Err(format!("unknown {kind} {}", go::quote(role)))
    }
}

/// Errors unless `text` is an absolute URL of HTTP.
fn http_url(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("URL is missing".to_owned());
    }
    let url = ConfigUrl::parse(text)?;
    if !matches!(url.scheme().as_str(), "http" | "https") {
        return Err("URL scheme must be 'http' or 'https'".to_owned());
    }
    if url.host().is_empty() {
        return Err("host is missing in URL".to_owned());
    }
    Ok(())
}
