//! Discovery on Amazon Web Services: one block for each service, and `aws_sd_configs` for any of them.

use crate::config::http_client::HttpClientConfig;
use crate::config::yaml::block::{Preset, block};
use crate::model::duration::PromDuration;
use crate::model::go;
use crate::model::secret::Secret;

const ROLES: [&str; 6] = ["ec2", "ecs", "elasticache", "lightsail", "msk", "rds"];

block! {
    /// A condition on what is listed.
    pub(crate) struct Filter("*aws.Filter") {
        pub(crate) name: String = "name", always;
        pub(crate) values: Vec<String> = "values", always;
    }
}

block! {
    /// `aws_sd_configs`: any AWS service, by role.
    pub struct AwsSd("*aws.SDConfig", "aws.plain") {
        pub(crate) role: String = "role", always;
        pub(crate) region: String = "region", omitempty;
        pub(crate) endpoint: String = "endpoint", omitempty;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
        pub(crate) filters: Vec<Filter> = "filters", omitempty;
        pub(crate) clusters: Vec<String> = "clusters", omitempty;
    }
}

block! {
    /// `ec2_sd_configs`.
    pub struct Ec2Sd("*aws.EC2SDConfig", "aws.plain") {
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) region: String = "region", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) filters: Vec<Filter> = "filters", always;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `ecs_sd_configs`.
    pub struct EcsSd("*aws.ECSSDConfig", "aws.plain") {
        pub(crate) region: String = "region", always;
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) clusters: Vec<String> = "clusters", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) request_concurrency: i64 = "request_concurrency", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `elasticache_sd_configs`.
    pub struct ElasticacheSd("*aws.ElasticacheSDConfig", "aws.plain") {
        pub(crate) region: String = "region", always;
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) clusters: Vec<String> = "clusters", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) request_concurrency: i64 = "request_concurrency", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `lightsail_sd_configs`.
    pub struct LightsailSd("*aws.LightsailSDConfig", "aws.plain") {
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) region: String = "region", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `msk_sd_configs`.
    pub struct MskSd("*aws.MSKSDConfig", "aws.plain") {
        pub(crate) region: String = "region", always;
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) clusters: Vec<String> = "clusters", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) request_concurrency: i64 = "request_concurrency", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

block! {
    /// `rds_sd_configs`.
    pub struct RdsSd("*aws.RDSSDConfig", "aws.plain") {
        pub(crate) region: String = "region", always;
        pub(crate) endpoint: String = "endpoint", always;
        pub(crate) access_key: String = "access_key", omitempty;
        pub(crate) secret_key: Secret<String> = "secret_key", omitempty;
        pub(crate) profile: String = "profile", omitempty;
        pub(crate) role_arn: String = "role_arn", omitempty;
        pub(crate) external_id: String = "external_id", omitempty;
        pub(crate) clusters: Vec<String> = "clusters", omitempty;
        pub(crate) port: i64 = "port", always;
        pub(crate) refresh_interval: PromDuration = "refresh_interval", omitempty;
        pub(crate) filters: Vec<Filter> = "filters", always;
        pub(crate) request_concurrency: i64 = "request_concurrency", omitempty;
        pub(crate) http: HttpClientConfig = "", inline;
    }
}

impl AwsSd {
    /// The settings of the role `ec2`, if that is the role.
    pub fn as_ec2(&self) -> Option<Ec2Sd> {
        let preset = Ec2Sd::preset();
        (self.role == "ec2").then(|| Ec2Sd {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
            profile: self.profile.clone(),
            role_arn: self.role_arn.clone(),
            external_id: self.external_id.clone(),
            refresh_interval: match self.refresh_interval.as_ms_i64() {
                0 => preset.refresh_interval,
                _ => self.refresh_interval,
            },
            port: if self.port == 0 { preset.port } else { self.port },
            filters: self.filters.clone(),
            http: self.http.clone(),
        })
    }
}

impl Preset for AwsSd {
    fn check(&mut self) -> Result<(), String> {
        if ROLES.contains(&self.role.as_str()) {
            Ok(())
        } else {
            Err(format!("unknown AWS SD role {}", go::quote(&self.role)))
        }
    }
}

impl Preset for Ec2Sd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        if self.filters.iter().any(|filter| filter.values.is_empty()) {
            return Err("EC2 SD configuration filter values cannot be empty".to_owned());
        }
        self.http.check()
    }
}

impl Preset for EcsSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            request_concurrency: 20,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}

impl Preset for ElasticacheSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            request_concurrency: 10,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}

impl Preset for LightsailSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}

impl Preset for MskSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            request_concurrency: 10,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}

impl Preset for RdsSd {
    fn preset() -> Self {
        Self {
            port: 80,
            refresh_interval: PromDuration::from_secs(60),
            request_concurrency: 10,
            http: HttpClientConfig::preset(),
            ..Self::default()
        }
    }

    fn check(&mut self) -> Result<(), String> {
        self.http.check()
    }
}
