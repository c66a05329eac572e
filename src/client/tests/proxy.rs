//! Requests through proxies of our own making.

use tokio::io::copy_bidirectional;

use super::*;
use crate::client::proxy::ProxyEnvironment;
use crate::config::http_client::ProxyConfig;
use crate::config::url::ConfigUrl;

fn through(proxy: &str) -> ProxyConfig {
    ProxyConfig { proxy_url: ConfigUrl::parse(proxy).unwrap(), ..ProxyConfig::default() }
}

fn client_of(proxy: ProxyConfig) -> HttpClient {
    with(HttpClientConfig { proxy, ..HttpClientConfig::default() })
}

fn target(text: &str) -> Request {
    Request::get(Url::parse(text).unwrap())
}

async fn get(client: &HttpClient, text: &str) -> String {
    body(client.send(target(text), soon()).await.unwrap()).await.unwrap()
}

async fn failure(client: &HttpClient, text: &str) -> String {
    client.send(target(text), soon()).await.unwrap_err().to_string()
}

#[tokio::test]
async fn plain_requests_reach_a_proxy_with_their_whole_url() {
    let proxy = peer(|_, _| Reply::Text(ok("by proxy"))).await;
    let client = client_of(through(&format!("http://user:p%40ss@{}", proxy.addr)));
    assert_eq!(get(&client, "http://metrics.example:9100/m?a=b").await, "by proxy");
    assert_eq!(get(&client, "http://metrics.example:9100/again").await, "by proxy");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 1, "one connection for one target");
    assert_eq!(get(&client, "http://other.example/").await, "by proxy");
    assert_eq!(proxy.connections.load(Ordering::SeqCst), 2);
    let head = proxy.heads.lock()[0].clone();
    assert!(head.starts_with("get http://metrics.example:9100/m?a=b http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: metrics.example:9100\r\n"), "{head}");
    assert!(head.contains("\r\nproxy-authorization: basic dxnlcjpwqhnz\r\n"), "{head}");
}

#[tokio::test]
async fn what_a_list_or_the_environment_leaves_out_is_asked_directly() {
    let proxy = peer(|_, _| Reply::Text(ok("by proxy"))).await;
    let direct = peer(|_, _| Reply::Text(ok("direct"))).await;
    let own = format!("http://{}/", direct.addr);
    let url = format!("http://{}", proxy.addr);
    assert_eq!(get(&client_of(through(&url)), &own).await, "by proxy");
    let except = client_of(ProxyConfig { no_proxy: "none.example".into(), ..through(&url) });
    assert_eq!(get(&except, &own).await, "direct");
    assert_eq!(get(&except, "http://h.example/").await, "by proxy");

    let environment = ProxyEnvironment::of(|name| (name == "http_proxy").then(|| proxy.addr.to_string()));
    let config = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
    let config = HttpClientConfig { proxy: config, ..HttpClientConfig::default() };
    let by_environment = HttpClient::from_config_in("test".into(), &config, &environment);
    assert_eq!(get(&by_environment, &own).await, "direct");
    assert_eq!(get(&by_environment, "http://h.example/").await, "by proxy");
    assert!(!direct.heads.lock().concat().contains("proxy-authorization"));
}

#[tokio::test]
async fn tunnels_are_asked_for_with_the_configured_headers() {
    let proxy = peer(|_, _| Reply::Text("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n".into())).await;
    let headers = [("X-Tenant", vec!["a"]), ("Proxy-Authorization", vec!["other"])];
    let headers = headers.map(|(name, values)| {
        (name.to_owned(), values.into_iter().map(|value| Secret::new(value.to_owned())).collect())
    });
    let config = ProxyConfig { proxy_connect_header: headers.into(), ..through(&format!("http://u:p@{}", proxy.addr)) };
    let client = client_of(config);
    assert_eq!(
        failure(&client, "https://secure.example/m").await,
        "Get \"https://secure.example/m\": Proxy Authentication Required"
    );
    let head = proxy.heads.lock()[0].clone();
    assert!(head.starts_with("connect secure.example:443 http/1.1\r\nhost: secure.example:443\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: test\r\n") && head.contains("\r\nx-tenant: a\r\n"), "{head}");
    assert!(head.contains("\r\nproxy-authorization: basic dtpw\r\n") && !head.contains("other"), "{head}");
    // A plain request carries none of them.
    let _ = client.send(target("http://plain.example/"), soon()).await.unwrap();
    assert!(!proxy.heads.lock()[1].contains("x-tenant"));
}

#[tokio::test]
async fn proxies_that_do_not_answer_well_are_named() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client_of(through(&format!("http://{closed}")));
    for url in ["http://h.example/", "https://h.example/"] {
        assert_eq!(
            failure(&client, url).await,
            format!("Get \"{url}\": proxyconnect tcp: dial tcp {closed}: connect: connection refused")
        );
    }
    let closing = peer(|_, _| Reply::Close).await;
    let client = client_of(through(&format!("http://{}", closing.addr)));
    assert_eq!(failure(&client, "https://h.example/").await, "Get \"https://h.example/\": unexpected EOF");

    let flood = peer(|_, _| Reply::Text(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(200_000)))).await;
    let client = client_of(through(&format!("http://{}", flood.addr)));
    let error = client.send(target("https://h.example/"), soon()).await.unwrap_err();
    assert_eq!(error.failure, Failure::HeadTooLarge);

    let hanging = peer(|_, _| Reply::Hang).await;
    let client = client_of(through(&format!("http://{}", hanging.addr)));
    let at = Instant::now() + Duration::from_millis(50);
    assert_eq!(client.send(target("https://h.example/"), at).await.unwrap_err().failure, Failure::Deadline);

    let unknown = client_of(through("ftp://me:hunter2@proxy.example"));
    assert_eq!(
        failure(&unknown, "http://h.example/").await,
        "Get \"http://h.example/\": proxy_url: unsupported proxy scheme \"ftp\""
    );
    let proxied = client_of(through(&format!("http://me:hunter2@{closed}")));
    assert!(!failure(&proxied, "http://h.example/").await.contains("hunter2"));
    assert!(!format!("{proxied:?}").contains("hunter2"));
}

/// A SOCKS proxy that takes `user` with `pass`, notes what is asked for, and connects to `target` whatever it is.
async fn socks_proxy(target: SocketAddr, reply: u8) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (noted, target) = (Arc::clone(&noted), target);
            tokio::spawn(async move {
                let mut methods = vec![0; 2];
                stream.read_exact(&mut methods).await?;
                methods = vec![0; usize::from(methods[1])];
                stream.read_exact(&mut methods).await?;
                if methods.contains(&2) {
                    stream.write_all(&[5, 2]).await?;
                    let mut login = [0; 11];
                    stream.read_exact(&mut login).await?;
                    stream.write_all(&[1, u8::from(&login != b"\x01\x04user\x04pass")]).await?;
                } else {
                    stream.write_all(&[5, 0]).await?;
                }
                let mut request = vec![0; 4];
                stream.read_exact(&mut request).await?;
                let len = match request[3] {
                    1 => 4,
                    4 => 16,
                    _ => usize::from(stream.read_u8().await?),
                };
                let mut address = vec![0; len + 2];
                stream.read_exact(&mut address).await?;
                request.extend(address);
                noted.lock().push(request);
                stream.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
                if reply == 0 {
                    copy_bidirectional(&mut stream, &mut TcpStream::connect(target).await?).await?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    (addr, asked)
}

#[tokio::test]
async fn socks_proxies_look_names_up_themselves() {
    let there = peer(|_, _| Reply::Text(ok("there"))).await;
    let (proxy, asked) = socks_proxy(there.addr, 0).await;
    for (url, user) in [("http://h.example:9100/m", ""), ("http://10.0.0.1/m", "user:pass@"), ("http://[::2]/m", "")] {
        let client = client_of(through(&format!("socks5://{user}{proxy}")));
        assert_eq!(get(&client, url).await, "there");
    }
    let asked = asked.lock().clone();
    assert_eq!(asked[0], [&[5, 1, 0, 3][..], b"h.example", &9100_u16.to_be_bytes()].concat());
    assert_eq!(asked[1], [5, 1, 0, 1, 10, 0, 0, 1, 0, 80]);
    assert_eq!(asked[2].len(), 4 + 16 + 2);
    // To the target it is as if there were no proxy.
    let head = there.heads.lock()[0].clone();
    assert!(head.starts_with("get /m http/1.1\r\n") && !head.contains("proxy"), "{head}");

    let (refusing, _) = socks_proxy(there.addr, 5).await;
    let client = client_of(through(&format!("socks5h://{refusing}")));
    assert_eq!(
        failure(&client, "http://h.example/").await,
        format!(
            "Get \"http://h.example/\": socks connect tcp {refusing}->h.example:80: unknown error connection refused"
        )
    );
    let client = client_of(through(&format!("socks5://user:hunter2@{proxy}")));
    let error = failure(&client, "http://h.example/").await;
    assert!(error.ends_with("h.example:80: username/password authentication failed"), "{error}");
}
