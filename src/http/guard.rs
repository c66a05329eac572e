//! Who may ask: sign-in, rate limit and headers of `--web.config.file`, in front of every path.
//!
//! Comparing a password with its hash is slow on purpose. One comparison runs at a time, off the worker's thread; results
//! are remembered by user, hash and password together. Right and wrong passwords have memories of their own, so that
//! guesses push nobody out, and only so many guesses may wait.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::web;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::web::{RateLimit, WebConfig};
use crate::http::response::Response;
use crate::http::web_file::WebFile;
use crate::model::clock::SharedClock;

/// Results that are remembered, of each kind.
const REMEMBERED_MAX: usize = 100;
/// Comparisons that may wait.
const WAITING_MAX: usize = 64;

/// See the module's text.
pub(super) struct Guard {
    file: Arc<WebFile>,
    clock: SharedClock,
    bucket: Mutex<Bucket>,
    right: Mutex<HashSet<[u8; 32]>>,
    wrong: Mutex<HashSet<[u8; 32]>>,
    turn: Semaphore,
    waiting: AtomicUsize,
}

/// What is left of the rate.
struct Bucket {
    tokens: f64,
    at: Duration,
}

/// A verdict: go on, or this answer. The configuration's headers belong on the answer in either case.
pub(super) struct Checked {
    pub(super) config: Option<Arc<WebConfig>>,
    pub(super) refusal: Option<Response>,
}

impl Guard {
    /// A guard that goes by `file`. Errors name hashes that are none.
    pub(super) fn new(file: Arc<WebFile>, clock: SharedClock) -> Result<Self, String> {
        let config = file.current()?;
        for (user, hash) in &config.users {
            if hash.expose().parse::<bcrypt::HashParts>().is_err() {
                return Err(format!("basic_auth_users: the password of {user} is not a bcrypt hash"));
            }
        }
        let bucket = Mutex::new(Bucket { tokens: f64::INFINITY, at: clock.monotonic() });
        let (right, wrong) = (Mutex::default(), Mutex::default());
        Ok(Self { file, clock, bucket, right, wrong, turn: Semaphore::new(1), waiting: AtomicUsize::new(0) })
    }

    /// Checks a request.
    pub(super) async fn check(&self, request: &HttpRequest) -> Checked {
        let Ok(config) = self.file.current() else {
            let refusal = Response::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error");
            return Checked { config: None, refusal: Some(refusal) };
        };
        if !self.has_room(&config.rate_limit) {
            let refusal = Response::error(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests");
            return Checked { config: None, refusal: Some(refusal) };
        }
        let refusal = if config.users.is_empty() { None } else { self.sign_in(&config, request).await };
        Checked { config: Some(config), refusal }
    }

    /// Takes a token, if the rate has a limit.
    fn has_room(&self, limit: &RateLimit) -> bool {
        if limit.interval.nanos <= 0 {
            return true;
        }
        let mut bucket = self.bucket.lock();
        let now = self.clock.monotonic();
        let more = now.saturating_sub(bucket.at).as_nanos() as f64 / limit.interval.nanos as f64;
        bucket.at = now;
        bucket.tokens = (bucket.tokens + more).min(limit.burst as f64);
        let has = 1.0 <= bucket.tokens;
        if has {
            bucket.tokens -= 1.0;
        }
        has
    }

    /// The refusal, if user and password are not right.
    async fn sign_in(&self, config: &Arc<WebConfig>, request: &HttpRequest) -> Option<Response> {
        let unauthorized =
            || Some(Response::error(StatusCode::UNAUTHORIZED, "Unauthorized").with("WWW-Authenticate", "Basic"));
        let Some((user, password)) = credentials(request) else { return unauthorized() };
        // An unknown user costs as much as a known one: the password is compared with somebody's hash.
        let known = config.users.get(&user);
        let Some(hash) = known.or_else(|| config.users.values().next()) else { return unauthorized() };
        // That it is not the user's own is part of what is remembered: one day it may be.
        let key = key(&user, if known.is_some() { hash.expose() } else { "" }, &password);
        if self.right.lock().contains(&key) {
            return None;
        }
        if self.wrong.lock().contains(&key) {
            return unauthorized();
        }
        let Some(_waiting) = Waiting::enter(&self.waiting) else {
            let text = "too many sign-ins are waiting";
            return Some(Response::error(StatusCode::SERVICE_UNAVAILABLE, text));
        };
        // Never closed, so it always comes.
        let _turn = self.turn.acquire().await;
        let hash = hash.clone();
        let compared = web::block(move || bcrypt::verify(password, hash.expose()).unwrap_or(false)).await;
        let is_right = compared.unwrap_or(false) && known.is_some();
        let remembered = if is_right { &self.right } else { &self.wrong };
        remember(&mut remembered.lock(), key);
        if is_right { None } else { unauthorized() }
    }
}

/// One that waits for a comparison.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Option<Self> {
        let guard = if waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX { Some(Self(waiting)) } else { None };
        if guard.is_none() {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
        guard
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// User and password of the header.
fn credentials(request: &HttpRequest) -> Option<(String, Vec<u8>)> {
    let header = request.headers().get(AUTHORIZATION)?.as_bytes();
    let (scheme, encoded) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let pair = STANDARD.decode(encoded).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (user, password) = pair.split_at(colon);
    Some((String::from_utf8(user.to_vec()).ok()?, password.get(1..)?.to_vec()))
}

/// Stands for user, hash and password together; lengths keep them apart.
fn key(user: &str, hash: &str, password: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [user.as_bytes(), hash.as_bytes(), password] {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    digest.finalize().into()
}

/// Remembers a result; of too many, any one makes room.
fn remember(remembered: &mut HashSet<[u8; 32]>, key: [u8; 32]) {
    if REMEMBERED_MAX <= remembered.len()
        && let Some(any) = remembered.iter().next().copied()
    {
        remembered.remove(&any);
    }
    remembered.insert(key);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_keep_user_hash_and_password_apart() {
        assert_ne!(key("a", "b", b"c"), key("ab", "", b"c"));
        assert_ne!(key("a", "b:c", b"d"), key("a:b", "c", b"d"));
        assert_eq!(key("a", "b", b"c"), key("a", "b", b"c"));
    }

    #[test]
    fn only_so_many_results_are_remembered() {
        let mut remembered = HashSet::new();
        for n in 0..=200u8 {
            remember(&mut remembered, [n; 32]);
        }
        assert_eq!(remembered.len(), REMEMBERED_MAX);
        assert!(remembered.contains(&[200; 32]));
    }
}
