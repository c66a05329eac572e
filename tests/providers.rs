//! Providers of target groups against doubles of what they ask: from the text of a configuration to groups with all their
//! labels, and through failures and back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

#[path = "providers/consul.rs"]
mod consul;
#[path = "providers/dns.rs"]
mod dns;
#[path = "providers/docker.rs"]
mod docker;
#[path = "providers/double.rs"]
mod double;
#[path = "providers/ec2.rs"]
mod ec2;
#[path = "providers/http.rs"]
mod http;
#[path = "providers/kubernetes.rs"]
mod kubernetes;
