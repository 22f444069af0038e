//! Web pages and credentials.

use super::{table::guarded, *};
use crate::component::AuthError;

fn from_page(mut request: Request<Full<Bytes>>, origin: &str) -> Request<Full<Bytes>> {
    request.headers_mut().insert("origin", origin.parse().unwrap());
    request
}

fn preflight(origin: &str) -> Request<Full<Bytes>> {
    let mut request = from_page(Wire::Json.good(), origin);
    *request.method_mut() = Method::OPTIONS;
    let headers = request.headers_mut();
    headers.remove("content-type");
    headers.insert("access-control-request-method", "POST".parse().unwrap());
    headers.insert("access-control-request-headers", "content-type,x-tenant".parse().unwrap());
    request
}

const CORS: &str = ", cors: { allowed_origins: ['http://localhost:*'], allowed_headers: [x-tenant], exposed_headers: [x-seen], max_age: 600 }, \
                    response_headers: { x-seen: here }";

#[tokio::test]
async fn a_preflight_passes_before_credentials_are_asked_for() {
    let rig = guarded(AuthError::Unauthenticated("who are you".to_owned()), CORS).start().await;
    let mut client = rig.client(Wire::Json).await;
    let answer = client.open(preflight("http://localhost:3000")).await;
    assert_eq!(answer.status(), 204);
    let headers = answer.headers();
    assert_eq!(headers["access-control-allow-origin"], "http://localhost:3000");
    assert_eq!(headers["access-control-allow-credentials"], "true");
    assert_eq!(headers["access-control-allow-methods"], "POST");
    assert_eq!(headers["access-control-max-age"], "600");
    let allowed = headers["access-control-allow-headers"].to_str().unwrap();
    assert!(allowed.contains("x-tenant") && allowed.contains("content-type"), "{allowed}");
    rig.stop().await;
}

#[tokio::test]
async fn errors_can_be_read_by_pages_too() {
    let rig = guarded(AuthError::Unauthenticated("who are you".to_owned()), CORS).start().await;
    let mut client = rig.client(Wire::Json).await;
    let refused = client.send(from_page(Wire::Json.good(), "http://localhost:3000")).await;
    assert_eq!(refused.http, 401);
    let mut good = from_page(Wire::Json.good(), "http://localhost:3000");
    good.headers_mut().insert("authorization", "yes".parse().unwrap());
    let taken = client.send(good).await;
    taken.assert_ok();
    let mut bad = from_page(Wire::Json.request(Signal::Traces, b"{".to_vec()), "http://localhost:3000");
    bad.headers_mut().insert("authorization", "yes".parse().unwrap());
    let malformed = client.send(bad).await;
    assert_eq!(malformed.http, 400);
    for reply in [refused, taken, malformed] {
        assert_eq!(reply.headers["access-control-allow-origin"], "http://localhost:3000");
        assert_eq!(reply.headers["access-control-expose-headers"], "x-seen");
        assert_eq!(reply.headers["vary"], "Origin");
        assert_eq!(reply.headers["x-seen"], "here");
    }
    rig.stop().await;
}

#[tokio::test]
async fn pages_of_other_origins_may_not_send() {
    for yaml in [CORS, ""] {
        let rig = Setup::yaml(&format!("protocols: {{ http: {{ endpoint: '127.0.0.1:0' {yaml} }} }}")).start().await;
        let mut client = rig.client(Wire::Json).await;
        let reply = client.send(preflight("https://evil.example")).await;
        assert_eq!((reply.http, reply.code), (403, 7));
        assert!(reply.message.contains("cors::allowed_origins"), "{}", reply.message);
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        // Without a preflight nothing holds the request back, and nothing lets the page read the answer.
        let reply = client.send(from_page(Wire::Json.good(), "https://evil.example")).await;
        reply.assert_ok();
        assert!(!reply.headers.contains_key("access-control-allow-origin"));
        rig.stop().await;
    }
}

#[tokio::test]
async fn every_route_asks_for_credentials() {
    let rig = guarded(AuthError::Unauthenticated("who are you".to_owned()), "").start().await;
    for address in [rig.address(Wire::Grpc), rig.address(Wire::Json)] {
        for wire in Wire::ALL {
            for signal in Signal::ALL {
                for (shown, lets_in) in [(None, false), (Some("no"), false), (Some("Yes"), false), (Some("yes"), true)] {
                    let body = if wire == Wire::Grpc { prefixed(0, &[]) } else { Vec::new() };
                    let mut request = wire.request(signal, body);
                    if let Some(shown) = shown {
                        request.headers_mut().insert("authorization", shown.parse().unwrap());
                    }
                    let reply = Client::h2(address).await.send(request).await;
                    assert_eq!(reply.code, if lets_in { 0 } else { 16 }, "{wire:?} {signal} {shown:?}");
                }
            }
        }
        for path in ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"] {
            let mut request = Wire::Grpc.good();
            *request.uri_mut() = format!("http://localhost{path}").parse().unwrap();
            assert_eq!(Client::h2(address).await.send(request).await.code, 16, "{path}");
        }
    }
    rig.stop().await;
}

#[tokio::test]
async fn an_authenticator_that_is_not_there_stops_the_start() {
    let loaded = load(
        &[Input::Text { name: "test".to_owned(), text: "protocols: { grpc: { auth: { authenticator: nobody } } }".to_owned() }],
        &Machine,
    );
    let mut found = loaded.found;
    let config = Config::read(&loaded.node, &mut found);
    let context = BuildContext {
        notes: crate::component::Notes::default(),
        claims: crate::component::Claims::default(),
        sockets: Arc::default(),
        is_reload: false,
        id: ComponentId::parse("otlp").unwrap(),
        telemetry: Telemetry::default(),
        health: Arc::default(),
        extensions: Arc::default(),
        clock: Clock::system(),
    };
    let error = config.build(context).err().unwrap().to_string();
    assert_eq!(error, "protocols::grpc::auth::authenticator: the authenticator `nobody` is not in `service::extensions`");
}
