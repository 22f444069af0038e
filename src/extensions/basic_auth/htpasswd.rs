//! `htpasswd` files: names and hashed passwords.
//!
//! Spec: Apache httpd, "Password Formats".

use std::collections::HashMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use crate::extensions::watched::same;

/// Names and hashes.
#[derive(Default)]
pub(super) struct Users(HashMap<String, String>);

impl Users {
    /// Adds the lines of a file; later ones win. The number of the first line that is no entry otherwise.
    pub(super) fn add(&mut self, text: &str) -> Result<(), usize> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, hash) = line.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or(number + 1)?;
            self.0.insert(name.to_owned(), hash.to_owned());
        }
        Ok(())
    }

    /// Takes as long as the kind of hash takes.
    pub(super) fn verify(&self, name: &str, password: &str) -> bool {
        self.0.get(name).is_some_and(|hash| fits(password, hash))
    }
}

fn fits(password: &str, hash: &str) -> bool {
    if ["$2a$", "$2b$", "$2x$", "$2y$"].iter().any(|kind| hash.starts_with(kind)) {
        return bcrypt::verify(password, hash).unwrap_or(false);
    }
    if let Some(encoded) = hash.strip_prefix("{SHA}") {
        let own = STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes()));
        return same(own.as_bytes(), encoded.as_bytes());
    }
    for magic in ["$apr1$", "$1$"] {
        if let Some(rest) = hash.strip_prefix(magic) {
            let Some((salt, encoded)) = rest.split_once('$') else { return false };
            return same(md5_crypt(password.as_bytes(), salt.as_bytes(), magic.as_bytes()).as_bytes(), encoded.as_bytes());
        }
    }
    same(password.as_bytes(), hash.as_bytes())
}

/// The thousand rounds of MD5 that Apache took over from FreeBSD.
fn md5_crypt(password: &[u8], salt: &[u8], magic: &[u8]) -> String {
    let salt = salt.get(..8).unwrap_or(salt);
    let inner: [u8; 16] = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize().into();
    let mut first = Md5::new().chain_update(password).chain_update(magic).chain_update(salt);
    for at in (0..password.len()).step_by(16) {
        first.update(inner.get(..(password.len() - at).min(16)).unwrap_or_default());
    }
    let mut bits = password.len();
    while bits > 0 {
        if bits & 1 == 1 {
            first.update([0]);
        } else {
            first.update(password.get(..1).unwrap_or_default());
        }
        bits >>= 1;
    }
    let mut sum: [u8; 16] = first.finalize().into();
    for round in 0..1000 {
        let mut next = Md5::new();
        next.update(if round % 2 == 1 { password } else { &sum });
        if round % 3 != 0 {
            next.update(salt);
        }
        if round % 7 != 0 {
            next.update(password);
        }
        next.update(if round % 2 == 1 { &sum } else { password });
        sum = next.finalize().into();
    }
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15] = sum;
    let mut out = String::with_capacity(22);
    for [a, b, c] in [[s0, s6, s12], [s1, s7, s13], [s2, s8, s14], [s3, s9, s15], [s4, s10, s5]] {
        push_digits(&mut out, u32::from(a) << 16 | u32::from(b) << 8 | u32::from(c), 4);
    }
    push_digits(&mut out, u32::from(s11), 2);
    out
}

/// The lowest `count` groups of six bits, lowest first.
fn push_digits(out: &mut String, mut bits: u32, count: usize) {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        out.push(char::from(DIGITS[(bits & 63) as usize]));
        bits >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_kind_of_hash() {
        // Those of MD5 were made with `openssl passwd`.
        for (password, hash) in [
            ("password", "$apr1$r31.....$ARC3pREO82RIm0aQ2zszC0"),
            ("a much longer password than sixteen", "$1$abc$EDAIEjf1pCmVPLCFnS35z0"),
            ("myPassword", "$apr1$qHDFfhPC$nITSVHgYbDAK1Y0acGRnY0"),
            ("password", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g="),
            ("password", "password"),
        ] {
            let ok = fits(password, hash);
            assert!(ok, "{hash}");
            assert!(!fits("passwort", hash), "{hash}");
        }
        let hash = bcrypt::hash("password", 4).unwrap();
        assert!(fits("password", &hash));
        assert!(!fits("Password", &hash));
        assert!(!fits("password", "$2y$05$short"));
    }
}
