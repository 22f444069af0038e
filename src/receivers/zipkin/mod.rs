//! Takes spans from Zipkin's clients: version 2 as JSON and protobuf, version 1 as JSON.
//!
//! In:   POSTs to `/api/v2/spans` and `/api/v1/spans`, also below a prefix; bodies may be compressed.
//! Out:  OTLP for the [`Inlet`]; 202 once the journal has it.
//! Full: 503 with `Retry-After`; see the inlet. What a body becomes is counted span by span, beside the body, so that many small spans of
//!       different services are refused where the room ends.
//! Lost: nothing that was answered 202. One span that is none refuses its request (400), as Zipkin does.
//!
//! ```yaml
//! receivers:
//!   zipkin:
//!     endpoint: localhost:9411
//!     parse_string_tags: false     # true: tags that read as numbers or booleans become such
//! ```
//!
//! Attributes are called as the Collector's receiver calls them (`network.local.address`, `service.peer.name`, …). Where it loses something this
//! does not: tags about the process stay with each span's own resource, an `error` tag that says more than `true` is an error as in Zipkin, and
//! `sa`, `ca` and `ma` of version 1 say who is at the other end. Shared spans keep the id they came with. It takes version 1 at every path that
//! contains `/api/v1/spans`, and version 2 at all others; here a path ends in one of the two, and anything else is 404, not taken for spans.
//!
//! Spec: Zipkin API 1 and 2, `zipkin.proto`.

mod handler;
mod json;
mod json_v1;
mod proto;
mod sheet;
mod span;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt};
use serde::Deserialize;

use self::handler::Port;
use crate::{
    component::{BuildContext, Receiver, ReceiverConfig, Stability},
    config::{Diagnostics, Node, read2},
    door::Inlet,
    runtime::{BuildError, Shutdown, Task, both},
    signal::Signal,
    transport::server::{Bound, Gate, HttpServerSettings},
};

/// The receiver's own keys; those of the HTTP server stand beside them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    parse_string_tags: bool,
}

/// The settings of the receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    own: Own,
    server: HttpServerSettings,
}

impl ReceiverConfig for Config {
    const TYPE: &'static str = "zipkin";
    const STABILITY: Stability = Stability::Beta;
    const SIGNALS: &'static [Signal] = &[Signal::Traces];

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let (own, mut server): (Own, HttpServerSettings) = read2(node, found);
        server.check(node, found);
        if server.endpoint.is_empty() {
            "localhost:9411".clone_into(&mut server.endpoint);
        }
        Self { own, server }
    }

    fn build(self, context: BuildContext) -> Result<Box<dyn Receiver>, BuildError> {
        // Whoever is named to check credentials has to be there before a port opens.
        let (gate, ()) = both(Gate::of_http(&self.server, &context.extensions), self.server.try_files())?;
        Ok(Box::new(Zipkin { config: self, gate, context }))
    }
}

struct Zipkin {
    config: Config,
    gate: Gate,
    context: BuildContext,
}

impl Receiver for Zipkin {
    fn start(self: Box<Self>, inlet: Arc<dyn Inlet>, shutdown: Shutdown) -> BoxFuture<'static, Result<Task, BuildError>> {
        async move {
            let Self { config, gate, context } = *self;
            let key = format!("receivers::{}::endpoint", context.id);
            let bound = Bound::bind(&config.server, &key, &context.sockets).await?;
            tracing::info!(receiver = %context.id, addresses = ?bound.addresses(), "taking Zipkin spans");
            let port = Port::new(&config.server, gate, config.own.parse_string_tags, context.id.as_str(), inlet);
            Ok(bound.serve_with(Arc::new(port), shutdown))
        }
        .boxed()
    }
}
