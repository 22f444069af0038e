//! The page of our own metrics: `localhost:8888/metrics`.
//!
//! In:   a scrape.
//! Out:  what the registry and the callbacks say now.
//! Full: nothing queues; each scrape is computed for itself.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::{
    internal_telemetry::{Identity, PullReader, Style, Telemetry, text},
    runtime::{BuildError, Shutdown, Sockets, Task},
    transport::server::{Body, Bound, HttpServerSettings, HttpService},
};

/// Binds the page of one reader; the task serves it until `shutdown`.
pub async fn serve_page(
    reader: &PullReader,
    key: &str,
    telemetry: Telemetry,
    identity: Identity,
    shutdown: Shutdown,
) -> Result<(Vec<SocketAddr>, Task), BuildError> {
    let settings = HttpServerSettings { endpoint: reader.endpoint.clone(), ..HttpServerSettings::default() };
    let bound = Bound::bind(&settings, key, &Sockets::default()).await?;
    let addresses = bound.addresses();
    let page = Arc::new(OwnPage { telemetry, identity, style: reader.style.clone() });
    Ok((addresses, bound.serve(page, shutdown)))
}

/// What there is at this port.
const INDEX: &str = "/metrics  what weir counts of itself: the door, the consumers' books, the journal, the process\n";

struct OwnPage {
    telemetry: Telemetry,
    identity: Identity,
    style: Style,
}

impl HttpService for OwnPage {
    fn call(self: Arc<Self>, request: Request<Incoming>, _peer: Option<SocketAddr>) -> BoxFuture<'static, Response<Body>> {
        Box::pin(async move { self.answer(request.method(), request.uri().path()) })
    }
}

impl OwnPage {
    fn answer(&self, method: &Method, path: &str) -> Response<Body> {
        if !matches!(path, "/" | "/metrics") {
            return plain(StatusCode::NOT_FOUND, format!("nothing is here\n{INDEX}"));
        }
        if method != Method::GET && method != Method::HEAD {
            let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here\n".to_owned());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        if path == "/" {
            return plain(StatusCode::OK, INDEX.to_owned());
        }
        let text = text(&self.telemetry.gather(), &self.identity, &self.style);
        let mut response = plain(StatusCode::OK, text);
        let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_root_says_what_there_is() {
        let page = OwnPage { telemetry: Telemetry::default(), identity: Identity::default(), style: PullReader::default().style };
        for (path, status) in [("/", 200), ("/metrics", 200), ("/metric", 404)] {
            let answer = page.answer(&Method::GET, path);
            assert_eq!(answer.status(), status, "{path}");
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.windows(8).any(|part| part == b"/metrics"), path != "/metrics", "{path}");
        }
        assert_eq!(page.answer(&Method::POST, "/").status(), 405);
    }
}
