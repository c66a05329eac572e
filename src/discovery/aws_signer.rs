//! Signs what is sent to others with our credentials at Amazon (`sigv4`): the keys are found as for discovery.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use crate::client::sigv4::{SigningScope, sign};
use crate::client::{Failure, Request, Signer};
use crate::config::remote_auth::SigV4Config;
use crate::discovery::api::ApiClient;
use crate::discovery::aws_credentials::{Aws, AwsSettings};
use crate::discovery::surroundings::Surroundings;
use crate::model::clock::SharedClock;

/// Signed for unless the configuration names another service: Amazon's managed Prometheus.
const SERVICE: &str = "aps";

/// Signs requests by a `sigv4` block.
pub struct AwsSigner {
    aws: Mutex<Aws>,
    service: String,
    clock: SharedClock,
}

impl AwsSigner {
    /// A signer of a configuration. What it lacks is looked for when the first request is signed.
    pub fn new(config: &SigV4Config, surroundings: &Surroundings, clock: &SharedClock) -> Arc<Self> {
        let settings = AwsSettings {
            region: config.region.clone(),
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
            profile: config.profile.clone(),
            role_arn: config.role_arn.clone(),
            external_id: config.external_id.clone(),
            fips: config.use_fips_sts_endpoint,
        };
        let aws = Mutex::new(Aws::new(ApiClient::plain(), settings, surroundings, clock));
        let service = if config.service_name.is_empty() { SERVICE } else { config.service_name.as_str() };
        Arc::new(Self { aws, service: service.to_owned(), clock: SharedClock::clone(clock) })
    }
}

impl Signer for AwsSigner {
    fn sign<'a>(&'a self, request: &'a mut Request, deadline: Instant) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            // One looks for the keys; the others have them then.
            let found = timeout_at(deadline, async { self.aws.lock().await.credentials(deadline).await }).await;
            let found = found.map_err(|_| Failure::Deadline)?;
            let (region, keys) = found.map_err(|error| Failure::Other(format!("failed to sign request: {error}")))?;
            sign(request, &keys, SigningScope { region: &region, service: &self.service }, self.clock.now())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;
    use crate::client::header::{AUTHORIZATION, HeaderValue};
    use crate::model::clock::ManualClock;
    use crate::model::secret::Secret;
    use crate::model::time::TimestampMs;

    #[tokio::test]
    async fn requests_are_signed_for_the_service() {
        let config = SigV4Config {
            region: "eu-west-1".to_owned(),
            access_key: "AK".to_owned(),
            secret_key: Secret::new("secret".to_owned()),
            ..SigV4Config::default()
        };
        let clock: SharedClock = ManualClock::at(TimestampMs(1_440_938_160_500));
        let signer = AwsSigner::new(&config, &Surroundings::default(), &clock);
        let url = Url::parse("https://host/api/v1/remote_write").unwrap();
        let mut request = Request::post(url, HeaderValue::from_static("application/x-protobuf"), "body".into());
        signer.sign(&mut request, Instant::now() + std::time::Duration::from_secs(5)).await.unwrap();
        let value = |name: &str| request.headers.iter().find(|(n, _)| n.as_str() == name).unwrap().1.clone();
        let authorization = value(AUTHORIZATION.as_str());
        assert!(authorization.is_sensitive());
        let text = authorization.to_str().unwrap().to_owned();
        let scope = "AWS4-HMAC-SHA256 Credential=AK/20150830/eu-west-1/aps/aws4_request, ";
        assert!(text.starts_with(scope) && text.contains("SignedHeaders=content-type;host;x-amz-date"), "{text}");
        assert!(!format!("{request:?}").contains("secret"));
    }
}
