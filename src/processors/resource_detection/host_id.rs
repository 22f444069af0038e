//! `host_id`: the id that the machine was given when it was installed.
//!
//! Spec: semantic conventions, `host.id` for machines outside of clouds.

use std::{fs, path::Path};

use super::detected::Detected;

pub(super) const ATTRIBUTES: &[(&str, bool)] = &[("host.id", true)];

const FILES: [&str; 2] = ["etc/machine-id", "var/lib/dbus/machine-id"];
/// Thirty-two digits and a line end; of a file that is longer, this much is looked at.
const BYTES_MAX: usize = 256;

pub(super) fn detect(root: &Path, wanted: &[&str], found: &mut Detected) -> Result<(), String> {
    if wanted.contains(&"host.id") {
        found.text("host.id", &machine_id(root)?);
    }
    Ok(())
}

pub(super) fn machine_id(root: &Path) -> Result<String, String> {
    let read = |path: &&str| {
        let text = super::container::beginning(&root.join(path), BYTES_MAX).ok()?;
        let id = text.trim();
        (!id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')).then(|| id.to_owned())
    };
    let missing = || {
        let exists = FILES.iter().any(|path| fs::metadata(root.join(path)).is_ok());
        if exists { "the machine id is empty or cannot be read" } else { "there is no /etc/machine-id" }.to_owned()
    };
    FILES.iter().find_map(read).ok_or_else(missing)
}
