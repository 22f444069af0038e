//! Against `/proc` of the machine that runs the test, read here by other means: what was told must lie between two looks.

use std::fs;

use super::{Rig, Told};

const ALL: &str = "
scrapers:
  cpu: {metrics: {system.cpu.time: {attributes: [cpu, state]}}}
  memory: {metrics: {system.memory.limit: {enabled: true}}}
  load:
  disk:
  filesystem:
  network:
  paging:
  processes:
  process: {include: {match_type: regexp, names: ['^(weir|main)']}, metrics: {process.threads: {enabled: true}}}
  system:
";

fn file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The words of the first line that begins with `head`.
fn line(text: &str, head: &str) -> Vec<f64> {
    let found = text.lines().find(|line| line.split_whitespace().next() == Some(head));
    found.iter().flat_map(|line| line.split_whitespace().skip(1)).map(|word| word.parse().unwrap_or(f64::NAN)).collect()
}

/// Looks at something before and after a collection.
fn between(look: impl Fn() -> Vec<(String, String, f64)>) {
    let before = look();
    let told: Told = Rig::live(ALL).collect();
    for ((name, attributes, low), (_, _, high)) in before.into_iter().zip(look()) {
        let value = told.value(&name, &attributes);
        assert!((low..=high).contains(&value), "{name}{{{attributes}}}: {value} is not within {low} and {high}");
    }
}

#[test]
fn cpu_time_is_that_of_the_kernel() {
    between(|| {
        let stat = file("/proc/stat");
        let ticks = line(&stat, "cpu0");
        let states = [("user", 0), ("nice", 1), ("system", 2), ("interrupt", 5), ("softirq", 6), ("steal", 7)];
        // A hundred ticks a second on every Linux that people run.
        let row =
            |(state, at): (&str, usize)| ("system.cpu.time".to_owned(), format!("cpu=cpu0,state={state}"), ticks[at] / 100.0);
        states.map(row).into()
    });
}

#[test]
fn counts_of_processes_pages_and_time_are_those_of_the_kernel() {
    between(|| {
        let (stat, vmstat, uptime) = (file("/proc/stat"), file("/proc/vmstat"), file("/proc/uptime"));
        let row = |name: &str, attributes: &str, value: f64| (name.to_owned(), attributes.to_owned(), value);
        vec![
            row("system.processes.created", "", line(&stat, "processes")[0]),
            row("system.paging.faults", "type=major", line(&vmstat, "pgmajfault")[0]),
            row("system.paging.operations", "direction=page_in,type=minor", line(&vmstat, "pgpgin")[0]),
            row("system.paging.operations", "direction=page_out,type=minor", line(&vmstat, "pgpgout")[0]),
            row("system.uptime", "", uptime.split(' ').next().unwrap().parse().unwrap()),
        ]
    });
}

#[test]
fn bytes_of_interfaces_and_disks_are_those_of_the_kernel() {
    between(|| {
        let mut rows = Vec::new();
        for interface in fs::read_dir("/sys/class/net").unwrap().flatten() {
            let name = interface.file_name().into_string().unwrap();
            for (direction, of) in [("receive", "rx"), ("transmit", "tx")] {
                for (metric, counter) in [("io", "bytes"), ("packets", "packets"), ("errors", "errors"), ("dropped", "dropped")] {
                    // What is in front of the interface drops, too, which `/proc/net/dev` adds.
                    let drops = if counter == "dropped" && of == "rx" {
                        file(&format!("/sys/class/net/{name}/statistics/rx_missed_errors"))
                    } else {
                        String::new()
                    };
                    let count: f64 = file(&format!("/sys/class/net/{name}/statistics/{of}_{counter}")).trim().parse().unwrap();
                    let count = count + drops.trim().parse::<f64>().unwrap_or(0.0);
                    rows.push((format!("system.network.{metric}"), format!("device={name},direction={direction}"), count));
                }
            }
        }
        for disk in fs::read_dir("/sys/block").unwrap().flatten() {
            let name = disk.file_name().into_string().unwrap();
            let stat: Vec<f64> =
                file(&format!("/sys/block/{name}/stat")).split_whitespace().map(|word| word.parse().unwrap()).collect();
            if stat[0] + stat[4] > 0.0 {
                for (direction, at) in [("read", 0), ("write", 4)] {
                    let attributes = format!("device={name},direction={direction}");
                    rows.push(("system.disk.operations".to_owned(), attributes.clone(), stat[at]));
                    rows.push(("system.disk.merged".to_owned(), attributes.clone(), stat[at + 1]));
                    rows.push(("system.disk.io".to_owned(), attributes.clone(), stat[at + 2] * 512.0));
                    rows.push(("system.disk.operation_time".to_owned(), attributes, stat[at + 3] / 1e3));
                }
            }
        }
        assert!(!rows.is_empty());
        rows
    });
}

#[test]
fn memory_is_what_the_machine_has() {
    let told = Rig::live(ALL).collect();
    let mut system = sysinfo::System::new().unwrap();
    system.refresh_memory();
    assert_eq!(told.value("system.memory.limit", ""), system.total_memory() as f64);
    let states = ["used", "free", "buffered", "cached"].map(|state| told.value("system.memory.usage", &format!("state={state}")));
    assert!(states.iter().all(|bytes| *bytes >= 0.0 && *bytes <= system.total_memory() as f64), "{states:?}");
}

#[test]
fn this_process_is_among_the_processes() {
    let told =
        Rig::live("scrapers: {process: {mute_process_all_errors: true, metrics: {process.threads: {enabled: true}}}}").collect();
    let pid = std::process::id();
    let ours: Vec<_> =
        told.points.iter().filter(|(series, _)| series.resource.starts_with(&format!("process.pid={pid},"))).collect();
    let value = |name: &str, attributes: &str| {
        ours.iter()
            .find(|(series, _)| series.name == name && series.attributes == attributes)
            .map(|(_, point)| point.value)
            .unwrap()
    };
    // Four pages are less than any process has, and what it has stays below what the machine has.
    assert!(value("process.memory.usage", "") > 16_384.0);
    assert!(value("process.threads", "") >= 1.0);
    assert!(value("process.cpu.time", "state=user") >= 0.0);
    let exe = fs::read_link("/proc/self/exe").unwrap();
    assert!(ours[0].0.resource.contains(&format!("process.executable.path={}", exe.display())), "{:?}", ours[0]);
}

#[test]
fn file_systems_are_as_full_as_the_kernel_says() {
    let told = Rig::live(ALL).collect();
    let shown = std::process::Command::new("df").args(["-PB1", "/"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let row: Vec<&str> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    let of = |state: &str| {
        let found = told.points.iter().find(|(series, _)| {
            series.name == "system.filesystem.usage"
                && series.attributes.contains("mountpoint=/,")
                && series.attributes.ends_with(state)
        });
        found.map(|(_, point)| point.value)
    };
    // In a container `/` may lie on no device.
    let (Some(used), Some(free), Some(reserved)) = (of("state=used"), of("state=free"), of("state=reserved")) else { return };
    assert_eq!(used + free + reserved, row[1].parse::<f64>().unwrap());
}
