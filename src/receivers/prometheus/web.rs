//! Asks by HTTP for pages and lists of targets: credentials, redirects, compression, and bounds on what comes back.
//!
//! In:   a URL, and how much is taken of an answer.
//! Out:  the body, not compressed, with the room that it takes.
//! Full: a body that grows beyond the bound, or beyond the memory for requests, is given up at that byte, compressed or not.
//!
//! Redirects are followed on the same host and port only: an answer must not choose whom weir sends credentials, or asks inside a network.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{
    HeaderMap, Method, Uri,
    header::{self, HeaderName, HeaderValue},
};
use parking_lot::Mutex;

use super::job::BODY_BYTES_MAX;
use crate::{
    config::{Secret, shown_url},
    door::{
        Budget, Refusal, Ticket, heavy,
        inflate::{Encoding, inflate},
    },
    runtime::BuildError,
    transport::{
        client::{
            Connector, Endpoint, Message, ProxyRules,
            grpc::CallError,
            http::{Client, Keeping},
            user_agent,
        },
        tls::client::{TlsClient, TlsClientSettings},
    },
};

/// Redirects that are followed one after another.
const HOPS_MAX: usize = 10;
/// Of an answer that is not the page.
const REST_BYTES_MAX: usize = 64 << 10;
/// A file with a password or token is no longer than this.
const SECRET_FILE_MAX: u64 = 64 << 10;
/// Room is taken at once for so much.
const STEP_BYTES: usize = 64 << 10;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) enum Credentials {
    #[default]
    None,
    Basic {
        name: Value,
        password: Value,
    },
    /// `Bearer`, or another word before the token.
    Token {
        scheme: String,
        token: Value,
    },
}

/// Written in the configuration, or in a file that is read each time.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Written(Secret),
    File(String),
}

impl Value {
    async fn text(&self) -> Result<String, Failure> {
        match self {
            Self::Written(secret) => Ok(secret.expose().to_owned()),
            Self::File(path) => {
                let unread = |problem: String| Failure::Credentials(format!("cannot read {path}: {problem}"));
                let length = tokio::fs::metadata(path).await.map_err(|error| unread(error.to_string()))?.len();
                if length > SECRET_FILE_MAX {
                    return Err(unread("it is larger than 64 KiB".to_owned()));
                }
                let text = tokio::fs::read_to_string(path).await.map_err(|error| unread(error.to_string()))?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

/// How one job, or one discovery, asks.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct WebSettings {
    pub(super) credentials: Credentials,
    pub(super) tls: TlsClientSettings,
    pub(super) proxies: ProxyRules,
    pub(super) headers: Vec<(String, Value)>,
    pub(super) follows: bool,
    pub(super) h2: bool,
}

impl WebSettings {
    /// Reads the certificates once, for what is wrong with them.
    pub(super) fn try_files(&self) -> Result<(), BuildError> {
        let named = [&self.tls.ca_file, &self.tls.cert_file, &self.tls.key_file].iter().any(|file| !file.is_empty());
        if named {
            TlsClient::new(self.tls.clone(), &[b"http/1.1"]).map_err(|error| error.under("tls_config"))?;
        }
        Ok(())
    }
}

/// Nothing usable came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Unreached(#[from] CallError),
    #[error("{0}")]
    Credentials(String),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it redirects to {0}, which weir does not follow: {1}")]
    Redirect(String, &'static str),
    #[error("the answer is larger than {0} bytes{own}", own = if *.0 >= BODY_BYTES_MAX { ", the most that weir reads" } else { "" })]
    TooLarge(usize),
    #[error("{0}")]
    Body(String),
    /// There is no room for it here: nothing is wrong with who was asked.
    #[error("{0}")]
    Room(Refusal),
    #[error("{}", .0.message())]
    Setting(#[from] BuildError),
}

impl Failure {
    /// The reason in a few words, as counters have it.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Unreached(_) => "connection",
            Self::Credentials(_) => "credentials",
            Self::Status(_) | Self::Redirect(..) => "status",
            Self::TooLarge(_) => "body_size",
            Self::Body(_) => "malformed",
            Self::Room(_) => "refused",
            Self::Setting(_) => "setting",
        }
    }
}

/// What came back.
pub(super) struct Fetched {
    pub(super) media_type: String,
    pub(super) body: Vec<u8>,
    /// Bytes on the wire and after decompression.
    pub(super) _ticket: Ticket,
}

/// Shared by all that one job asks: its settings and its certificates.
pub(super) struct Web {
    settings: WebSettings,
    budget: Arc<Budget>,
    tls: Mutex<Option<Arc<TlsClient>>>,
}

impl Web {
    pub(super) fn new(settings: WebSettings, budget: Arc<Budget>) -> Self {
        Self { settings, budget, tls: Mutex::new(None) }
    }

    /// Certificates are read when the first needs them, and then shared.
    fn tls(&self) -> Result<Arc<TlsClient>, BuildError> {
        let mut tls = self.tls.lock();
        if let Some(known) = &*tls {
            return Ok(known.clone());
        }
        let alpn: &[&[u8]] = if self.settings.h2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
        let made = Arc::new(TlsClient::new(self.settings.tls.clone(), alpn)?);
        Ok(tls.insert(made).clone())
    }

    /// Connections to the host of `url`, kept between requests.
    pub(super) fn client(&self, url: &Uri) -> Result<Client, BuildError> {
        let endpoint = Endpoint::http(&url.to_string()).map_err(|problem| BuildError::setting("targets", problem))?;
        let proxies = &self.settings.proxies;
        let connector = if endpoint.tls == Some(true) {
            Connector::https(endpoint, self.tls()?, proxies)?
        } else {
            Connector::http(endpoint, &TlsClientSettings::default(), proxies, false)?
        };
        // One connection, for one request at a time; as long as an interval may be.
        let keeping = Keeping { idle_max: 1, idle_timeout: std::time::Duration::from_mins(5), keepalive: None };
        Ok(Client::new(connector, keeping))
    }

    /// GETs `url`, at most `limit` bytes of it.
    pub(super) async fn get(
        &self,
        client: &Client,
        url: &Uri,
        headers: &[(HeaderName, String)],
        limit: usize,
    ) -> Result<Fetched, Failure> {
        let headers = self.headers(headers).await?;
        let mut url = url.clone();
        for _ in 0..=HOPS_MAX {
            let ticket = self.budget.take(0).await.map_err(Failure::Room)?;
            let mut taking = Taking { bytes: Vec::new(), limit, ticket, stop: None };
            let mut take = |status: u16, chunk: &[u8]| taking.take(status, chunk);
            let head = client.exchange(&Method::GET, &url, &headers, Message::of(Bytes::new()), &mut take).await?;
            if let Some(next) = redirected(head.status, &head.headers) {
                url = self.next(&url, next)?;
                continue;
            }
            if head.status != 200 {
                return Err(Failure::Status(head.status));
            }
            let Taking { bytes, ticket, stop, .. } = taking;
            if let Some(stop) = stop {
                return Err(stop);
            }
            if !head.whole {
                return Err(Failure::Body("the answer breaks off".to_owned()));
            }
            return finished(&head.headers, bytes, ticket, limit);
        }
        Err(Failure::Redirect(shown_url(&url.to_string()).into_owned(), "there are more than ten in a row"))
    }

    fn next(&self, from: &Uri, to: &str) -> Result<Uri, Failure> {
        let refused = |why| Failure::Redirect(shown_url(to).into_owned(), why);
        if !self.settings.follows {
            return Err(refused("`follow_redirects` is false"));
        }
        let to_other_host = "it is another host; name it as a target";
        let next = if to.starts_with('/') && !to.starts_with("//") {
            let mut parts = from.clone().into_parts();
            parts.path_and_query = to.parse().ok();
            Uri::from_parts(parts).ok()
        } else {
            to.parse::<Uri>().ok()
        };
        let next = next.ok_or_else(|| refused("it is not a URL"))?;
        let place = |uri: &Uri| Endpoint::http(&uri.to_string()).map(|endpoint| (endpoint.place, endpoint.tls));
        match (place(from), place(&next)) {
            (Ok(one), Ok(other)) if one == other => Ok(next),
            _ => Err(refused(to_other_host)),
        }
    }

    async fn headers(&self, own: &[(HeaderName, String)]) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let mut put = |name: HeaderName, value: &str, secret: bool| {
            let wrong = |_| Failure::Credentials(format!("the header `{name}` would have characters that a header cannot hold"));
            let mut value = HeaderValue::from_str(value).map_err(wrong)?;
            value.set_sensitive(secret);
            headers.append(name, value);
            Ok::<(), Failure>(())
        };
        put(header::USER_AGENT, &user_agent(), false)?;
        for (name, value) in own {
            put(name.clone(), value, false)?;
        }
        for (name, value) in &self.settings.headers {
            let name =
                HeaderName::try_from(name).map_err(|_| Failure::Credentials(format!("`{name}` is not the name of a header")))?;
            put(name, &value.text().await?, true)?;
        }
        match &self.settings.credentials {
            Credentials::None => {}
            Credentials::Basic { name, password } => {
                let both = format!("{}:{}", name.text().await?, password.text().await?);
                put(header::AUTHORIZATION, &format!("Basic {}", STANDARD.encode(both)), true)?;
            }
            Credentials::Token { scheme, token } => {
                put(header::AUTHORIZATION, &format!("{scheme} {}", token.text().await?), true)?;
            }
        }
        Ok(headers)
    }
}

fn redirected(status: u16, headers: &HeaderMap) -> Option<&str> {
    matches!(status, 301 | 302 | 303 | 307 | 308).then(|| headers.get(header::LOCATION)?.to_str().ok())?
}

/// A body on its way in.
struct Taking {
    bytes: Vec<u8>,
    limit: usize,
    ticket: Ticket,
    stop: Option<Failure>,
}

impl Taking {
    fn take(&mut self, status: u16, chunk: &[u8]) -> bool {
        let limit = if status == 200 { self.limit } else { REST_BYTES_MAX };
        let len = self.bytes.len().saturating_add(chunk.len());
        if len > limit {
            self.stop = Some(Failure::TooLarge(limit));
            return false;
        }
        if len > self.bytes.capacity() {
            let wanted = self.bytes.capacity().saturating_mul(2).max(STEP_BYTES).min(limit).max(len);
            if !self.ticket.try_grow(wanted) {
                let reason = "no memory for the page now".to_owned();
                self.stop = Some(Failure::Room(Refusal::Full { reason, retry_after: std::time::Duration::from_secs(1) }));
                return false;
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(chunk);
        true
    }
}

fn finished(headers: &HeaderMap, mut body: Vec<u8>, mut ticket: Ticket, limit: usize) -> Result<Fetched, Failure> {
    let encoding = headers.get(header::CONTENT_ENCODING).map_or(&b""[..], HeaderValue::as_bytes);
    let unknown =
        || Failure::Body(format!("the answer is compressed with {}, which was not asked for", String::from_utf8_lossy(encoding)));
    if let Some(encoding) = Encoding::parse(encoding).ok_or_else(unknown)? {
        let inflated = heavy(body.len().saturating_mul(8), || inflate(encoding, &body, limit, &mut ticket));
        body = inflated.map_err(|refusal| match refusal {
            Refusal::TooLarge { .. } => Failure::TooLarge(limit),
            Refusal::Full { .. } => Failure::Room(refusal),
            other => Failure::Body(other.to_string()),
        })?;
    }
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    Ok(Fetched { media_type, body, _ticket: ticket })
}

/// A query of a URL: pairs in order, each name with all its values.
pub(super) fn query(params: &BTreeMap<String, Vec<String>>) -> String {
    let pairs =
        params.iter().flat_map(|(name, values)| values.iter().map(move |value| format!("{}={}", escaped(name), escaped(value))));
    pairs.collect::<Vec<_>>().join("&")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            _ => {
                const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                for half in [byte >> 4, byte & 15] {
                    out.push(DIGITS.get(usize::from(half)).copied().map_or('0', char::from));
                }
            }
        }
    }
    out
}
