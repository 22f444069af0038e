//! How a job or a discovery asks: Prometheus' keys of HTTP clients.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};

use super::written;
use crate::{
    component::Notes,
    config::{Diagnostics, Node, Secret, Section},
    receivers::prometheus::web::{Credentials, Value, WebSettings},
    transport::{
        client::{Proxy, ProxyRules},
        tls::client::TlsClientSettings,
    },
};

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct WebKeys {
    basic_auth: Section<BasicAuth>,
    authorization: Section<Authorization>,
    bearer_token: Secret,
    bearer_token_file: String,
    #[serde(rename = "oauth2")]
    _oauth2: IgnoredAny,
    tls_config: Tls,
    proxy_url: Secret,
    no_proxy: String,
    proxy_from_environment: bool,
    #[serde(rename = "proxy_connect_header")]
    _proxy_connect_header: IgnoredAny,
    http_headers: BTreeMap<String, Header>,
    follow_redirects: bool,
    enable_http2: bool,
}

impl Default for WebKeys {
    fn default() -> Self {
        Self {
            basic_auth: Section::absent(),
            authorization: Section::absent(),
            bearer_token: Secret::default(),
            bearer_token_file: String::new(),
            _oauth2: IgnoredAny,
            tls_config: Tls::default(),
            proxy_url: Secret::default(),
            no_proxy: String::new(),
            proxy_from_environment: false,
            _proxy_connect_header: IgnoredAny,
            http_headers: BTreeMap::new(),
            follow_redirects: true,
            enable_http2: true,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct BasicAuth {
    username: String,
    username_file: String,
    password: Secret,
    password_file: String,
    #[serde(rename = "username_ref")]
    _username_ref: IgnoredAny,
    #[serde(rename = "password_ref")]
    _password_ref: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Authorization {
    #[serde(rename = "type")]
    kind: String,
    credentials: Secret,
    credentials_file: String,
    #[serde(rename = "credentials_ref")]
    _credentials_ref: IgnoredAny,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Tls {
    ca: Secret,
    ca_file: String,
    cert: Secret,
    cert_file: String,
    key: Secret,
    key_file: String,
    server_name: String,
    insecure_skip_verify: bool,
    min_version: String,
    max_version: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Header {
    values: Vec<Secret>,
    secrets: Vec<Secret>,
    files: Vec<String>,
}

impl WebKeys {
    pub(super) fn settle(self, node: &Node, found: &mut Diagnostics) -> WebSettings {
        for (key, message, remedy) in [
            (
                "oauth2",
                "weir does not fetch OAuth 2.0 tokens",
                "let something else fetch it, and name the file: `authorization: {credentials_file: …}`",
            ),
            ("proxy_connect_header", "weir adds no headers to a proxy's CONNECT", "put user and password into `proxy_url`"),
            ("basic_auth::username_ref", "weir has no secret stores", "use `username_file`"),
            ("basic_auth::password_ref", "weir has no secret stores", "use `password_file`"),
            ("authorization::credentials_ref", "weir has no secret stores", "use `credentials_file`"),
        ] {
            if let Some(origin) = written(node, key) {
                found.error(origin, message, Some(remedy.to_owned()));
            }
        }
        let credentials = self.credentials(node, found);
        let tls = self.tls(node, found);
        let proxies = self.proxies(node, found);
        let mut headers = Vec::new();
        for (name, header) in self.http_headers {
            let origin =
                node.get("http_headers").and_then(|headers| headers.get(&name)).map_or(node.origin, |header| header.origin);
            if http::HeaderName::try_from(&name).is_err() {
                found.error(origin, format!("`{name}` is not the name of a header"), None);
            } else if OWN.iter().any(|own| own.eq_ignore_ascii_case(&name)) {
                found.error(origin, format!("the header `{name}` has a key of its own, or is set by the scrape itself"), None);
            }
            let values = header.values.into_iter().chain(header.secrets).map(Value::Written);
            headers.extend(values.chain(header.files.into_iter().map(Value::File)).map(|value| (name.clone(), value)));
        }
        WebSettings { credentials, tls, proxies, headers, follows: self.follow_redirects, h2: self.enable_http2 }
    }

    fn credentials(&self, node: &Node, found: &mut Diagnostics) -> Credentials {
        let at = |key: &str| node.nearest(key).origin;
        let either = |written: &Secret, file: &str, key: &str, found: &mut Diagnostics| {
            if file.is_empty() {
                return Value::Written(written.clone());
            }
            if !written.expose().is_empty() {
                found.error(at(key), format!("`{key}` and `{key}_file` are both set"), Some("keep one of them".to_owned()));
            }
            Value::File(file.to_owned())
        };
        let bearer = !self.bearer_token.expose().is_empty() || !self.bearer_token_file.is_empty();
        let ways = [self.basic_auth.get().is_some(), self.authorization.get().is_some(), bearer];
        if ways.iter().filter(|way| **way).count() > 1 {
            let message = "`basic_auth`, `authorization` and `bearer_token` exclude one another";
            found.error(node.origin, message, Some("keep one of them".to_owned()));
        }
        if let Some(basic) = self.basic_auth.get() {
            let name = either(&Secret::new(basic.username.clone()), &basic.username_file, "username", found);
            let password = either(&basic.password, &basic.password_file, "password", found);
            return Credentials::Basic { name, password };
        }
        if let Some(own) = self.authorization.get() {
            let scheme = if own.kind.trim().is_empty() { "Bearer" } else { own.kind.trim() };
            if scheme.eq_ignore_ascii_case("basic") {
                found.error(at("authorization::type"), "`Basic` is not a type here", Some("use `basic_auth`".to_owned()));
            }
            let token = either(&own.credentials, &own.credentials_file, "credentials", found);
            return Credentials::Token { scheme: scheme.to_owned(), token };
        }
        if bearer {
            let token = either(&self.bearer_token, &self.bearer_token_file, "bearer_token", found);
            return Credentials::Token { scheme: "Bearer".to_owned(), token };
        }
        Credentials::None
    }

    fn tls(&self, node: &Node, found: &mut Diagnostics) -> TlsClientSettings {
        let own = &self.tls_config;
        let node = node.nearest("tls_config");
        let mut version = |key: &str, written: &str| match written {
            "" => String::new(),
            "TLS13" => "1.3".to_owned(),
            "TLS12" => "1.2".to_owned(),
            "TLS11" | "TLS10" if key == "min_version" => "1.2".to_owned(),
            other => {
                found.error(
                    node.nearest(key).origin,
                    format!("`{other}` is not a version of TLS that weir speaks"),
                    Some("use TLS12 or TLS13".to_owned()),
                );
                String::new()
            }
        };
        let (min_version, max_version) = (version("min_version", &own.min_version), version("max_version", &own.max_version));
        let settings = TlsClientSettings {
            insecure_skip_verify: own.insecure_skip_verify,
            server_name_override: own.server_name.clone(),
            ca_file: own.ca_file.clone(),
            ca_pem: own.ca.clone(),
            cert_file: own.cert_file.clone(),
            cert_pem: own.cert.clone(),
            key_file: own.key_file.clone(),
            key_pem: own.key.clone(),
            min_version,
            max_version,
            ..TlsClientSettings::default()
        };
        settings.check(node, found);
        settings
    }

    fn proxies(&self, node: &Node, found: &mut Diagnostics) -> ProxyRules {
        let url = self.proxy_url.expose();
        if self.proxy_from_environment {
            if !url.is_empty() || !self.no_proxy.is_empty() {
                let origin = node.nearest("proxy_from_environment").origin;
                found.error(origin, "`proxy_from_environment` excludes `proxy_url` and `no_proxy`", None);
            }
            return ProxyRules::from_env(&Notes::default());
        }
        if url.is_empty() {
            if !self.no_proxy.is_empty() {
                found.error(node.nearest("no_proxy").origin, "`no_proxy` needs `proxy_url`", None);
            }
            return ProxyRules::default();
        }
        match Proxy::parse(url) {
            Err(problem) => {
                found.error(node.nearest("proxy_url").origin, problem, None);
                ProxyRules::default()
            }
            Ok(proxy) if self.no_proxy.is_empty() => ProxyRules::always(proxy),
            Ok(_) => ProxyRules::read(|name| match name {
                "HTTP_PROXY" | "HTTPS_PROXY" => Some(url.to_owned()),
                "NO_PROXY" => Some(self.no_proxy.clone()),
                _ => None,
            }),
        }
    }
}

/// Headers that are not to be set by `http_headers`.
const OWN: &[&str] = &[
    "Authorization",
    "Host",
    "Content-Encoding",
    "Content-Length",
    "Content-Type",
    "User-Agent",
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Www-Authenticate",
    "Accept",
    "Accept-Encoding",
    "X-Prometheus-Scrape-Timeout-Seconds",
    "Te",
    "Transfer-Encoding",
    "Upgrade",
];
