//! File systems: which are mounted, from `/proc/1/mountinfo`, and how full each is.
//!
//! A device is told of once, where the whole of it is mounted: what is mounted of it elsewhere (binds, which a container is full of) has the
//! same numbers.

use std::path::{Path, PathBuf};

use procfs_core::process::MountInfo;

use super::{
    asking::{Asking, Space},
    filter::Filter,
    host::{Fault, Host},
    metric::{Edition, Key, Kind, Metric, Value, key, metric, same},
    round::{Part, Scraper},
    sheet::{Chosen, Points},
};

const DEVICE: Key = key("device", "system.device");
const MODE: Key = key("mode", "system.filesystem.mode");
const MOUNT_POINT: Key = key("mountpoint", "system.filesystem.mountpoint");
const TYPE: Key = key("type", "system.filesystem.type");
const STATE: Key = key("state", "system.filesystem.state");
const OLD: &[Key] = &[same("device"), same("mode"), same("mountpoint"), same("type"), same("state")];

const USAGE: Metric = metric("system.filesystem.usage", "By", Kind::Level, &[DEVICE, MODE, MOUNT_POINT, TYPE, STATE]);
const INODES: Metric = metric("system.filesystem.inodes.usage", "{inodes}", Kind::Level, OLD).old_only();
const UTILIZATION: Metric = metric("system.filesystem.utilization", "1", Kind::Gauge, &[DEVICE, MODE, MOUNT_POINT, TYPE]).off();

pub(super) const METRICS: &[Metric] = &[USAGE, INODES, UTILIZATION];

pub(super) struct FileSystem {
    pub(super) chosen: Chosen,
    pub(super) devices: Filter,
    pub(super) types: Filter,
    pub(super) mount_points: Filter,
    /// Also those that lie on no device.
    pub(super) include_virtual: bool,
    pub(super) asking: Asking,
}

/// A mounted file system, and how full it is.
struct Mounted {
    device: String,
    mode: &'static str,
    mount_point: String,
    kind: String,
    space: Space,
}

impl Mounted {
    fn point(&self, edition: Edition, state: Option<&'static str>, add: impl FnOnce(&[(Key, Value<'_>)])) {
        let key = |at: usize, key: Key| edition.pick(OLD.get(at).copied().unwrap_or(key), key);
        let all = [
            (key(0, DEVICE), Value::Text(&self.device)),
            (key(1, MODE), Value::Text(self.mode)),
            (key(2, MOUNT_POINT), Value::Text(&self.mount_point)),
            (key(3, TYPE), Value::Text(&self.kind)),
            (key(4, STATE), Value::Text(state.unwrap_or_default())),
        ];
        let said = if state.is_some() { all.len() } else { all.len() - 1 };
        add(all.get(..said).unwrap_or_default());
    }
}

impl FileSystem {
    /// What is mounted and asked for, each device once.
    fn mounts(&self, part: &mut Part<'_>) -> Vec<MountInfo> {
        const OF_INIT: &str = "proc/1/mountinfo";
        const OF_US: &str = "proc/self/mountinfo";
        // Only the first process sees the host as it is; not everybody may look there.
        let read =
            part.host.text(OF_INIT).map(|text| (OF_INIT, text)).or_else(|_| part.host.text(OF_US).map(|text| (OF_US, text)));
        let Some((path, text)) = part.read(METRICS.len() as u64, read) else { return Vec::new() };
        let mut mounts: Vec<MountInfo> = Vec::new();
        for line in text.lines() {
            let Ok(mut mount) = MountInfo::from_line(line) else {
                part.missing(METRICS.len() as u64, Fault::garbled(path, "a line is cut off"));
                continue;
            };
            mount.mount_source = mount.mount_source.map(|source| unescaped(&source));
            mount.mount_point = PathBuf::from(unescaped(&mount.mount_point.to_string_lossy()));
            let on_device = mount.mount_source.as_ref().is_some_and(|source| source.starts_with('/'));
            // btrfs mounts parts of itself under names of their own, and nothing as a whole.
            let whole = mount.root == "/" || mount.fs_type == "btrfs" || !on_device;
            if !whole || !(on_device || self.include_virtual) {
                continue;
            }
            let again = |known: &MountInfo| on_device && known.majmin == mount.majmin;
            // What is mounted over something else hides it.
            let hides = |known: &MountInfo| known.mount_point == mount.mount_point;
            let known = mounts.iter().any(again);
            match mounts.iter_mut().find(|known| hides(known)) {
                Some(hidden) => *hidden = mount,
                None if known => {}
                None => mounts.push(mount),
            }
        }
        mounts
    }

    fn asked_for(&self, device: &str, kind: &str, mount_point: &str) -> bool {
        self.devices.takes(device) && self.types.takes(kind) && self.mount_points.takes(mount_point)
    }
}

impl Scraper for FileSystem {
    fn name(&self) -> &'static str {
        "filesystem"
    }

    fn scrape(&mut self, part: &mut Part<'_>) {
        let mut mounted = Vec::new();
        for mount in self.mounts(part) {
            let device = device(part.host, &mount);
            let mount_point = mount.mount_point.to_string_lossy().into_owned();
            if !self.asked_for(&device, &mount.fs_type, &mount_point) {
                continue;
            }
            match self.asking.space(seen_from(part.host.root(), &mount.mount_point)) {
                Ok(space) => mounted.push(Mounted { device, mode: mode(&mount), mount_point, kind: mount.fs_type, space }),
                Err(fault) => part.missing(METRICS.len() as u64, fault),
            }
        }
        part.write(&self.chosen, |metrics| {
            metrics.write(&USAGE, |points: &mut Points<'_>| {
                for one in &mounted {
                    let Space { used, free, reserved, .. } = one.space;
                    for (state, bytes) in [("used", used), ("free", free), ("reserved", reserved)] {
                        one.point(points.edition, Some(state), |attributes| points.int(bytes, attributes));
                    }
                }
            });
            metrics.write(&INODES, |points| {
                for one in &mounted {
                    for (state, inodes) in [("used", one.space.inodes_used), ("free", one.space.inodes_free)] {
                        one.point(points.edition, Some(state), |attributes| points.int(inodes, attributes));
                    }
                }
            });
            metrics.write(&UTILIZATION, |points| {
                for one in &mounted {
                    let share = one.space.used as f64 / one.space.used.saturating_add(one.space.free) as f64;
                    one.point(points.edition, None, |attributes| points.double(share, attributes));
                }
            });
        });
    }
}

/// Where a mount point of the host is, seen from here.
fn seen_from(root: &Path, mount_point: &Path) -> PathBuf {
    // What we see ourselves begins with the root already.
    if root != Path::new("/") && mount_point.starts_with(root) {
        return mount_point.to_owned();
    }
    root.join(mount_point.strip_prefix("/").unwrap_or(mount_point))
}

/// `rw` if it can be written to: the mount and the file system below both say so.
fn mode(mount: &MountInfo) -> &'static str {
    let both = [&mount.mount_options, &mount.super_options];
    if both.iter().any(|options| options.contains_key("ro")) {
        "ro"
    } else if both.iter().any(|options| options.contains_key("rw")) {
        "rw"
    } else {
        "unknown"
    }
}

/// The device's own name, where the mount has another for it.
fn device(host: &Host, mount: &MountInfo) -> String {
    let written = mount.mount_source.clone().unwrap_or_else(|| "none".to_owned());
    if written == "/dev/root" {
        let target = host.link(&format!("sys/dev/block/{}", mount.majmin)).unwrap_or_default();
        if let Some(name) = target.rsplit('/').next().filter(|name| !name.is_empty()) {
            return format!("/dev/{name}");
        }
    }
    if written.starts_with("/dev/mapper/")
        && let Ok(target) = host.link(written.trim_start_matches('/'))
        && let Some(name) = target.strip_prefix("../")
    {
        return format!("/dev/{name}");
    }
    written
}

/// The kernel writes spaces, tabs, line ends and backslashes in octal.
pub(super) fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('\\') {
        out.push_str(before);
        let letter = match behind.get(..3) {
            Some("040") => ' ',
            Some("011") => '\t',
            Some("012") => '\n',
            Some("043") => '#',
            Some("134") => '\\',
            _ => {
                out.push('\\');
                rest = behind;
                continue;
            }
        };
        out.push(letter);
        rest = behind.get(3..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_escapes() {
        assert_eq!(unescaped(r"/mnt/my\040disk\134\011x"), "/mnt/my disk\\\tx");
        assert_eq!(unescaped(r"/a\04\"), r"/a\04\");
        assert_eq!(unescaped("/ü\\04ü"), "/ü\\04ü");
    }

    #[test]
    fn a_mount_point_is_found_below_the_root_once() {
        let seen = |root: &str, point: &str| seen_from(Path::new(root), Path::new(point)).display().to_string();
        assert_eq!(seen("/", "/boot"), "/boot");
        assert_eq!(seen("/hostfs", "/boot"), "/hostfs/boot");
        assert_eq!(seen("/hostfs", "/hostfs/boot"), "/hostfs/boot");
        assert_eq!(seen("/hostfs", "/hostfsother"), "/hostfs/hostfsother");
    }
}
