//! Lets in whoever has a name and a password, and shows both when sending.
//!
//! ```yaml
//! extensions:
//!   basic_auth/server:
//!     htpasswd:
//!       file: /etc/weir/htpasswd      # lines of name:hash; bcrypt, apr1, {SHA}, or the password itself
//!       inline: |
//!         ada:$2y$05$…
//!   basic_auth/client:
//!     client_auth: { username: ada, password: "${env:PASSWORD}" }
//! ```
//!
//! Full: at most two passwords are hashed at once; bcrypt is made to be slow, and whoever guesses must not take every core.

mod htpasswd;

use std::{collections::HashSet, fs, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, PROXY_AUTHORIZATION},
};
use parking_lot::Mutex;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::watched::Watched;
use crate::{
    component::{AuthError, BuildContext, ClientAuth, Extension, ExtensionConfig, ServerAuth, Stability},
    config::{self, Diagnostics, Node, Secret, Section},
    runtime::{BuildError, both},
    signal::Context,
};
use htpasswd::Users;

/// Passwords hashed at once.
const CHECKS_MAX: usize = 2;
/// Credentials that are remembered as good.
const REMEMBERED_MAX: usize = 1024;
/// A longer header is no name and password.
const HEADER_BYTES_MAX: usize = 1024;

/// The settings of the extension.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who may come in.
    pub htpasswd: Section<Htpasswd>,
    /// Who we are.
    pub client_auth: Section<ClientCredentials>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Htpasswd {
    pub file: String,
    /// Wins over the file where both have a name.
    pub inline: Secret,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClientCredentials {
    pub username: String,
    pub password: Secret,
    /// Wins over `username`; read again when it changes.
    pub username_file: String,
    /// Wins over `password`; read again when it changes.
    pub password_file: String,
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "basic_auth";
    const ALIASES: &'static [&'static str] = &["basicauth"];
    const STABILITY: Stability = Stability::Beta;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = config::read(node, found);
        match (config.htpasswd.get(), config.client_auth.get()) {
            (None, None) if !found.has_errors() => {
                let help = Some("add `htpasswd` for a server or `client_auth` for a client".to_owned());
                found.error(node.origin, "there are no credentials", help);
            }
            (Some(_), Some(_)) => {
                let help = Some("write two extensions, such as `basic_auth/server` and `basic_auth/client`".to_owned());
                found.error(node.nearest("client_auth").origin, "`htpasswd` and `client_auth` are both set", help);
            }
            (Some(server), None) if server.file.is_empty() && server.inline.expose().is_empty() => {
                let help = Some("add `file` or `inline`".to_owned());
                found.error(node.nearest("htpasswd").origin, "`htpasswd` has no entries", help);
            }
            _ => {}
        }
        config
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        let server = self.htpasswd.get().map(Server::new).transpose()?.map(Arc::new);
        let client = self.client_auth.get().map(Client::new).transpose()?.map(Arc::new);
        Ok(Arc::new(Basic { server, client }))
    }
}

struct Basic {
    server: Option<Arc<Server>>,
    client: Option<Arc<Client>>,
}

impl Extension for Basic {
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        self.server.clone().map(|server| server as Arc<dyn ServerAuth>)
    }
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        self.client.clone().map(|client| client as Arc<dyn ClientAuth>)
    }
}

// === server ===

struct Server {
    users: Arc<Users>,
    /// Of this process only: what is remembered tells nothing to whoever reads the memory of another one.
    key: hmac::Key,
    remembered: Mutex<HashSet<[u8; 32]>>,
    checks: Semaphore,
}

impl Server {
    fn new(settings: &Htpasswd) -> Result<Self, BuildError> {
        let mut users = Users::default();
        if !settings.file.is_empty() {
            let text = fs::read_to_string(&settings.file)
                .map_err(|error| BuildError::setting("htpasswd::file", format!("cannot read {}: {error}", settings.file)))?;
            users.add(&text).map_err(|line| BuildError::setting("htpasswd::file", format!("line {line} is not `name:hash`")))?;
        }
        users
            .add(settings.inline.expose())
            .map_err(|line| BuildError::setting("htpasswd::inline", format!("line {line} is not `name:hash`")))?;
        let mut secret = [0; 32];
        SystemRandom::new().fill(&mut secret).map_err(|_| BuildError::Other("the system gives no random numbers".into()))?;
        Ok(Self {
            users: Arc::new(users),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            remembered: Mutex::default(),
            checks: Semaphore::new(CHECKS_MAX),
        })
    }

    async fn check(&self, headers: &HeaderMap) -> Result<Vec<(Box<str>, Box<str>)>, AuthError> {
        let refuse = |what: &str| AuthError::Unauthenticated(what.to_owned());
        let shown = headers.get(AUTHORIZATION).ok_or_else(|| refuse("the header `authorization` is missing"))?.as_bytes();
        let encoded = match shown.split_at_checked(6) {
            Some((scheme, encoded)) if scheme.eq_ignore_ascii_case(b"basic ") && shown.len() <= HEADER_BYTES_MAX => encoded,
            _ => return Err(refuse("the header `authorization` is not `Basic …`")),
        };
        let decoded = STANDARD.decode(encoded.trim_ascii()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let decoded = decoded.ok_or_else(|| refuse("the header `authorization` is not base64 of text"))?;
        let (name, password) = decoded.split_once(':').ok_or_else(|| refuse("there is no colon between name and password"))?;
        let known = || Ok(vec![(Box::from("username"), Box::from(name))]);
        let tag = hmac::sign(&self.key, decoded.as_bytes());
        let tag: [u8; 32] = tag.as_ref().try_into().map_err(|_| refuse("the name or the password is wrong"))?;
        if self.remembered.lock().contains(&tag) {
            return known();
        }
        let permit = self.checks.acquire().await.map_err(|_| AuthError::Unavailable("stopping".to_owned()))?;
        let (users, owned_name, password) = (self.users.clone(), name.to_owned(), password.to_owned());
        // bcrypt takes many milliseconds.
        let good = tokio::task::spawn_blocking(move || users.verify(&owned_name, &password)).await.unwrap_or(false);
        drop(permit);
        if !good {
            return Err(refuse("the name or the password is wrong"));
        }
        let mut remembered = self.remembered.lock();
        if remembered.len() >= REMEMBERED_MAX {
            remembered.clear();
        }
        remembered.insert(tag);
        known()
    }
}

impl ServerAuth for Server {
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<Vec<(Box<str>, Box<str>)>, AuthError>> {
        Box::pin(self.check(headers))
    }
}

// === client ===

enum Part {
    Written(Secret),
    File(Watched<String>),
}

impl Part {
    fn new(file: &str, written: Secret, key: &str) -> Result<Self, BuildError> {
        if file.is_empty() {
            return Ok(Self::Written(written));
        }
        let watched = Watched::open(file, |text| text.trim().to_owned());
        watched
            .map(Self::File)
            .map_err(|error| BuildError::setting(format!("client_auth::{key}"), format!("cannot read {file}: {error}")))
    }

    fn now(&self) -> String {
        match self {
            Self::Written(secret) => secret.expose().to_owned(),
            Self::File(file) => file.get().as_ref().clone(),
        }
    }
}

struct Client {
    name: Part,
    password: Part,
}

impl Client {
    fn new(settings: &ClientCredentials) -> Result<Self, BuildError> {
        let name = Part::new(&settings.username_file, Secret::new(settings.username.clone()), "username_file");
        let password = Part::new(&settings.password_file, settings.password.clone(), "password_file");
        let (name, password) = both(name, password)?;
        Ok(Self { name, password })
    }
}

impl ClientAuth for Client {
    fn add_headers(&self, _context: &Context, headers: &mut HeaderMap) -> Result<(), AuthError> {
        let text = format!("Basic {}", STANDARD.encode(format!("{}:{}", self.name.now(), self.password.now())));
        let mut value = HeaderValue::from_str(&text).map_err(|error| AuthError::Unavailable(error.to_string()))?;
        value.set_sensitive(true);
        debug_assert!(!headers.contains_key(PROXY_AUTHORIZATION), "an exporter's headers are not a proxy's");
        headers.insert(AUTHORIZATION, value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(inline: &str) -> Server {
        Server::new(&Htpasswd { file: String::new(), inline: Secret::new(inline) }).unwrap()
    }

    fn shown(name: &str, password: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let credentials =
            ClientCredentials { username: name.to_owned(), password: Secret::new(password), ..ClientCredentials::default() };
        Client::new(&credentials).unwrap().add_headers(&Context::default(), &mut headers).unwrap();
        headers
    }

    #[tokio::test]
    async fn lets_in_who_is_in_the_list_and_says_who_it_is() {
        let server = server("ada:secret\nbob:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=");
        assert_eq!(server.check(&shown("ada", "secret")).await, Ok(vec![("username".into(), "ada".into())]));
        assert_eq!(server.check(&shown("bob", "password")).await, Ok(vec![("username".into(), "bob".into())]));
        for (name, password) in [("ada", "Secret"), ("ada", ""), ("eve", "secret"), ("", ""), ("bob", "secret")] {
            assert!(matches!(server.check(&shown(name, password)).await, Err(AuthError::Unauthenticated(_))), "{name}");
        }
    }

    #[tokio::test]
    async fn a_good_password_is_hashed_once() {
        let hash = bcrypt::hash("secret", 4).unwrap();
        let server = server(&format!("ada:{hash}"));
        server.check(&shown("ada", "secret")).await.unwrap();
        // No permit is left: whoever is known needs none, whoever is not waits.
        let _all = server.checks.acquire_many(2).await.unwrap();
        server.check(&shown("ada", "secret")).await.unwrap();
        let guess = shown("ada", "guess");
        assert!(futures_util::poll!(std::pin::pin!(server.check(&guess))).is_pending());
    }

    #[tokio::test]
    async fn refuses_headers_that_are_none() {
        let server = server("ada:secret");
        for text in ["", "Basic", "Basic !!!", "Basic YWRh", "Bearer YWRhOnNlY3JldA==", "basicYWRhOnNlY3JldA=="] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, text.parse().unwrap());
            assert!(server.check(&headers).await.is_err(), "{text}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "basic YWRhOnNlY3JldA==".parse().unwrap());
        assert!(server.check(&headers).await.is_ok());
    }

    #[test]
    fn names_the_line_that_is_no_entry() {
        let error = Server::new(&Htpasswd { file: String::new(), inline: Secret::new("ada:x\n\n# note\nbob") }).err().unwrap();
        assert!(error.to_string().contains("line 4"), "{error}");
    }
}
