//! Ways to sign in that only remote storage and Alertmanagers know: AWS signatures, Azure, Google.

use super::yaml::Yaml as _;
use super::yaml::block::{Preset, block};
use crate::model::secret::Secret;

block! {
    /// `sigv4`: AWS signature, version 4.
    pub struct SigV4Config("sigv4.SigV4Config", "sigv4.plain") {
        /// Region.
        pub region: String = "region", omitempty;
        /// Access key.
        pub access_key: String = "access_key", omitempty;
        /// Secret key; goes with the access key.
        pub secret_key: Secret<String> = "secret_key", omitempty;
        /// Named profile.
        pub profile: String = "profile", omitempty;
        /// Role to assume.
        pub role_arn: String = "role_arn", omitempty;
        /// External id for the role.
        pub external_id: String = "external_id", omitempty;
        /// Uses the FIPS endpoint of the token service.
        pub use_fips_sts_endpoint: bool = "use_fips_sts_endpoint", omitempty;
        /// Service to sign for.
        pub service_name: String = "service_name", omitempty;
    }
}

impl Preset for SigV4Config {
    fn check(&mut self) -> Result<(), String> {
        if self.access_key.is_empty() != self.secret_key.is_zero() {
            return Err(
                "must provide a AWS SigV4 Access key and Secret Key if credentials are specified in the SigV4 \
                        config"
                    .to_owned(),
            );
        }
        if !self.external_id.is_empty() && self.role_arn.is_empty() {
            return Err("external_id can only be used with role_arn".to_owned());
        }
        Ok(())
    }
}

block! {
    /// `google_iam`.
    pub struct GoogleIamConfig("googleiam.Config") {
        /// File with credentials; the usual places unless set.
        pub credentials_file: String = "credentials_file", omitempty;
    }
}

block! {
    /// Azure managed identity.
    pub struct ManagedIdentity("azuread.ManagedIdentityConfig") {
        /// Identity.
        pub client_id: String = "client_id", omitempty;
    }
}

block! {
    /// Azure workload identity.
    pub struct WorkloadIdentity("azuread.WorkloadIdentityConfig") {
        /// Application.
        pub client_id: String = "client_id", omitempty;
        /// Tenant.
        pub tenant_id: String = "tenant_id", omitempty;
        /// File with the projected token.
        pub token_file_path: String = "token_file_path", omitempty;
    }
}

block! {
    /// Azure client credentials.
    pub struct AzureOAuth("azuread.OAuthConfig") {
        /// Application.
        pub client_id: String = "client_id", omitempty;
        /// Its secret.
        pub client_secret: Secret<String> = "client_secret", omitempty;
        /// Tenant.
        pub tenant_id: String = "tenant_id", omitempty;
    }
}

block! {
    /// Azure's own chain of credentials.
    pub struct AzureSdk("azuread.SDKConfig") {
        /// Tenant.
        pub tenant_id: String = "tenant_id", omitempty;
    }
}

block! {
    /// Azure client certificate.
    pub struct AzureCertificate("azuread.CertificateConfig") {
        /// Application.
        pub client_id: String = "client_id", omitempty;
        /// Tenant.
        pub tenant_id: String = "tenant_id", omitempty;
        /// File with the certificate.
        pub certificate_path: String = "certificate_path", omitempty;
        /// File with the key, if it is not in the same file.
        pub certificate_key_path: String = "certificate_key_path", omitempty;
        /// Password of the certificate file.
        pub certificate_password: Secret<String> = "certificate_password", omitempty;
        /// Sends the chain along.
        pub send_certificate_chain: bool = "send_certificate_chain", omitempty;
    }
}

block! {
    /// `azuread`: exactly one of the ways below.
    pub struct AzureAdConfig("azuread.AzureADConfig", "azuread.plain") {
        /// Managed identity.
        pub managed_identity: Option<ManagedIdentity> = "managed_identity", omitempty;
        /// Workload identity.
        pub workload_identity: Option<WorkloadIdentity> = "workload_identity", omitempty;
        /// Client credentials.
        pub oauth: Option<AzureOAuth> = "oauth", omitempty;
        /// The SDK's chain.
        pub sdk: Option<AzureSdk> = "sdk", omitempty;
        /// Client certificate.
        pub certificate: Option<AzureCertificate> = "certificate", omitempty;
        /// `AzurePublic` unless set.
        pub cloud: String = "cloud", omitempty;
        /// Scope of the token.
        pub scope: String = "scope", omitempty;
    }
}

impl Preset for AzureAdConfig {
    fn check(&mut self) -> Result<(), String> {
        if self.cloud.is_empty() {
            "AzurePublic".clone_into(&mut self.cloud);
        }
        if !["AzureChina", "AzureGovernment", "AzurePublic"].contains(&self.cloud.as_str()) {
            return Err("must provide a cloud in the Azure AD config".to_owned());
        }
        let ways = [
            self.managed_identity.is_some(),
            self.workload_identity.is_some(),
            self.oauth.is_some(),
            self.sdk.is_some(),
            self.certificate.is_some(),
        ];
        match ways.iter().filter(|way| **way).count() {
            0 => {
                return Err("must provide an Azure Managed Identity, Azure Workload Identity, Azure OAuth, Azure \
                            Certificate or Azure SDK in the Azure AD config"
                    .to_owned());
            }
            1 => {}
            _ => return Err("cannot provide multiple authentication methods in the Azure AD config".to_owned()),
        }
        self.check_way()?;
        let allowed = |c: char| c.is_ascii_alphanumeric() || c.is_ascii_whitespace() || "_:/.-".contains(c);
        if !self.scope.chars().all(allowed) {
            return Err("the provided scope contains invalid characters".to_owned());
        }
        Ok(())
    }
}

impl AzureAdConfig {
    fn check_way(&mut self) -> Result<(), String> {
        let required = |missing: bool, what: &str| {
            if missing { Err(format!("must provide an Azure {what} in the Azure AD config")) } else { Ok(()) }
        };
        let uuid = |id: &str, way: &str| {
            if is_uuid(id) { Ok(()) } else { Err(format!("the provided Azure {way} client_id is invalid")) }
        };
        if let Some(way) = &self.managed_identity
            && !way.client_id.is_empty()
        {
            uuid(&way.client_id, "Managed Identity")?;
        }
        if let Some(way) = &mut self.workload_identity {
            required(way.client_id.is_empty(), "Workload Identity client_id")?;
            required(way.tenant_id.is_empty(), "Workload Identity tenant_id")?;
            uuid(&way.client_id, "Workload Identity")?;
            if !is_uuid(&way.tenant_id) {
                return Err("the provided Azure Workload Identity tenant_id is invalid".to_owned());
            }
            if way.token_file_path.is_empty() {
                way.token_file_path = std::env::var("AZURE_FEDERATED_TOKEN_FILE")
                    .ok()
                    .filter(|path| !path.is_empty())
                    .unwrap_or_else(|| "/var/run/secrets/azure/tokens/azure-identity-token".to_owned());
            }
        }
        if let Some(way) = &self.oauth {
            required(way.client_id.is_empty(), "OAuth client_id")?;
            required(way.client_secret.is_zero(), "OAuth client_secret")?;
            required(way.tenant_id.is_empty(), "OAuth tenant_id")?;
            uuid(&way.client_id, "OAuth")?;
        }
        if let Some(way) = &self.certificate {
            required(way.client_id.is_empty(), "Certificate client_id")?;
            required(way.tenant_id.is_empty(), "Certificate tenant_id")?;
            required(way.certificate_path.is_empty(), "Certificate certificate_path")?;
            uuid(&way.client_id, "Certificate")?;
        }
        Ok(())
    }
}

/// The forms that Go's `uuid.Parse` takes: plain, with `urn:uuid:`, in braces, and without hyphens.
fn is_uuid(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let text = lower.strip_prefix("urn:uuid:").unwrap_or(&lower);
    let text = text.strip_prefix('{').and_then(|t| t.strip_suffix('}')).unwrap_or(text);
    let hex = |part: &str, len: usize| part.len() == len && part.bytes().all(|b| b.is_ascii_hexdigit());
    if hex(text, 32) {
        return true;
    }
    let parts: Vec<&str> = text.split('-').collect();
    parts.len() == 5 && parts.iter().zip([8, 4, 4, 4, 12]).all(|(part, len)| hex(part, len))
}
