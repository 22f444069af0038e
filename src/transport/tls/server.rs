//! The server half of TLS: our certificate, and whose certificates we ask for (mTLS).
//!
//! Certificate, key and client authorities are read when a listener is bound, so that a wrong path stops the start, and read again at a
//! handshake when a file has changed; a file that cannot be read or does not fit then leaves the old ones in use and says so.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::{
    config::{Diagnostics, GoDuration, Node, Secret, StringList},
    runtime::{BuildError, both},
};

/// Files are looked at again no more often than this where `reload_interval` is not written.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The Collector's server TLS block.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsServerSettings {
    /// Authorities; on a server the Collector reads them and does not use them, `client_ca_file` decides who may come in.
    pub ca_file: String,
    pub ca_pem: Secret,
    pub include_system_ca_certs_pool: bool,
    /// Our certificate, with the chain behind it.
    pub cert_file: String,
    pub cert_pem: Secret,
    pub key_file: String,
    pub key_pem: Secret,
    /// "1.2" (default) or "1.3".
    pub min_version: String,
    /// "1.2" or "1.3"; the latest by default.
    pub max_version: String,
    pub cipher_suites: StringList,
    pub include_insecure_cipher_suites: bool,
    pub curve_preferences: StringList,
    /// How often files may be looked at again, at most. Not written: 30 s. 0: never, as in the Collector.
    pub reload_interval: Option<GoDuration>,
    /// Whoever connects has to show a certificate of one of these authorities (mTLS).
    pub client_ca_file: String,
    /// Reads `client_ca_file` again when it changes. Not written, it is read again together with the certificate.
    pub client_ca_file_reload: Option<bool>,
    pub tpm: Tpm,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tpm {
    pub enabled: bool,
    pub path: String,
    pub owner_auth: Secret,
    pub auth: Secret,
}

impl TlsServerSettings {
    /// Says what cannot work and what has no effect; `node` is the `tls` block.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.nearest(key).origin;
        for (file, pem, name) in [
            (&self.ca_file, &self.ca_pem, "ca"),
            (&self.cert_file, &self.cert_pem, "cert"),
            (&self.key_file, &self.key_pem, "key"),
        ] {
            if !file.is_empty() && !pem.expose().is_empty() {
                let help = Some(format!("keep one of `{name}_file` and `{name}_pem`"));
                found.error(at(&format!("{name}_pem")), format!("`{name}_file` and `{name}_pem` are both set"), help);
            }
        }
        if self.cert_file.is_empty() && self.cert_pem.expose().is_empty() {
            found.error(node.origin, "a TLS server needs a certificate", Some("add `cert_file` (or `cert_pem`)".to_owned()));
        }
        if self.key_file.is_empty() && self.key_pem.expose().is_empty() {
            found.error(
                node.origin,
                "a TLS server needs the key of its certificate",
                Some("add `key_file` (or `key_pem`)".to_owned()),
            );
        }
        if self.tpm.enabled {
            found.error(at("tpm"), "weir cannot use keys in a TPM", Some("give the key as `key_file`".to_owned()));
        }
        if let Err(BuildError::Setting { path, message, .. }) = versions(&self.min_version, &self.max_version) {
            found.error(at(&path), message, Some("use \"1.2\" or \"1.3\"".to_owned()));
        }
        if !self.cipher_suites.0.is_empty() || self.include_insecure_cipher_suites {
            found.ineffective(
                at("cipher_suites"),
                "the choice of cipher suites has no effect",
                "only suites without known weakness are offered",
            );
        }
        if !self.curve_preferences.0.is_empty() {
            found.ineffective(
                at("curve_preferences"),
                "`curve_preferences` has no effect",
                "X25519, P-256 and P-384 are offered",
            );
        }
        if (!self.ca_file.is_empty() || !self.ca_pem.expose().is_empty()) && self.client_ca_file.is_empty() {
            found.ineffective(
                at("ca_file"),
                "`ca_file` has no effect on a server",
                "to ask clients for certificates, name `client_ca_file`",
            );
        }
    }
}

fn versions(min: &str, max: &str) -> Result<Vec<&'static SupportedProtocolVersion>, BuildError> {
    let number = |key: &str, text: &str, default: u8| match text {
        "" => Ok(default),
        // Older versions are not spoken; what a file allows beyond them is served.
        "1.0" | "1.1" if key == "min_version" => Ok(2),
        "1.2" => Ok(2),
        "1.3" => Ok(3),
        other => Err(BuildError::setting(key, format!("`{other}` is not a TLS version weir speaks"))),
    };
    let (min, max) = (number("min_version", min, 2)?, number("max_version", max, 3)?);
    let chosen: Vec<_> =
        [(2, &TLS12), (3, &TLS13)].into_iter().filter(|(v, _)| (min..=max).contains(v)).map(|(_, v)| v).collect();
    if chosen.is_empty() {
        return Err(BuildError::setting("min_version", "`min_version` is above `max_version`"));
    }
    Ok(chosen)
}

/// Certificates in use by one listener.
pub(in crate::transport) struct ServerTls {
    settings: TlsServerSettings,
    /// The key in the configuration, for messages.
    key: String,
    current: ArcSwap<ServerConfig>,
    reload: Option<(Duration, Mutex<Looked>)>,
}

struct Looked {
    at: Instant,
    stamps: Vec<(PathBuf, Option<(SystemTime, u64)>)>,
}

impl ServerTls {
    pub(in crate::transport) fn load(settings: &TlsServerSettings, key: &str) -> Result<Self, BuildError> {
        let current = config(settings).map_err(|error| error.under(key))?;
        let interval = settings.reload_interval.map_or(LOOK_AGAIN_AFTER, |written| written.0);
        let files: Vec<PathBuf> = [
            (&settings.cert_file, true),
            (&settings.key_file, true),
            (&settings.client_ca_file, settings.client_ca_file_reload.unwrap_or(true)),
        ]
        .into_iter()
        .filter(|(path, reload)| *reload && !path.is_empty())
        .map(|(path, _)| PathBuf::from(path))
        .collect();
        let reload = (!interval.is_zero() && !files.is_empty())
            .then(|| (interval, Mutex::new(Looked { at: Instant::now(), stamps: files.into_iter().map(stamped).collect() })));
        Ok(Self { settings: settings.clone(), key: key.to_owned(), current: ArcSwap::from_pointee(current), reload })
    }

    /// What the next handshake uses. Looks at the files first, where it is time to.
    pub(in crate::transport) fn for_handshake(&self) -> Arc<ServerConfig> {
        if let Some((interval, looked)) = &self.reload
            // Whoever finds another handshake looking takes what is there.
            && let Some(mut looked) = looked.try_lock()
            && looked.at.elapsed() >= *interval
        {
            looked.at = Instant::now();
            let stamps: Vec<_> = looked.stamps.iter().map(|(path, _)| stamped(path.clone())).collect();
            if stamps != looked.stamps {
                match config(&self.settings) {
                    Ok(fresh) => {
                        self.current.store(Arc::new(fresh));
                        looked.stamps = stamps;
                        tracing::info!(listener = self.key, "certificate files changed, the new ones are in use");
                    }
                    // Certificate and key are two files: until both are there the old pair serves, and the next look tries again.
                    Err(error) => {
                        tracing::warn!(listener = self.key, %error, "certificate files changed and cannot be used, the old ones stay");
                    }
                }
            }
        }
        self.current.load_full()
    }
}

fn stamped(path: PathBuf) -> (PathBuf, Option<(SystemTime, u64)>) {
    let stamp = fs::metadata(&path).ok().and_then(|meta| Some((meta.modified().ok()?, meta.len())));
    (path, stamp)
}

/// What the files hold. Everything that is wrong with them is told; paths are those of the server block (`tls::cert_file`).
pub(in crate::transport) fn config(settings: &TlsServerSettings) -> Result<ServerConfig, BuildError> {
    let wrong = |name: &str, problem: String| BuildError::setting(format!("tls::{name}"), problem);
    let read = |file: &str, pem: &Secret, name: &str| -> Result<(Vec<u8>, String), BuildError> {
        if file.is_empty() {
            return Ok((pem.expose().as_bytes().to_vec(), format!("{name}_pem")));
        }
        let bytes = fs::read(Path::new(file));
        let bytes = bytes.map_err(|error| wrong(&format!("{name}_file"), format!("cannot read {file}: {error}")))?;
        Ok((bytes, format!("{name}_file")))
    };
    let certificates = |file: &str, pem: &Secret, name: &str| -> Result<Vec<CertificateDer<'static>>, BuildError> {
        let (bytes, key) = read(file, pem, name)?;
        let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        match list {
            Ok(list) if !list.is_empty() => Ok(list),
            Ok(_) => Err(wrong(&key, "there is no certificate in it".to_owned())),
            Err(error) => Err(wrong(&key, format!("this is not PEM: {error}"))),
        }
    };
    let private = || {
        let (bytes, key) = read(&settings.key_file, &settings.key_pem, "key")?;
        PrivateKeyDer::from_pem_slice(&bytes).map_err(|error| wrong(&key, format!("there is no private key in it: {error}")))
    };
    let authorities = || {
        let mut roots = RootCertStore::empty();
        if settings.client_ca_file.is_empty() {
            return Ok(roots);
        }
        for authority in certificates(&settings.client_ca_file, &Secret::default(), "client_ca")? {
            roots.add(authority).map_err(|error| wrong("client_ca_file", error.to_string()))?;
        }
        Ok(roots)
    };
    let pair = both(certificates(&settings.cert_file, &settings.cert_pem, "cert"), private());
    let ((chain, private), roots) = both(pair, authorities())?;

    let provider = provider();
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions(&settings.min_version, &settings.max_version)?)
        .map_err(|error| wrong("min_version", error.to_string()))?;
    let builder = if settings.client_ca_file.is_empty() {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .map_err(|error| wrong("client_ca_file", error.to_string()))?;
        builder.with_client_cert_verifier(verifier)
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| wrong("key_file", error.to_string()))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn provider() -> Arc<CryptoProvider> {
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(ring::default_provider()))
}
