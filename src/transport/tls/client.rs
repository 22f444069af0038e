//! The client half of TLS: whom to trust, and who we are.
//!
//! Certificates and keys are read when the exporter is built, so that a wrong path stops the start, and read again when a file has changed by the
//! time of a new connection; a file that cannot be read then leaves the old ones in use.

use std::{
    fmt::Debug,
    fs,
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

use crate::{
    config::{Diagnostics, GoDuration, Node, Secret, StringList},
    runtime::{BuildError, both},
};

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

    /// What the files hold. Everything that is wrong with them is told; paths are those of the client block (`tls::ca_file`).
    fn load(&self, alpn: &[&[u8]]) -> Result<ClientConfig, BuildError> {
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
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(self.versions());
        let builder = builder.map_err(|error| wrong("cipher_suites", error.to_string()))?;
        let roots = if self.insecure_skip_verify { Ok(None) } else { self.roots().map(Some) };
        let (roots, own) = both(roots, both(self.chain(), self.key()))?;
        let builder = match roots {
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
            Some(roots) => builder.with_root_certificates(roots),
        };
        let mut config = match own {
            (None, _) => builder.with_no_client_auth(),
            (Some(_), None) => return Err(wrong("cert_file", "the certificate needs its key")),
            (Some(chain), Some(key)) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| wrong("key_file", error.to_string()))?
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

    fn chain(&self) -> Result<Option<Vec<CertificateDer<'static>>>, BuildError> {
        let Some((bytes, key)) = bytes_of("cert", &self.cert_file, &self.cert_pem)? else { return Ok(None) };
        certificates(&key, &bytes).map(Some)
    }

    fn key(&self) -> Result<Option<PrivateKeyDer<'static>>, BuildError> {
        let Some((bytes, key)) = bytes_of("key", &self.key_file, &self.key_pem)? else { return Ok(None) };
        let read = PrivateKeyDer::from_pem_slice(&bytes);
        read.map(Some).map_err(|error| wrong(&key, format!("there is no private key in it: {error}")))
    }

    fn roots(&self) -> Result<RootCertStore, BuildError> {
        let mut roots = RootCertStore::empty();
        let own = bytes_of("ca", &self.ca_file, &self.ca_pem)?;
        if let Some((bytes, key)) = &own {
            for certificate in certificates(key, bytes)? {
                roots.add(certificate).map_err(|error| wrong(key, error.to_string()))?;
            }
        }
        if own.is_none() || self.include_system_ca_certs_pool {
            let system = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(system.certs);
            if roots.is_empty() {
                let message = "no trusted certificates were found on this system";
                return Err(wrong("ca_file", message).helped("set `ca_file`, or the variable SSL_CERT_FILE"));
            }
        }
        Ok(roots)
    }
}

fn wrong(key: &str, problem: impl Into<String>) -> BuildError {
    BuildError::setting(format!("tls::{key}"), problem)
}

/// The bytes of `<name>_file` or `<name>_pem`, and which of the two it was.
fn bytes_of(name: &str, file: &str, pem: &Secret) -> Result<Option<(Vec<u8>, String)>, BuildError> {
    if file.is_empty() {
        return Ok((!pem.expose().is_empty()).then(|| (pem.expose().as_bytes().to_vec(), format!("{name}_pem"))));
    }
    let key = format!("{name}_file");
    match fs::read(Path::new(file)) {
        Ok(bytes) => Ok(Some((bytes, key))),
        Err(error) => Err(wrong(&key, format!("cannot read {file}: {error}"))),
    }
}

fn certificates(key: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BuildError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| wrong(key, format!("this is not PEM: {error}")))?;
    if found.is_empty() { Err(wrong(key, "there is no certificate in it")) } else { Ok(found) }
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
    pub fn new(settings: TlsClientSettings, alpn: &'static [&'static [u8]]) -> Result<Self, BuildError> {
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
    pub fn server_name(&self, host: &str) -> Result<ServerName<'static>, BuildError> {
        let name = if self.settings.server_name_override.is_empty() { host } else { &self.settings.server_name_override };
        let wrong = |_| wrong("server_name_override", format!("`{name}` is not a name a certificate can have"));
        ServerName::try_from(name.to_owned()).map_err(wrong)
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
