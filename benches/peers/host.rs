//! The machine, its disk, and the versions of all that takes part.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    time::Instant,
};

use crate::{postgres, redis, support::median};

/// Syncs of which the disk's time is taken.
const SYNCS: usize = 200;

/// What the results hold for.
pub(crate) struct Host {
    /// Name and value, in the order in which they are told.
    pub(crate) facts: Vec<(&'static str, String)>,
}

impl Host {
    /// Looks at this machine; the disk is that of `dir`.
    pub(crate) fn look(dir: &Path, has_peers: [bool; 2]) -> Self {
        let line_of = |path: &str, key: &str| {
            let text = fs::read_to_string(path).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key));
            let value = line.and_then(|line| line.rsplit(':').next());
            value.unwrap_or_default().trim().to_owned()
        };
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let memory = line_of("/proc/meminfo", "MemTotal");
        let kib = memory.trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        let load = line_of("/proc/loadavg", "");
        let load = load.split(' ').next().unwrap_or_default();
        let mut facts = vec![
            (
                "date",
                jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z").to_string(),
            ),
            (
                "processor",
                format!("{}, {cores} cores", line_of("/proc/cpuinfo", "model name")),
            ),
            ("memory", format!("{} GiB", kib >> 20)),
            ("kernel", line_of("/proc/sys/kernel/osrelease", "")),
            ("load average before", load.into()),
            ("disk", disk(dir)),
            ("Sellable", sellable()),
            ("rustc", version(Path::new("rustc"))),
        ];
        let programs = [
            ("Redis", redis::program()),
            ("PostgreSQL", postgres::program("postgres")),
        ];
        for ((name, program), is_there) in programs.into_iter().zip(has_peers) {
            if let (Some(program), true) = (program, is_there) {
                facts.push((name, version(&program)));
            }
        }
        Self { facts }
    }
}

/// What a sync of 4 KiB that were just appended takes.
fn disk(dir: &Path) -> String {
    let path = dir.join("syncs");
    let mut file = File::create(&path).expect("a file");
    let mut times_us: Vec<f64> = (0..SYNCS)
        .map(|_| {
            let started = Instant::now();
            file.write_all(&[7; 4_096]).expect("it is written");
            file.sync_data().expect("it is synced");
            started.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times_us.sort_by(f64::total_cmp);
    format!(
        "a sync of 4 KiB takes {:.0} µs (median), {:.0} µs (99th percentile)",
        median(&times_us),
        times_us[SYNCS * 99 / 100]
    )
}

fn sellable() -> String {
    let described = Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR")])
        .args(["describe", "--always", "--dirty"])
        .output();
    let commit = described.ok().filter(|output| output.status.success());
    let commit = commit.map_or_else(String::new, |output| {
        format!(", {}", String::from_utf8_lossy(&output.stdout).trim())
    });
    format!("{}{commit}", env!("CARGO_PKG_VERSION"))
}

/// What a program says of itself.
pub(crate) fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").output();
    let text = output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    );
    // Redis goes on with hashes of its build.
    text.split(" sha=").next().unwrap_or_default().to_owned()
}
