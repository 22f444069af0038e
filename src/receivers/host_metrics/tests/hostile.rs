//! Files that no kernel writes, below a root of someone's making: each costs what is in it, and nothing else.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::prelude::*;

use super::{
    super::host::Host,
    Rig,
    fake::{ALL, files, host, write},
};

/// Whose part of the metrics a file is; by the beginnings of their names.
fn of(path: &str) -> &'static [&'static str] {
    match path {
        // Also for how many CPUs there are, and when all began.
        "proc/stat" => &["system.cpu.", "system.processes.", "process.cpu.utilization"],
        "proc/cpuinfo" => &["system.cpu.frequency", "system.cpu.physical"],
        "proc/meminfo" => &["system.memory.", "system.linux.memory.", "process.memory.utilization"],
        "proc/loadavg" => &["system.cpu.load_average"],
        "proc/diskstats" => &["system.disk."],
        "proc/1/mountinfo" => &["system.filesystem."],
        "proc/1/net/dev" | "proc/1/net/tcp" => &["system.network."],
        "proc/vmstat" | "proc/swaps" => &["system.paging."],
        "proc/uptime" => &["system.uptime"],
        path if path.starts_with("proc/sys") => &["system.network.conntrack"],
        path if path.starts_with("proc/4242") => &["process.", "system.processes."],
        "proc/self/cgroup" => &["container."],
        path if path.starts_with("sys/fs/cgroup") => &["container."],
        "etc/passwd" => &[],
        path => panic!("{path}"),
    }
}

fn rig(root: &Path) -> Rig {
    Rig::new(ALL, Host::whole(root))
}

/// Breaks one file at a time and looks whether everything else is told of as before.
#[track_caller]
fn each_file(name: &str, break_it: impl Fn(&Path, &str)) {
    let root = host();
    let whole: BTreeSet<String> = rig(root.path()).collect().points.into_keys().map(|series| series.name).collect();
    for (path, content) in files() {
        let file = root.path().join(path);
        fs::remove_file(&file).unwrap();
        break_it(&file, path);
        let mut rig = rig(root.path());
        rig.collect();
        let told: BTreeSet<String> = rig.collect().points.into_keys().map(|series| series.name).collect();
        let lost: Vec<&String> =
            whole.difference(&told).filter(|metric| !of(path).iter().any(|part| metric.starts_with(part))).collect();
        assert!(lost.is_empty(), "{path} {name}: also lost are {lost:?}");
        drop(fs::remove_dir(&file).or_else(|_| fs::remove_file(&file)));
        write(root.path(), path, content.as_bytes());
    }
}

#[test]
fn a_missing_file_costs_what_is_in_it() {
    each_file("is missing", |_, _| {});
}

#[test]
fn an_empty_file_costs_what_is_in_it() {
    each_file("is empty", |file, _| fs::write(file, "").unwrap());
}

#[test]
fn a_directory_in_its_place_costs_what_is_in_it() {
    each_file("is a directory", |file, _| fs::create_dir(file).unwrap());
}

#[test]
fn a_pipe_in_its_place_makes_nobody_wait() {
    each_file("is a pipe", |file, _| {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, file, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    });
}

#[test]
fn a_huge_file_is_not_read_to_its_end() {
    each_file("is huge", |file, _| fs::File::create(file).unwrap().set_len(1 << 40).unwrap());
}

#[test]
fn garbage_costs_what_is_in_it() {
    for garbage in [
        &b"\xff\xfe\x00\x01\x80"[..],
        b"\n\n\n",
        b"(",
        b")",
        b"1 (",
        b"1 ()",
        b"1 ()\n",
        b"\xc3\xa9 99999999999999999999999999 kB\n",
        b"MemTotal: 18446744073709551615 kB\n",
        "a\u{e9} 1\n\u{e9} 2\n".as_bytes(),
        b"x: : :\n:\n::::\n",
    ] {
        each_file(&format!("is {garbage:?}"), |file, _| fs::write(file, garbage).unwrap());
    }
}

#[test]
fn a_file_cut_off_anywhere_costs_what_is_in_it() {
    for (path, content) in files() {
        let root = host();
        let mut rig = rig(root.path());
        for end in (0..content.len()).step_by(3) {
            write(root.path(), path, &content.as_bytes()[..end]);
            let told = rig.collect();
            assert!(told.point("system.uptime", "").is_some() || path == "proc/uptime", "{path} cut off at {end}");
        }
    }
}

#[test]
fn who_is_gone_is_counted_and_the_rest_is_told_of() {
    let root = host();
    // It ended between the list and the look, and one that may not be looked into: a directory where a file should be cannot be read.
    fs::create_dir_all(root.path().join("proc/77")).unwrap();
    fs::create_dir_all(root.path().join("proc/78/stat")).unwrap();
    let mut rig = Rig::new("scrapers: {process: , processes: }", Host::whole(root.path()));
    let told = rig.collect();
    assert!(told.point("process.memory.usage", "").is_some());
    // 1, 77 and 78 have no stat; nothing of 4242 is missing.
    assert_eq!(rig.errored("process"), 3.0);
    assert_eq!(told.value("system.processes.count", "status=sleeping"), 1.0);
}

#[test]
fn what_may_not_be_read_of_a_process_costs_only_that() {
    let root = host();
    for denied in ["io", "exe", "cgroup"] {
        fs::remove_file(root.path().join("proc/4242").join(denied)).unwrap();
        fs::create_dir(root.path().join("proc/4242").join(denied)).unwrap();
    }
    let told = rig(root.path()).collect();
    assert_eq!(told.point("process.disk.io", "direction=read"), None);
    let process = told.points.keys().find(|series| series.name == "process.cpu.time").unwrap();
    assert!(process.resource.starts_with("process.pid=4242,process.parent_pid=1,process.executable.name="), "{process:?}");
    assert!(!process.resource.contains("executable.path"), "{process:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any byte of any file may be another.
    #[test]
    fn no_bytes_make_it_panic(seed in any::<u64>()) {
        let mut random = seed;
        let mut next = move |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % below
        };
        let root = host();
        for (path, content) in files() {
            let mut bytes = content.into_bytes();
            for _ in 0..4 {
                let at = next(bytes.len());
                bytes[at] = [b'\n', b' ', b':', b'-', b'9', b'(', 0, 0xff, 0xc3][next(9)];
            }
            write(root.path(), path, &bytes);
        }
        rig(root.path()).collect();
    }
}
