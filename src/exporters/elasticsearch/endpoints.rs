//! The nodes to send to: in turn, and past those that are not there.

use std::{sync::Arc, time::Duration};

use ::http::{
    HeaderMap, Method, Uri,
    header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT},
};
use parking_lot::Mutex;
use tokio::time::{Instant, timeout};

use super::settings::Settings;
use crate::{
    component::{BuildContext, ClientAuth, Outcome, Request, RetryCause},
    config::shown_url,
    runtime::BuildError,
    transport::client::{
        Compressor, Connector, Endpoint, Message, ProxyRules,
        http::{Answer, Client, Head, Take},
        outcome, user_agent,
    },
};

/// A node that was not there is left alone for so long at first, and for longer each time.
const DOWN_MIN: Duration = Duration::from_secs(1);
const DOWN_MAX: Duration = Duration::from_mins(1);
/// Longest time of a question that is not about documents.
const CALL_MAX: Duration = Duration::from_secs(30);
/// Bytes of an answer that is kept whole.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// A server.
struct Node {
    client: Client,
    /// `https://host:9200/prefix`, without a slash at its end.
    base: String,
    headers: HeaderMap,
    compressor: Compressor,
}

#[derive(Debug, Clone, Copy, Default)]
struct Condition {
    failures: u32,
    /// Left alone until then.
    down_until: Option<Instant>,
}

/// All of them.
pub(super) struct Endpoints {
    settings: Arc<Settings>,
    proxies: ProxyRules,
    auth: Option<Arc<dyn ClientAuth>>,
    state: Mutex<State>,
}

struct State {
    nodes: Vec<(Arc<Node>, Condition)>,
    next: usize,
}

/// What is asked of a server.
pub(super) struct Asked<'a> {
    pub(super) method: Method,
    /// Behind the base, with what follows a `?`.
    pub(super) path: &'a str,
    pub(super) content_type: &'static str,
    pub(super) body: Message,
}

impl Endpoints {
    pub(super) fn new(settings: Arc<Settings>, context: &BuildContext) -> Result<Self, BuildError> {
        let proxies = settings.client.proxies(&ProxyRules::from_env(&context.notes));
        let auth = settings.client.auth.get().map(|auth| context.extensions.client_auth(&auth.authenticator)).transpose()?;
        let mut nodes = Vec::new();
        for url in &settings.endpoints {
            nodes.push((Arc::new(Node::new(url, &settings, &proxies)?), Condition::default()));
        }
        Ok(Self { settings, proxies, auth, state: Mutex::new(State { nodes, next: 0 }) })
    }

    /// Takes the nodes that the cluster names instead of those it has; keeps what it has where none can be used.
    pub(super) fn replace(&self, urls: &[String]) {
        let known: Vec<(Arc<Node>, Condition)> = self.state.lock().nodes.clone();
        let mut nodes = Vec::new();
        for url in urls {
            let base = url.trim_end_matches('/');
            if let Some(same) = known.iter().find(|(node, _)| node.base == base) {
                nodes.push(same.clone());
            } else if let Ok(node) = Node::new(url, &self.settings, &self.proxies) {
                nodes.push((Arc::new(node), Condition::default()));
            }
        }
        if !nodes.is_empty() {
            *self.state.lock() = State { nodes, next: 0 };
        }
    }

    /// `http` or `https`, of the first.
    pub(super) fn scheme(&self) -> &'static str {
        let is_tls = self.state.lock().nodes.first().is_some_and(|(node, _)| node.base.starts_with("https"));
        if is_tls { "https" } else { "http" }
    }

    /// The next one in turn that is there, as far as is known; else the one that is left alone for the shortest time.
    fn next(&self) -> Option<Arc<Node>> {
        let mut state = self.state.lock();
        let (now, count) = (Instant::now(), state.nodes.len());
        let first = state.next;
        state.next = state.next.wrapping_add(1);
        let turn = (0..count).map(|step| first.wrapping_add(step) % count);
        let is_up =
            |at: &usize| state.nodes.get(*at).is_some_and(|(_, condition)| condition.down_until.is_none_or(|until| until <= now));
        let at = turn
            .clone()
            .find(is_up)
            .or_else(|| turn.min_by_key(|at| state.nodes.get(*at).and_then(|(_, condition)| condition.down_until)))?;
        state.nodes.get(at).map(|(node, _)| node.clone())
    }

    fn judge(&self, node: &Arc<Node>, works: bool) {
        let mut state = self.state.lock();
        let Some((_, condition)) = state.nodes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, node)) else { return };
        if works {
            *condition = Condition::default();
        } else {
            let wait = DOWN_MIN.saturating_mul(1 << condition.failures.min(10)).min(DOWN_MAX);
            condition.failures = condition.failures.saturating_add(1);
            condition.down_until = Instant::now().checked_add(wait);
        }
    }

    pub(super) fn reconnect(&self) {
        for (node, _) in &self.state.lock().nodes {
            node.client.reconnect();
        }
    }

    /// Asks one server, and the next where that one has seen nothing. The answer's body goes to `take`.
    ///
    /// # Errors
    /// What it means for the data that nobody answered.
    pub(super) async fn ask(&self, asked: Asked<'_>, of: Option<&Request>, take: &mut Take<'_>) -> Result<Head, Outcome> {
        let tries = self.state.lock().nodes.len().min(3);
        let mut failed =
            Outcome::Retry { reason: "there is no endpoint to send to".to_owned(), after: None, cause: RetryCause::Blocked };
        for _ in 0..tries.max(1) {
            let Some(node) = self.next() else { return Err(failed) };
            let uri = Uri::try_from(format!("{}{}", node.base, asked.path));
            let uri = uri.map_err(|error| Outcome::Rejected { message: format!("`{}`: {error}", asked.path) })?;
            let mut headers = node.headers.clone();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(asked.content_type));
            if let Some(auth) = &self.auth {
                let context = of.map(Request::context).unwrap_or_default();
                auth.add_headers(&context, &mut headers).map_err(|error| outcome::auth(&error))?;
            }
            let mut body = asked.body.clone();
            if !body.is_empty()
                && let Some(encoding) = node.compressor.algorithm.content_encoding()
            {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
                body = node.compressor.compress(body).await.map_err(|error| Outcome::Rejected { message: error.to_string() })?;
            }
            let reader = outcome::Reader {
                retry_after_max: self.settings.delivery.retry.max_interval.0,
                credentials_of_context: self.auth.as_ref().is_some_and(|auth| auth.reads_context()),
            };
            match node.client.exchange(&asked.method, &uri, &headers, body, take).await {
                Ok(head) => {
                    self.judge(&node, !matches!(head.status, 502..=504));
                    return Ok(head);
                }
                Err(error) => {
                    self.judge(&node, false);
                    failed = reader.grpc(crate::signal::Signal::Logs, Err(error));
                    // Who may have seen it is not asked behind its back.
                    if !matches!(failed, Outcome::Retry { cause: RetryCause::Unreached | RetryCause::Blocked, .. }) {
                        return Err(failed);
                    }
                }
            }
        }
        Err(failed)
    }

    /// The same, with the answer's body kept, up to 8 MiB.
    #[expect(clippy::result_large_err, reason = "what an attempt came to is made once a request")]
    pub(super) async fn call(&self, asked: Asked<'_>) -> Result<Answer, Outcome> {
        let (mut body, mut is_whole) = (Vec::new(), true);
        let mut take = |_: u16, chunk: &[u8]| {
            is_whole = body.len() + chunk.len() <= ANSWER_BYTES_MAX;
            if is_whole {
                body.extend_from_slice(chunk);
            }
            is_whole
        };
        let head = timeout(CALL_MAX, self.ask(asked, None, &mut take)).await.unwrap_or_else(|_| {
            let reason = format!("no answer within {CALL_MAX:?}");
            Err(Outcome::Retry { reason, after: None, cause: RetryCause::Timeout })
        })?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.into(), cut: !is_whole || !head.whole })
    }
}

impl Node {
    fn new(url: &str, settings: &Settings, proxies: &ProxyRules) -> Result<Self, BuildError> {
        let wrong = |problem: String| BuildError::setting("endpoint", problem);
        let endpoint = Endpoint::http(url).map_err(wrong)?;
        let client = &settings.client;
        let scheme = if endpoint.tls == Some(true) { "https" } else { "http" };
        let base = format!("{scheme}://{}{}", endpoint.host_header(), endpoint.path.trim_end_matches('/'));
        Uri::try_from(&base).map_err(|error| wrong(format!("`{}`: {error}", shown_url(url))))?;
        let compressor = client.compressor(&endpoint);
        let host = Endpoint { path: String::new(), ..endpoint };
        let connector = Connector::http(host, &client.tls, proxies, client.force_attempt_http2)?;
        let mut headers = client.headers.to_map();
        let invalid = |key: &str| {
            let key = key.to_owned();
            move |error: ::http::header::InvalidHeaderValue| BuildError::setting(key, error.to_string())
        };
        if let Some(authorization) = &settings.authorization {
            let mut value = HeaderValue::from_str(authorization.expose()).map_err(invalid("password"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        if let Some(host) = client.headers.host() {
            headers.insert(HOST, HeaderValue::from_str(host).map_err(invalid("headers::Host"))?);
        }
        if !headers.contains_key(USER_AGENT) {
            headers.insert(USER_AGENT, HeaderValue::try_from(user_agent()).map_err(invalid("headers"))?);
        }
        Ok(Self { client: Client::new(connector, client.keeping()), base, headers, compressor })
    }
}
