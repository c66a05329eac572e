//! EC2, against doubles of its API, of the token service and of the metadata service.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use watchfire::discovery::surroundings::Surroundings;

use crate::double::{Asked, Double, Reply, addresses, assert_labels, json, refusal, start_in};

const ZONES: &str = "<DescribeAvailabilityZonesResponse><availabilityZoneInfo><item><zoneName>eu-west-1a</zoneName>\
                     <zoneId>euw1-az3</zoneId></item></availabilityZoneInfo></DescribeAvailabilityZonesResponse>";

const FIRST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>r</requestId>
<reservationSet><item><ownerId>1234</ownerId><instancesSet>
 <item><instanceId>i-1</instanceId><imageId>ami-1</imageId><instanceState><code>16</code><name>running</name></instanceState>
  <privateDnsName>ip-10-0-0-1.internal</privateDnsName><dnsName>ec2-1.example</dnsName><instanceType>t3.small</instanceType>
  <placement><availabilityZone>eu-west-1a</availabilityZone></placement><platform>windows</platform>
  <privateIpAddress>10.0.0.1</privateIpAddress><ipAddress>1.2.3.4</ipAddress><architecture>x86_64</architecture>
  <instanceLifecycle>spot</instanceLifecycle><vpcId>vpc-1</vpcId><subnetId>subnet-a</subnetId>
  <tagSet><item><key>Name.of</key><value>a &amp; b</value></item><item><key>empty</key><value/></item></tagSet>
  <networkInterfaceSet>
   <item><subnetId>subnet-a</subnetId><attachment><deviceIndex>2</deviceIndex></attachment><ipv6AddressesSet>
     <item><ipv6Address>2001:db8::1</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item>
     <item><ipv6Address>2001:db8::2</ipv6Address><isPrimaryIpv6>true</isPrimaryIpv6></item></ipv6AddressesSet></item>
   <item><subnetId>subnet-b</subnetId></item><item><subnetId>subnet-a</subnetId></item></networkInterfaceSet></item>
 <item><instanceId>i-0</instanceId></item></instancesSet></item></reservationSet>
<nextToken>page two</nextToken></DescribeInstancesResponse>"#;

const SECOND: &str = "<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>i-2</instanceId>\
    <imageId>ami-2</imageId><vpcId>v</vpcId><subnetId>s</subnetId><instanceState><name>running</name></instanceState>\
    <placement><availabilityZone>eu-west-1z</availabilityZone></placement><networkInterfaceSet><item><subnetId>s</subnetId>\
    <ipv6AddressesSet><item><ipv6Address>fd00::7</ipv6Address><isPrimaryIpv6>false</isPrimaryIpv6></item></ipv6AddressesSet></item></networkInterfaceSet>\
    </item></instancesSet></item></reservationSet></DescribeInstancesResponse>";

fn xml(body: &str) -> Reply {
    Reply::Whole {
        status: 200,
        headers: vec![("Content-Type".to_owned(), "text/xml".to_owned())],
        body: body.to_owned(),
    }
}

/// The parameters of a form.
fn form(asked: &Asked) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(asked.body.as_bytes()).into_owned().collect()
}

/// Who has signed for what: `key/region/service`.
fn signer(asked: &Asked) -> String {
    let authorization = asked.header("authorization").unwrap_or_else(|| panic!("{asked:?}"));
    let credential = authorization.strip_prefix("AWS4-HMAC-SHA256 Credential=").unwrap().split(',').next().unwrap();
    let parts: Vec<&str> = credential.split('/').collect();
    assert_eq!((parts.len(), parts[4]), (5, "aws4_request"));
    format!("{}/{}/{}", parts[0], parts[2], parts[3])
}

fn api(asked: &Asked) -> Reply {
    let form = form(asked);
    assert_eq!(form["Version"], "2016-11-15");
    match (form["Action"].as_str(), form.get("NextToken").map(String::as_str)) {
        ("DescribeAvailabilityZones", _) => xml(ZONES),
        ("DescribeInstances", None) => xml(FIRST),
        ("DescribeInstances", Some("page two")) => xml(SECOND),
        other => panic!("{other:?}"),
    }
}

/// Surroundings with these variables and no others.
fn variables(pairs: &[(&str, &str)]) -> Surroundings {
    let known: BTreeMap<String, String> = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    Surroundings { variable: Arc::new(move |name| known.get(name).cloned()), ..Surroundings::default() }
}

fn config(double: &Double, more: &str) -> String {
    format!("ec2_sd_configs: [{{endpoint: 'http://{}', refresh_interval: 20ms, port: 9100{more}}}]", double.addr)
}

#[tokio::test]
async fn instances_of_all_pages_carry_all_labels() {
    let double = Double::start(api);
    let more = ", region: eu-west-1, access_key: AK, secret_key: SK, \
                filters: [{name: 'tag:env', values: [prod, dev]}, {name: vpc-id, values: [v]}]";
    let groups = start_in(&config(&double, more), &variables(&[]), &[]).groups().await;
    assert_eq!((groups.len(), groups[0].source.as_str()), (1, "eu-west-1"));
    assert_eq!(addresses(&groups), ["10.0.0.1:9100", "[fd00::7]:9100"], "an instance without an address is none");
    let expected = [
        ("__address__", "10.0.0.1:9100"),
        ("__meta_ec2_ami", "ami-1"),
        ("__meta_ec2_architecture", "x86_64"),
        ("__meta_ec2_availability_zone", "eu-west-1a"),
        ("__meta_ec2_availability_zone_id", "euw1-az3"),
        ("__meta_ec2_default_ipv6_address", "2001:db8::2"),
        ("__meta_ec2_instance_id", "i-1"),
        ("__meta_ec2_instance_lifecycle", "spot"),
        ("__meta_ec2_instance_state", "running"),
        ("__meta_ec2_instance_type", "t3.small"),
        ("__meta_ec2_ipv6_addresses", ",2001:db8::1,2001:db8::2,"),
        ("__meta_ec2_owner_id", "1234"),
        ("__meta_ec2_platform", "windows"),
        ("__meta_ec2_primary_ipv6_addresses", ",,,2001:db8::2,"),
        ("__meta_ec2_primary_subnet_id", "subnet-a"),
        ("__meta_ec2_private_dns_name", "ip-10-0-0-1.internal"),
        ("__meta_ec2_private_ip", "10.0.0.1"),
        ("__meta_ec2_public_dns_name", "ec2-1.example"),
        ("__meta_ec2_public_ip", "1.2.3.4"),
        ("__meta_ec2_region", "eu-west-1"),
        ("__meta_ec2_subnet_id", ",subnet-a,subnet-b,"),
        ("__meta_ec2_tag_Name_of", "a & b"),
        ("__meta_ec2_vpc_id", "vpc-1"),
    ];
    assert_labels(&groups[0].targets[0], &expected);
    let asked = double.asked();
    assert!(asked.iter().all(|one| signer(one) == "AK/eu-west-1/ec2" && one.header("x-amz-date").is_some()));
    let listing = asked.iter().map(form).find(|form| form["Action"] == "DescribeInstances").unwrap();
    for (name, value) in [
        ("Filter.1.Name", "tag:env"),
        ("Filter.1.Value.1", "prod"),
        ("Filter.1.Value.2", "dev"),
        ("Filter.2.Name", "vpc-id"),
        ("Filter.2.Value.1", "v"),
    ] {
        assert_eq!(listing[name], value);
    }
    let of_role = format!("aws_sd_configs: [{{role: ec2, endpoint: 'http://{}'{more}}}]", double.addr);
    let groups = start_in(&of_role, &variables(&[]), &[]).groups().await;
    assert_eq!(addresses(&groups), ["10.0.0.1:80", "[fd00::7]:80"]);
}

/// A token service that gives keys for a role.
fn tokens() -> Double {
    Double::start(|asked| {
        let form = form(asked);
        let key = match form["Action"].as_str() {
            "AssumeRole" => {
                assert_eq!((form["RoleArn"].as_str(), form["ExternalId"].as_str()), ("arn:role", "ext"));
                format!("role-by-{}", signer(asked).split('/').next().unwrap())
            }
            "AssumeRoleWithWebIdentity" => {
                assert_eq!((form["WebIdentityToken"].as_str(), asked.header("authorization")), ("web-token", None));
                "role-by-token".to_owned()
            }
            other => panic!("{other}"),
        };
        xml(&format!(
            "<R><Result><Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>\
             <SessionToken>session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></Result></R>"
        ))
    })
}

/// Who signs for EC2, given a configuration and surroundings; the endpoint of the token service is known.
async fn who_signs(more: &str, pairs: &[(&str, &str)]) -> (String, Option<String>) {
    let (double, tokens) = (Double::start(api), tokens());
    let endpoint = format!("http://{}", tokens.addr);
    let pairs = [pairs, &[("AWS_ENDPOINT_URL_STS", endpoint.as_str())]].concat();
    start_in(&config(&double, more), &variables(&pairs), &[]).groups().await;
    let asked = double.asked();
    (signer(&asked[0]), asked[0].header("x-amz-security-token").map(str::to_owned))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn roles_profiles_and_the_environment_give_keys() {
    let folder = tempfile::tempdir().unwrap();
    let session = Some("session".to_owned());
    let of_role = ", region: r1, access_key: AK, secret_key: SK, role_arn: 'arn:role', external_id: ext";
    assert_eq!(who_signs(of_role, &[]).await, ("role-by-AK/r1/ec2".to_owned(), session.clone()));

    let environment =
        [("AWS_ACCESS_KEY_ID", "EK"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_SESSION_TOKEN", "t"), ("AWS_REGION", "r2")];
    assert_eq!(who_signs("", &environment).await, ("EK/r2/ec2".to_owned(), Some("t".to_owned())));

    let config = write(
        folder.path(),
        "config",
        "[default]\nregion = r3\n[profile role]\nrole_arn = arn:role\nexternal_id = ext\nsource_profile = base\n",
    );
    let keys = "[base]\naws_access_key_id = BK\naws_secret_access_key = s\n[default]\naws_access_key_id = DK\n\
                aws_secret_access_key = s\n";
    let keys = write(folder.path(), "credentials", keys);
    let files = [("AWS_CONFIG_FILE", config.as_str()), ("AWS_SHARED_CREDENTIALS_FILE", keys.as_str())];
    assert_eq!(who_signs("", &files).await.0, "DK/r3/ec2");
    assert_eq!(who_signs(", profile: base", &files).await.0, "BK/r3/ec2");
    assert_eq!(who_signs(", profile: role", &files).await, ("role-by-BK/r3/ec2".to_owned(), session.clone()));
    // A profile that is asked for goes before the environment.
    let both = [&files[..], &environment].concat();
    assert_eq!(who_signs(", profile: base", &both).await.0, "BK/r2/ec2");

    let token = write(folder.path(), "token", "web-token\n");
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:role"), ("AWS_REGION", "r4")];
    assert_eq!(who_signs("", &web).await, ("role-by-token/r4/ec2".to_owned(), session));

    let (failure, _) =
        start_in("ec2_sd_configs: [{region: r, profile: gone}]", &variables(&files), &[]).failure().await;
    assert_eq!(failure, "could not describe instances: failed to get shared config profile, gone");
}

#[tokio::test]
async fn the_machine_gives_region_and_keys() {
    let metadata = Double::start(|asked| {
        if asked.path == "/latest/api/token" {
            assert_eq!(asked.method, "PUT");
            return json("session-token");
        }
        assert_eq!(asked.header("x-aws-ec2-metadata-token"), Some("session-token"));
        match asked.path.as_str() {
            "/latest/dynamic/instance-identity/document" => json(r#"{"region":"eu-west-1"}"#),
            "/latest/meta-data/iam/security-credentials/" => json("my-role\n"),
            "/latest/meta-data/iam/security-credentials/my-role" => json(
                r#"{"Code":"Success","AccessKeyId":"MK","SecretAccessKey":"s","Token":"mt","Expiration":"2999-01-01T00:00:00Z"}"#,
            ),
            other => panic!("{other}"),
        }
    });
    let endpoint = format!("http://{}", metadata.addr);
    let signed = who_signs("", &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &endpoint)]).await;
    assert_eq!(signed, ("MK/eu-west-1/ec2".to_owned(), Some("mt".to_owned())));

    let container = Double::start(|asked| {
        assert_eq!(asked.header("authorization"), Some("ct"));
        json(r#"{"AccessKeyId":"CK","SecretAccessKey":"s"}"#)
    });
    let uri = format!("http://{}/keys", container.addr);
    let pairs = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", uri.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "ct")];
    assert_eq!(who_signs(", region: r", &pairs).await, ("CK/r/ec2".to_owned(), None));
    let (failure, _) =
        start_in("ec2_sd_configs: [{}]", &variables(&[("AWS_EC2_METADATA_DISABLED", "true")]), &[]).failure().await;
    let expected = "could not determine AWS region: failed to get region from IMDS: access disabled to EC2 IMDS";
    assert!(failure.starts_with(expected), "{failure}");
}

#[tokio::test]
async fn a_refusal_is_told_and_keys_are_looked_up_again() {
    let turn = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&turn);
    let double = Double::start(move |asked| {
        let instances = form(asked)["Action"] == "DescribeInstances";
        if instances && turns.fetch_add(1, Ordering::Relaxed) == 0 {
            let body = "<Response><Errors><Error><Code>AuthFailure</Code><Message>not able to validate</Message></Error>\
                        </Errors><RequestID>x</RequestID></Response>";
            return refusal(401, body);
        }
        api(asked)
    });
    let mut running =
        start_in(&config(&double, ", region: eu-west-1, access_key: A, secret_key: S"), &variables(&[]), &[]);
    let (failure, _) = running.failure().await;
    let expected = "could not describe instances: server returned HTTP status 401 Status: api error AuthFailure: not able to \
                    validate";
    assert_eq!(failure, expected);
    assert_eq!(running.groups().await[0].targets.len(), 2);
    assert_eq!(running.metric("prometheus_sd_refresh_failures_total"), 1.0);
}
