//! The client half of TLS: whom to trust, and who we are.
//!
//! Certificates and keys are read when the exporter is built, so that a wrong path stops the start, and read again when a file has changed by the
//! time of a new connection; a file that cannot be read then leaves the old ones in use.

use std::{
    fmt::Debug,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use parking_lot::Mutex;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, SupportedCipherSuite, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, SupportedKxGroup, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    version::{TLS12, TLS13},
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::config::{Diagnostics, GoDuration, Node, Secret, StringList};

/// Files are looked at again no more often than this where `reload_interval` is not written.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The Collector's client TLS block.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsClientSettings {
    /// Plaintext. A `https://` endpoint has TLS all the same.
    pub insecure: bool,
    /// TLS without looking at the certificate: encrypted, but to anyone.
    pub insecure_skip_verify: bool,
    /// The name the certificate has to be for, and the SNI; the endpoint's host by default.
    pub server_name_override: String,
    /// Certificates to trust instead of the system's.
    pub ca_file: String,
    pub ca_pem: Secret,
    /// Trust the system's certificates beside `ca_file`.
    pub include_system_ca_certs_pool: bool,
    /// Our certificate, for servers that ask (mTLS).
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
    /// How often files may be looked at again, at most.
    pub reload_interval: GoDuration,
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

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{key}: cannot read {path}")]
    Read { key: &'static str, path: String, source: io::Error },
    #[error("{key}: {problem}")]
    Content { key: &'static str, problem: String },
    #[error("no trusted certificates were found on this system; set SSL_CERT_FILE or `ca_file`")]
    NoRoots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

impl TlsClientSettings {
    /// Says what cannot work; `node` is the `tls` block.
    pub fn check(&self, node: &Node, found: &mut Diagnostics) {
        let at = |key: &str| node.get(key).map_or(node.origin, |node| node.origin);
        for (file, pem, name) in [
            (&self.ca_file, &self.ca_pem, "ca"),
            (&self.cert_file, &self.cert_pem, "cert"),
            (&self.key_file, &self.key_pem, "key"),
        ] {
            if !file.is_empty() && !pem.expose().is_empty() {
                found.error(
                    at(&format!("{name}_pem")),
                    format!("`{name}_file` and `{name}_pem` are both set"),
                    Some(format!("keep one of `{name}_file` and `{name}_pem`")),
                );
            }
        }
        let cert = !self.cert_file.is_empty() || !self.cert_pem.expose().is_empty();
        let key = !self.key_file.is_empty() || !self.key_pem.expose().is_empty();
        if cert && !key && !self.tpm.enabled {
            found.error(at("cert_file"), "a certificate is set without its key", Some("add `key_file` or `key_pem`".to_owned()));
        }
        if key && !cert {
            found.error(at("key_file"), "a key is set without its certificate", Some("add `cert_file` or `cert_pem`".to_owned()));
        }
        if self.tpm.enabled {
            found.error(at("tpm"), "weir cannot use keys in a TPM", Some("give the key as `key_file`".to_owned()));
        }
        for (key, version) in [("min_version", &self.min_version), ("max_version", &self.max_version)] {
            match version.as_str() {
                "" | "1.2" | "1.3" => {}
                "1.0" | "1.1" if key == "min_version" => {
                    found.ineffective(
                        at(key),
                        format!("TLS {version} is not spoken by weir"),
                        "TLS 1.2 is the oldest version offered",
                    );
                }
                _ => found.error(
                    at(key),
                    format!("`{version}` is not a TLS version weir speaks"),
                    Some("use \"1.2\" or \"1.3\"".to_owned()),
                ),
            }
        }
        if self.min_version == "1.3" && self.max_version == "1.2" {
            found.error(at("max_version"), "`max_version` is below `min_version`", None);
        }
        for name in &self.cipher_suites.0 {
            if suite(name).is_none() {
                found.error(at("cipher_suites"), format!("weir does not have the cipher suite `{name}`"), Some(suites_offered()));
            }
        }
        for name in &self.curve_preferences.0 {
            if matches!(name.as_str(), "P521" | "X25519MLKEM768" | "SecP256r1MLKEM768" | "SecP384r1MLKEM1024") {
                found.ineffective(
                    at("curve_preferences"),
                    format!("weir does not have the curve {name}"),
                    "the other curves are offered",
                );
            } else if group(name).is_none() {
                found.error(
                    at("curve_preferences"),
                    format!("`{name}` is not a curve"),
                    Some("use X25519, P256 or P384".to_owned()),
                );
            }
        }
        if self.insecure_skip_verify && !self.insecure {
            found.warning(
                at("insecure_skip_verify"),
                "certificates are not checked: whoever answers at the address gets the data",
                Some("set `ca_file` to the backend's certificate authority instead".to_owned()),
            );
        }
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        [&self.ca_file, &self.cert_file, &self.key_file].into_iter().map(String::as_str).filter(|path| !path.is_empty())
    }

    /// The state of the files: reading again is worth it only when this differs.
    fn stamps(&self) -> Vec<Option<(SystemTime, u64)>> {
        self.files().map(|path| fs::metadata(path).and_then(|meta| Ok((meta.modified()?, meta.len()))).ok()).collect()
    }

    fn load(&self, alpn: &[&[u8]]) -> Result<ClientConfig, TlsError> {
        let mut provider = ring::default_provider();
        if !self.cipher_suites.0.is_empty() {
            // As in Go, the list is about TLS 1.2; those of 1.3 are all good.
            provider.cipher_suites.retain(|known| {
                known.version() == &TLS13
                    || self.cipher_suites.0.iter().any(|name| suite(name).is_some_and(|wanted| wanted == *known))
            });
        }
        let groups: Vec<_> = self.curve_preferences.0.iter().filter_map(|name| group(name)).collect();
        if !groups.is_empty() {
            provider.kx_groups = groups;
        }
        let provider = Arc::new(provider);
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions())?;
        let builder = if self.insecure_skip_verify {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let cert = bytes_of("cert_file", &self.cert_file, &self.cert_pem)?;
        let mut config = match cert {
            None => builder.with_no_client_auth(),
            Some(cert) => {
                let chain = certificates("cert_file", &cert)?;
                let key = bytes_of("key_file", &self.key_file, &self.key_pem)?
                    .ok_or(TlsError::Content { key: "key_file", problem: "the certificate needs its key".to_owned() })?;
                let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| TlsError::Content {
                    key: "key_file",
                    problem: format!("no private key in PEM form: {error}"),
                })?;
                builder.with_client_auth_cert(chain, key)?
            }
        };
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(config)
    }

    fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
        static OLDER: &[&SupportedProtocolVersion] = &[&TLS12];
        static BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
        match (self.min_version.as_str(), self.max_version.as_str()) {
            ("1.3", _) => NEWEST,
            (_, "1.2") => OLDER,
            _ => BOTH,
        }
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        let own = bytes_of("ca_file", &self.ca_file, &self.ca_pem)?;
        if let Some(pem) = &own {
            for certificate in certificates("ca_file", pem)? {
                roots.add(certificate).map_err(|error| TlsError::Content { key: "ca_file", problem: error.to_string() })?;
            }
        }
        if own.is_none() || self.include_system_ca_certs_pool {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                return Err(TlsError::NoRoots);
            }
        }
        Ok(roots)
    }
}

fn bytes_of(key: &'static str, file: &str, pem: &Secret) -> Result<Option<Vec<u8>>, TlsError> {
    if !file.is_empty() {
        return fs::read(Path::new(file)).map(Some).map_err(|source| TlsError::Read { key, path: file.to_owned(), source });
    }
    Ok((!pem.expose().is_empty()).then(|| pem.expose().as_bytes().to_vec()))
}

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| TlsError::Content { key, problem: format!("not in PEM form: {error}") })?;
    if found.is_empty() {
        return Err(TlsError::Content { key, problem: "no certificate in PEM form".to_owned() });
    }
    Ok(found)
}

fn suite(name: &str) -> Option<SupportedCipherSuite> {
    // Go writes TLS_AES_128_GCM_SHA256 where rustls writes TLS13_AES_128_GCM_SHA256.
    let shown = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite()).replace("TLS13_", "TLS_");
    ring::ALL_CIPHER_SUITES.iter().copied().find(|known| shown(known) == name)
}

fn suites_offered() -> String {
    let names: Vec<_> = ring::ALL_CIPHER_SUITES
        .iter()
        .filter(|suite| suite.version() == &TLS12)
        .map(|suite| format!("{:?}", suite.suite()))
        .collect();
    format!("weir has {}", names.join(", "))
}

fn group(name: &str) -> Option<&'static dyn SupportedKxGroup> {
    match name {
        "X25519" => Some(ring::kx_group::X25519),
        "P256" => Some(ring::kx_group::SECP256R1),
        "P384" => Some(ring::kx_group::SECP384R1),
        _ => None,
    }
}

/// A TLS client whose certificates follow their files.
pub struct TlsClient {
    settings: TlsClientSettings,
    alpn: &'static [&'static [u8]],
    loaded: Mutex<Loaded>,
}

struct Loaded {
    config: Arc<ClientConfig>,
    stamps: Vec<Option<(SystemTime, u64)>>,
    looked: Instant,
}

impl TlsClient {
    /// Reads the files. `alpn`: the protocols offered, best first.
    pub fn new(settings: TlsClientSettings, alpn: &'static [&'static [u8]]) -> Result<Self, TlsError> {
        // Stamps first: a file that changes while it is read is read again.
        let stamps = settings.stamps();
        let config = Arc::new(settings.load(alpn)?);
        Ok(Self { settings, alpn, loaded: Mutex::new(Loaded { config, stamps, looked: Instant::now() }) })
    }

    /// The configuration for one more connection, with files that have changed read again.
    pub fn config(&self) -> Arc<ClientConfig> {
        let interval = Some(self.settings.reload_interval.0).filter(|interval| !interval.is_zero()).unwrap_or(LOOK_AGAIN_AFTER);
        let mut loaded = self.loaded.lock();
        if loaded.looked.elapsed() < interval || self.settings.files().next().is_none() {
            return loaded.config.clone();
        }
        loaded.looked = Instant::now();
        let stamps = self.settings.stamps();
        if stamps != loaded.stamps {
            match self.settings.load(self.alpn) {
                Ok(config) => {
                    loaded.config = Arc::new(config);
                    loaded.stamps = stamps;
                }
                Err(error) => tracing::warn!(%error, "certificates have changed but cannot be read, the old ones stay in use"),
            }
        }
        loaded.config.clone()
    }

    /// The name to ask for and to check, given the endpoint's host.
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = if self.settings.server_name_override.is_empty() { host } else { &self.settings.server_name_override };
        ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Content {
            key: "server_name_override",
            problem: format!("`{name}` is not a name a certificate can have"),
        })
    }
}

/// Takes any certificate (`insecure_skip_verify`), but still checks that the peer holds its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
