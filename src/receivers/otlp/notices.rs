//! What a sender did wrong, said once a peer in our log with the line to change.

use std::net::{IpAddr, SocketAddr};

use super::handler::Speaks;
use crate::{signal::Signal, transport::server::Once};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum What {
    OtherPort,
    Path,
    NotTaken(Signal),
    Profiles,
    Method,
    MediaType,
    Encoding,
    Origin,
    Credentials,
    Malformed,
}

/// Of one port.
pub(super) struct Notices {
    /// `receivers::otlp::protocols::grpc`
    block: String,
    said: Once<(Option<IpAddr>, What)>,
}

impl Notices {
    pub(super) fn new(block: String) -> Self {
        Self { block, said: Once::default() }
    }

    fn first(&self, peer: Option<SocketAddr>, what: What) -> bool {
        self.said.first((peer.map(|peer| peer.ip()), what))
    }

    /// gRPC came where HTTP is expected, or the reverse. It is taken.
    #[inline]
    pub(super) fn other_port(&self, peer: Option<SocketAddr>, port: Speaks, came: Speaks) {
        if port != came && self.first(peer, What::OtherPort) {
            let hint = match came {
                Speaks::Grpc => "OTEL_EXPORTER_OTLP_ENDPOINT=http://…:4317, or OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
                Speaks::Http => "OTEL_EXPORTER_OTLP_ENDPOINT=http://…:4318, or OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
            };
            tracing::info!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                came = came.as_str(),
                hint,
                "the other protocol came to this port; it is taken"
            );
        }
    }

    #[cold]
    pub(super) fn path(&self, peer: Option<SocketAddr>, path: &str) {
        if self.first(peer, What::Path) {
            let path: String = path.chars().take(128).collect();
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                ?path,
                "nothing is taken at this path: OTEL_EXPORTER_OTLP_ENDPOINT is the base (http://…:4318), OTEL_EXPORTER_OTLP_TRACES_ENDPOINT the \
                 whole URL (http://…:4318/v1/traces)"
            );
        }
    }

    #[cold]
    pub(super) fn not_taken(&self, peer: Option<SocketAddr>, signal: Signal, receiver: &str) {
        if self.first(peer, What::NotTaken(signal)) {
            let variable = signal.as_str().to_ascii_uppercase();
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                "no pipeline takes {signal}: set OTEL_{variable}_EXPORTER=none there, or add `{signal}: {{ receivers: [{receiver}], … }}` under \
                 service::pipelines"
            );
        }
    }

    #[cold]
    pub(super) fn profiles(&self, peer: Option<SocketAddr>) {
        if self.first(peer, What::Profiles) {
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                "profiles are not taken; switch their export off there"
            );
        }
    }

    #[cold]
    pub(super) fn method(&self, peer: Option<SocketAddr>, method: &http::Method) {
        if self.first(peer, What::Method) {
            tracing::warn!(peer = peer.map(tracing::field::display), listener = self.block, %method, "OTLP/HTTP is POST only");
        }
    }

    #[cold]
    pub(super) fn media_type(&self, peer: Option<SocketAddr>, content_type: &[u8]) {
        if self.first(peer, What::MediaType) {
            let content_type: String = String::from_utf8_lossy(content_type).chars().take(128).collect();
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                ?content_type,
                "not a media type of OTLP: set OTEL_EXPORTER_OTLP_PROTOCOL to grpc, http/protobuf or http/json there"
            );
        }
    }

    #[cold]
    pub(super) fn encoding(&self, peer: Option<SocketAddr>, encoding: &[u8]) {
        if self.first(peer, What::Encoding) {
            let encoding: String = String::from_utf8_lossy(encoding).chars().take(128).collect();
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                ?encoding,
                "not an encoding that is read here: set OTEL_EXPORTER_OTLP_COMPRESSION=gzip (or none) there"
            );
        }
    }

    #[cold]
    pub(super) fn origin(&self, peer: Option<SocketAddr>, origin: Option<&http::HeaderValue>) {
        if self.first(peer, What::Origin) {
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                ?origin,
                "a web page of this origin may not send: add the origin to {}::cors::allowed_origins",
                self.block
            );
        }
    }

    #[cold]
    pub(super) fn credentials(&self, peer: Option<SocketAddr>, error: &dyn std::fmt::Display) {
        if self.first(peer, What::Credentials) {
            tracing::warn!(
                peer = peer.map(tracing::field::display),
                listener = self.block,
                %error,
                "credentials were refused: set OTEL_EXPORTER_OTLP_HEADERS there (Authorization=…), {}::auth says who checks them",
                self.block
            );
        }
    }

    #[cold]
    pub(super) fn malformed(&self, peer: Option<SocketAddr>, error: &dyn std::fmt::Display) {
        if self.first(peer, What::Malformed) {
            tracing::warn!(peer = peer.map(tracing::field::display), listener = self.block, %error, "a request cannot be read; its sender was told; said once a peer");
        }
    }
}
