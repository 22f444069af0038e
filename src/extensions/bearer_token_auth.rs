//! Lets in whoever shows a token, and shows one when sending.
//!
//! ```yaml
//! extensions:
//!   bearer_token_auth:
//!     scheme: Bearer            # what stands before the token; "" for nothing
//!     token: ${env:TOKEN}       # or `tokens: [a, b]` for a server, or
//!     filename: /run/token      # one token a line, read again when it changes
//!     header: Authorization
//! ```

use std::{str::FromStr, sync::Arc};

use futures_util::future::{BoxFuture, ready};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::watched::{Watched, same};
use crate::{
    component::{AuthError, BuildContext, ClientAuth, Extension, ExtensionConfig, ServerAuth, Stability},
    config::{self, Diagnostics, Node, Secret},
    runtime::BuildError,
    signal::Context,
};

/// The settings of the extension.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stands before the token with a space between; empty for nothing.
    pub scheme: String,
    /// The token to send and to let in.
    pub token: Secret,
    /// Tokens to let in; the first is sent.
    pub tokens: Vec<Secret>,
    /// A file with a token a line, instead of the two above. Read again when it changes.
    pub filename: String,
    /// The header that carries it.
    pub header: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheme: "Bearer".to_owned(),
            token: Secret::default(),
            tokens: Vec::new(),
            filename: String::new(),
            header: "Authorization".to_owned(),
        }
    }
}

impl ExtensionConfig for Config {
    const TYPE: &'static str = "bearer_token_auth";
    const ALIASES: &'static [&'static str] = &["bearertokenauth"];
    const STABILITY: Stability = Stability::Beta;

    fn read(node: &Node, found: &mut Diagnostics) -> Self {
        let config: Self = config::read(node, found);
        let inline = !config.token.expose().is_empty() || !config.tokens.is_empty();
        if config.filename.is_empty() && !inline && !found.has_errors() {
            let help = Some("add `token`, `tokens` or `filename`".to_owned());
            found.error(node.origin, "there is no token", help);
        }
        if !config.filename.is_empty() && inline {
            found.ineffective(
                node.nearest("token").origin,
                "`token` and `tokens` have no effect beside `filename`",
                "the file's tokens are used",
            );
        }
        if HeaderName::from_str(&config.header).is_err() {
            found.error(node.nearest("header").origin, format!("`{}` is not a header name", config.header), None);
        }
        config
    }

    fn build(self, _context: BuildContext) -> Result<Arc<dyn Extension>, BuildError> {
        let header = HeaderName::from_str(&self.header).map_err(|error| BuildError::setting("header", error.to_string()))?;
        let tokens = if self.filename.is_empty() {
            let all = self.tokens.iter().chain(Some(&self.token)).map(|token| token.expose().to_owned());
            Tokens::Written(all.filter(|token| !token.is_empty()).collect())
        } else {
            let watched = Watched::open(&self.filename, lines)
                .map_err(|error| BuildError::setting("filename", format!("cannot read {}: {error}", self.filename)))?;
            Tokens::File(watched)
        };
        Ok(Arc::new(Bearer(Arc::new(Checker { scheme: self.scheme, header, tokens }))))
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

enum Tokens {
    Written(Vec<String>),
    File(Watched<Vec<String>>),
}

impl Tokens {
    fn with<T>(&self, read: impl FnOnce(&[String]) -> T) -> T {
        match self {
            Self::Written(tokens) => read(tokens),
            Self::File(file) => read(&file.get()),
        }
    }
}

struct Bearer(Arc<Checker>);

impl Extension for Bearer {
    fn server_auth(&self) -> Option<Arc<dyn ServerAuth>> {
        Some(self.0.clone())
    }
    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(self.0.clone())
    }
}

struct Checker {
    scheme: String,
    header: HeaderName,
    tokens: Tokens,
}

impl Checker {
    fn check(&self, headers: &HeaderMap) -> Result<(), AuthError> {
        let refuse = |what: String| Err(AuthError::Unauthenticated(what));
        let Some(shown) = headers.get(&self.header) else { return refuse(format!("the header `{}` is missing", self.header)) };
        let shown = shown.as_bytes();
        let token = if self.scheme.is_empty() {
            shown
        } else {
            // Schemes are compared without case (RFC 9110), tokens never.
            match shown.split_at_checked(self.scheme.len()) {
                Some((scheme, [b' ', token @ ..])) if scheme.eq_ignore_ascii_case(self.scheme.as_bytes()) => token,
                _ => return refuse(format!("the header `{}` does not begin with `{} `", self.header, self.scheme)),
            }
        };
        // All are compared, whichever fits.
        let known = self.tokens.with(|all| all.iter().fold(false, |known, own| same(own.as_bytes(), token) | known));
        if known { Ok(()) } else { refuse("the token is not known".to_owned()) }
    }
}

impl ServerAuth for Checker {
    fn authenticate<'a>(&'a self, headers: &'a HeaderMap) -> BoxFuture<'a, Result<Vec<(Box<str>, Box<str>)>, AuthError>> {
        Box::pin(ready(self.check(headers).map(|()| Vec::new())))
    }
}

impl ClientAuth for Checker {
    fn add_headers(&self, _context: &Context, headers: &mut HeaderMap) -> Result<(), AuthError> {
        let token = self
            .tokens
            .with(|all| all.first().cloned())
            .ok_or_else(|| AuthError::Unavailable("there is no token in the file".to_owned()))?;
        let text = if self.scheme.is_empty() { token } else { format!("{} {token}", self.scheme) };
        let mut value =
            HeaderValue::from_str(&text).map_err(|_| AuthError::Unavailable("the token cannot stand in a header".to_owned()))?;
        value.set_sensitive(true);
        headers.insert(self.header.clone(), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    fn checker(config: Config) -> Checker {
        let tokens = if config.filename.is_empty() {
            Tokens::Written(config.tokens.iter().map(|token| token.expose().to_owned()).collect())
        } else {
            Tokens::File(Watched::open(&config.filename, lines).unwrap())
        };
        Checker { scheme: config.scheme, header: HeaderName::from_str(&config.header).unwrap(), tokens }
    }

    #[track_caller]
    fn check(checker: &Checker, header: &str, value: &str, lets_in: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_str(header).unwrap(), value.parse().unwrap());
        assert_eq!(checker.check(&headers).is_ok(), lets_in, "{header}: {value}");
    }

    #[test]
    fn lets_in_whoever_has_one_of_the_tokens() {
        let two = checker(Config { tokens: vec![Secret::new("one"), Secret::new("two")], ..Config::default() });
        for (value, lets_in) in [
            ("Bearer one", true),
            ("bearer two", true),
            ("Bearer One", false),
            ("Bearer ", false),
            ("Bearer one ", false),
            ("Bearerone", false),
            ("one", false),
            ("Basic one", false),
        ] {
            check(&two, "authorization", value, lets_in);
        }
        assert!(two.check(&HeaderMap::new()).is_err());
    }

    #[test]
    fn another_header_and_no_scheme() {
        let key = checker(Config {
            scheme: String::new(),
            header: "X-Api-Key".to_owned(),
            tokens: vec![Secret::new("k")],
            ..Config::default()
        });
        check(&key, "x-api-key", "k", true);
        check(&key, "authorization", "k", false);
    }

    #[tokio::test(start_paused = true)]
    async fn reads_the_file_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "old\n").unwrap();
        let file = checker(Config { filename: path.display().to_string(), ..Config::default() });
        check(&file, "authorization", "Bearer old", true);
        fs::write(&path, "newer\nnewest\n").unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        check(&file, "authorization", "Bearer newest", true);
        check(&file, "authorization", "Bearer old", false);
        let mut headers = HeaderMap::new();
        file.add_headers(&Context::default(), &mut headers).unwrap();
        assert_eq!(headers["authorization"], "Bearer newer");
        assert!(headers["authorization"].is_sensitive());
        fs::remove_file(&path).unwrap();
        tokio::time::advance(Duration::from_secs(2)).await;
        check(&file, "authorization", "Bearer newest", true);
    }
}
