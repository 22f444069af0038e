//! `container`: the id of the container that weir runs in, from the path of its cgroup, or, with cgroup v2, from what is mounted in it.

use std::{
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use super::detected::Detected;

pub(super) const ATTRIBUTES: &[(&str, bool)] = &[("container.id", true)];

/// Of each file, this much is looked at: mounts can be many.
const BYTES_MAX: usize = 1 << 20;
/// What all runtimes give.
const ID_DIGITS: usize = 64;

/// Outside of a container there is nothing to find, and that is no fault.
pub(super) fn detect(root: &Path, wanted: &[&str], found: &mut Detected) {
    if !wanted.contains(&"container.id") {
        return;
    }
    let read = |path: &str| beginning(&root.join(path), BYTES_MAX).unwrap_or_default();
    let groups = read("proc/self/cgroup");
    let of_group = groups.lines().filter_map(|line| line.rsplit(['/', ':']).next()).find_map(id_of_group);
    if let Some(id) = of_group.or_else(|| of_mounts(&read("proc/self/mountinfo"))) {
        found.text("container.id", &id);
    }
}

/// `<id>`, `docker-<id>.scope`, `cri-containerd-<id>.scope`
fn id_of_group(last: &str) -> Option<String> {
    let last = last.strip_suffix(".scope").unwrap_or(last);
    is_id(last.rsplit('-').next()?).map(str::to_owned)
}

/// A runtime mounts the container's `hostname` from a folder that is called by its id: `…/containers/<id>/hostname`.
fn of_mounts(mounts: &str) -> Option<String> {
    let of_line = |line: &str| {
        let mut fields = line.split(' ').skip(3);
        let (source, target) = (fields.next()?, fields.next()?);
        if target != "/etc/hostname" && target != "/etc/hosts" && target != "/etc/resolv.conf" {
            return None;
        }
        // A pod's sandbox mounts some of them, too, and is not the container.
        let mut parts = source.split('/').rev();
        parts.find_map(is_id).filter(|_| !source.contains("/sandboxes/")).map(str::to_owned)
    };
    mounts.lines().find_map(of_line)
}

fn is_id(text: &str) -> Option<&str> {
    (text.len() == ID_DIGITS && text.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(text)
}

/// The beginning of a file, as text.
pub(super) fn beginning(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
