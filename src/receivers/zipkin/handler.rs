//! One request: what it is written in, and what is answered.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, ORIGIN},
};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;

use super::{json, json_v1, proto, sheet::Sheet};
use crate::{
    door::{Arrival, Inlet, Refusal, heavy, status::Situation},
    receivers::request::{Encodings, Held, Pieces, context, inflated, refuse, whole},
    signal::Signal,
    transport::server::{Body, Error, Gate, Handler, HttpServerSettings, Link, Once, Origin},
};

/// What a body is written in; its name is the transport of the receiver's metrics, as the Collector has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    JsonOne,
    JsonTwo,
    Protobuf,
}

impl Form {
    const fn as_str(self) -> &'static str {
        match self {
            Self::JsonOne => "http_v1_json",
            Self::JsonTwo => "http_v2_json",
            Self::Protobuf => "http_v2_proto",
        }
    }
}

pub(super) struct Port {
    receiver: String,
    inlet: Arc<dyn Inlet>,
    gate: Gate,
    parse_tags: bool,
    /// Bytes of a body, before and after decompression.
    limit: usize,
    read_timeout: Duration,
    include_metadata: bool,
    encodings: Encodings,
    said: Once<(Option<IpAddr>, Situation)>,
}

impl Port {
    pub(super) fn new(settings: &HttpServerSettings, gate: Gate, parse_tags: bool, id: &str, inlet: Arc<dyn Inlet>) -> Self {
        Self {
            receiver: id.to_owned(),
            inlet,
            gate,
            parse_tags,
            limit: settings.request_bytes_max(),
            read_timeout: settings.read_timeout.0,
            include_metadata: settings.include_metadata,
            encodings: Encodings::of(settings),
            said: Once::default(),
        }
    }
}

impl Handler for Port {
    type Body = Body;

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>, link: Arc<Link>) -> Response<Body> {
        let origin = self.gate.origin(request.headers());
        let mut answer = if Gate::is_preflight(request.method(), request.headers()) {
            match origin {
                Origin::Allowed(_) => self.gate.preflight(request.headers(), "POST"),
                _ => refused(&Refusal::Denied { message: "pages of this origin are not in `cors::allowed_origins`".to_owned() }),
            }
        } else {
            match self.post(&mut request, &link).await {
                Ok(()) => plain(StatusCode::ACCEPTED, String::new()),
                Err(refusal) => {
                    self.tell(&refusal, &link);
                    refused(&refusal)
                }
            }
        };
        if !self.gate.is_open() || request.headers().contains_key(ORIGIN) {
            self.gate.dress(origin, answer.headers_mut());
        }
        answer
    }
}

impl Port {
    async fn post(&self, request: &mut Request<Incoming>, link: &Link) -> Result<(), Refusal> {
        let path = request.uri().path().trim_end_matches('/');
        let is_one = path.ends_with("/api/v1/spans");
        if !is_one && !path.ends_with("/api/v2/spans") {
            let shown: String = path.chars().take(128).collect();
            let message = format!("nothing is taken at {shown}; there are /api/v2/spans and /api/v1/spans");
            return Err(Refusal::NotTaken { message });
        }
        if request.method() != Method::POST {
            return Err(Refusal::Method { message: format!("{} is not POST", request.method()) });
        }
        let auth = self.gate.admit(request.headers()).await?;
        if !self.inlet.takes(Signal::Traces) {
            return Err(Refusal::NotTaken { message: format!("no pipeline takes traces from the receiver `{}`", self.receiver) });
        }
        let form = form(is_one, request.headers())?;
        let encoding = self.encodings.read(request.headers(), CONTENT_ENCODING.as_str())?;
        let context = context(&*self.inlet, request.headers(), link, auth, self.include_metadata);
        let pieces = Pieces::of(request.body_mut(), self.read_timeout);
        let read = async {
            let mut held = whole(pieces, self.inlet.budget(), self.limit).await?;
            if let Some(encoding) = encoding {
                held = inflated(encoding, held, self.limit)?;
            }
            self.translated(form, held)
        };
        let Held { payload, ticket } =
            read.await.inspect_err(|refusal| self.inlet.refused(Signal::Traces, refusal, link.peer, form.as_str()))?;
        let arrival = Arrival {
            signal: Signal::Traces,
            payload,
            context: context.map(Arc::new).unwrap_or_default(),
            transport: form.as_str(),
            peer: link.peer,
            ticket: Some(ticket),
            strict_utf8: false,
        };
        let accepted = self.inlet.accept(arrival).done().await?;
        accepted.pace.over().await;
        Ok(())
    }

    /// OTLP of a body. Its ticket has room for both while there are both, and for the OTLP then.
    fn translated(&self, form: Form, held: Held) -> Result<Held, Refusal> {
        let Held { payload: body, ticket } = held;
        heavy(body.len(), || {
            let mut sheet = Sheet::new(self.parse_tags, ticket, body.len());
            let read = match form {
                Form::JsonOne => json_v1::spans(&body, |span| sheet.add(span)),
                Form::JsonTwo => json::spans(&body, |span| sheet.add(span)),
                Form::Protobuf => proto::spans(&body, |span| sheet.add(span)),
            };
            match read {
                Ok(()) => sheet.finish(),
                Err(message) => Err(sheet
                    .full()
                    .unwrap_or_else(|| Refusal::Malformed { message: format!("these are no Zipkin spans: {message}") })),
            }
        })
    }

    /// Says what a sender does wrong, once a peer.
    fn tell(&self, refusal: &Refusal, link: &Link) {
        let situation = refusal.situation();
        let passes = matches!(situation, Situation::Full | Situation::Stopping | Situation::TooSlow | Situation::Deadline);
        if !passes && self.said.first((link.peer.map(|peer| peer.ip()), situation)) {
            let receiver = &self.receiver;
            let peer = link.peer.map(tracing::field::display);
            tracing::warn!(receiver, peer, error = %refusal, "a request is refused; further ones of this peer for such a reason are only counted");
        }
    }
}

fn form(is_one: bool, headers: &HeaderMap) -> Result<Form, Refusal> {
    let written = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let name = written.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    match (is_one, &*name) {
        (_, b"application/x-thrift" | b"application/vnd.apache.thrift.binary") => {
            let message = "Thrift is not read; let the sender write JSON, or protobuf to /api/v2/spans".to_owned();
            Err(Refusal::MediaType { message })
        }
        (true, b"application/x-protobuf" | b"application/protobuf") => {
            Err(Refusal::MediaType { message: "version 1 has no protobuf; it is taken at /api/v2/spans".to_owned() })
        }
        (false, b"application/x-protobuf" | b"application/protobuf") => Ok(Form::Protobuf),
        // Whatever else it is called: many clients leave the type out, or say `text/plain` to spare a preflight.
        (true, _) => Ok(Form::JsonOne),
        (false, _) => Ok(Form::JsonTwo),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(Error::from).boxed_unsync());
    *answer.status_mut() = status;
    if status != StatusCode::ACCEPTED {
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    answer
}

fn refused(refusal: &Refusal) -> Response<Body> {
    let mut answer = plain(refusal.situation().row().http, refusal.to_string());
    refuse(refusal, answer.headers_mut());
    answer
}
