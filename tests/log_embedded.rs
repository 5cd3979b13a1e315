//! The embedded log against crashes, damage, and directories that cannot be used.
//!
//! Some tests need a process of their own, to be killed or to run where the disk is full or
//! read-only: they start this same binary again with the test to play in [`ROLE`].

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
};

use bytes::Bytes;
use sellable::{
    limits,
    log::{
        AppendError, Entry, Log, LogError,
        conformance::{patiently, read_to, record},
        embedded::{EmbeddedLog, FsyncPolicy, Options},
    },
};

const ROLE: &str = "SELLABLE_TEST_ROLE";
const DIR: &str = "SELLABLE_TEST_DIR";

/// Plays a role in a process of its own; no test by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(role) = env::var(ROLE) else { return };
    let dir = PathBuf::from(env::var_os(DIR).expect("a directory"));
    match role.as_str() {
        "append" => append_for_ever(dir).await,
        "read-only" => print_refusal(dir),
        "full-disk" => fill_the_disk(dir).await,
        _ => panic!("unknown role {role}"),
    }
}

/// A command that plays a role, run through `wrapper` if there is one.
fn play(role: &str, dir: &Path, wrapper: &[&str]) -> Command {
    let this = env::current_exe().expect("a path");
    let mut words: Vec<&str> = wrapper.to_vec();
    let this = this.to_str().expect("text");
    words.extend([this, "--exact", "child", "--nocapture"]);
    let mut command = Command::new(words[0]);
    command
        .args(&words[1..])
        .env(ROLE, role)
        .env(DIR, dir)
        .stdin(Stdio::null());
    command
}

/// Runs a role in namespaces of its own, where a shell prepares the mounts first.
fn play_mounted(role: &str, dir: &Path, mount: &str) -> Output {
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let output = play(role, dir, &["unshare", "-rm", "sh", "-c", &script])
        .output()
        .expect("`unshare` of util-linux is needed for this test");
    assert!(
        output.status.success(),
        "the role {role} failed (it needs user and mount namespaces): {output:?}"
    );
    output
}

fn open(dir: &Path) -> Result<EmbeddedLog, LogError> {
    let mut options = Options::new(dir);
    options.segment_bytes = 2 * limits::RECORD_BYTES_MAX as u64;
    EmbeddedLog::open(options)
}

fn opened(dir: &Path) -> Arc<dyn Log> {
    Arc::new(open(dir).expect("opens"))
}

async fn append(log: &Arc<dyn Log>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        patiently(log.append(record(number))).await.expect("stored");
    }
}

async fn read_all(log: &Arc<dyn Log>) -> Result<Vec<Entry>, LogError> {
    let bounds = log.bounds().await?;
    let mut reader = log.reader(bounds.first).await?;
    let mut entries = Vec::new();
    while bounds.first + (entries.len() as u64) <= bounds.last {
        entries.extend(patiently(reader.next(1_000)).await?);
    }
    Ok(entries)
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        fs::copy(&path, to.join(path.file_name().expect("a name"))).expect("a copy");
    }
}

/// The segments, oldest first.
fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|suffix| suffix == "segment"));
    paths.sort();
    paths
}

/// Bytes of a segment up to the zeros at its end.
fn written(path: &Path) -> Vec<u8> {
    let mut bytes = fs::read(path).expect("a segment");
    bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).expect("a header") + 1);
    bytes
}

async fn append_for_ever(dir: PathBuf) {
    let log = opened(&dir);
    let start = log.bounds().await.expect("bounds").last;
    let callers = (0..16_u64).map(|caller| {
        let log = log.clone();
        tokio::spawn(async move {
            for number in (start * 16 + caller..).step_by(16) {
                let position = log.append(record(number)).await.expect("stored");
                println!("ack {position} {number}");
            }
        })
    });
    futures::future::join_all(callers).await;
}

#[tokio::test]
async fn a_kill_at_any_time_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut acknowledged: BTreeMap<u64, u64> = BTreeMap::new();
    for kill_after in [1, 30, 400, 77, 1_500, 5] {
        let mut child = play("append", dir.path(), &[])
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut lines = Vec::new();
        for line in stdout.lines() {
            let line = line.unwrap_or_default();
            if let Some((_, words)) = line.split_once("ack ") {
                lines.push(words.to_owned());
            }
            if lines.len() == kill_after {
                child.kill().expect("killed");
            }
        }
        // The kill may have cut off the last line.
        if lines.len() > kill_after {
            lines.pop();
        }
        assert!(lines.len() >= kill_after, "the child ended by itself");
        for line in lines {
            let (position, number) = line.split_once(' ').expect("two words");
            let position = position.parse().expect("a position");
            let before = acknowledged.insert(position, number.parse().expect("a number"));
            assert_eq!(before, None, "position {position} was given twice");
        }
        child.wait().expect("it ended");
        let log = opened(dir.path());
        let last = log.bounds().await.expect("bounds").last;
        let mut reader = log.reader(1).await.expect("a reader");
        let entries = read_to(&mut *reader, 1, last).await;
        for (position, number) in &acknowledged {
            let entry: &Entry = &entries[*position as usize - 1];
            assert_eq!(entry.payload, record(*number), "position {position}");
        }
    }
}

#[tokio::test]
async fn an_entry_that_a_crash_cut_short_is_cut_off() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = opened(dir.path());
    append(&log, 0..10).await;
    drop(log);
    let before = tempfile::tempdir().expect("a directory");
    copy(dir.path(), before.path());
    let len_before = written(&segments(dir.path())[0]).len();
    let log = opened(dir.path());
    append(&log, 690..691).await;
    drop(log);
    let whole = written(&segments(dir.path())[0]);
    for len in (len_before + 1..whole.len()).step_by(13) {
        let crashed = tempfile::tempdir().expect("a directory");
        copy(before.path(), crashed.path());
        let segment = &segments(crashed.path())[0];
        let mut bytes = fs::read(segment).expect("a segment");
        bytes[..len].copy_from_slice(&whole[..len]);
        fs::write(segment, bytes).expect("written");
        let log = opened(crashed.path());
        let entries = read_all(&log).await.expect("readable");
        assert_eq!(entries.len(), 10, "cut at {len}");
        append(&log, 10..12).await;
        drop(log);
        let log = opened(crashed.path());
        assert_eq!(read_all(&log).await.expect("readable").len(), 12);
    }
}

#[tokio::test]
async fn a_flipped_byte_is_an_error_and_never_a_shorter_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = opened(dir.path());
    append(&log, 0..60).await;
    let reference = read_all(&log).await.expect("readable");
    drop(log);
    let len = written(&segments(dir.path())[0]).len();
    let mut reported = 0;
    for at in (0..len + 40).step_by(23) {
        let damaged = tempfile::tempdir().expect("a directory");
        copy(dir.path(), damaged.path());
        let segment = &segments(damaged.path())[0];
        let mut bytes = fs::read(segment).expect("a segment");
        bytes[at] ^= 0x40;
        fs::write(segment, bytes).expect("written");
        let outcome = match open(damaged.path()) {
            Ok(log) => read_all(&(Arc::new(log) as Arc<dyn Log>)).await,
            Err(error) => Err(error),
        };
        match outcome {
            Err(LogError::Corrupt(_)) => reported += 1,
            Err(error) => panic!("byte {at}: {error:?}"),
            // Behind the last entry there is nothing to damage.
            Ok(entries) => assert!(at >= len && entries == reference, "byte {at}"),
        }
    }
    assert!(reported >= len / 23);
}

#[tokio::test]
async fn damage_in_an_older_file_is_an_error_when_it_is_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = opened(dir.path());
    for _ in 0..8 {
        let large = Bytes::from(vec![3; limits::RECORD_BYTES_MAX]);
        patiently(log.append(large)).await.expect("stored");
    }
    drop(log);
    let paths = segments(dir.path());
    assert!(paths.len() > 2);
    let mut bytes = fs::read(&paths[1]).expect("a segment");
    bytes[5_000] ^= 1;
    fs::write(&paths[1], bytes).expect("written");
    let outcome = read_all(&opened(dir.path())).await;
    assert!(matches!(outcome, Err(LogError::Corrupt(_))), "{outcome:?}");
    // A file that is missing altogether is no better.
    fs::remove_file(&paths[1]).expect("removed");
    let outcome = read_all(&opened(dir.path())).await;
    assert!(matches!(outcome, Err(LogError::Corrupt(_))), "{outcome:?}");
    for path in &segments(dir.path()) {
        fs::remove_file(path).expect("removed");
    }
    let outcome = open(dir.path());
    assert!(matches!(outcome, Err(LogError::Corrupt(_))), "{outcome:?}");
}

#[tokio::test]
async fn a_damaged_identity_is_an_error_and_a_damaged_mark_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = opened(dir.path());
    append(&log, 0..5).await;
    drop(log);
    let identity = dir.path().join("identity");
    let sound = fs::read(&identity).expect("an identity");
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x02;
        fs::write(&identity, bytes).expect("written");
        assert!(open(dir.path()).is_err(), "byte {at}");
    }
    fs::remove_file(&identity).expect("removed");
    let outcome = open(dir.path());
    assert!(matches!(outcome, Err(LogError::Corrupt(_))), "{outcome:?}");
    fs::write(&identity, &sound).expect("written");
    fs::write(dir.path().join("synced"), [9; 16]).expect("written");
    assert_eq!(
        read_all(&opened(dir.path())).await.expect("readable").len(),
        5
    );
}

fn refusal(dir: &Path) -> String {
    match open(dir) {
        Err(LogError::Setup(text)) => text,
        outcome => panic!("not a Setup error: {outcome:?}"),
    }
}

#[tokio::test]
async fn a_directory_in_use_is_refused_until_it_is_free() {
    let dir = tempfile::tempdir().expect("a directory");
    let log = opened(dir.path());
    let text = refusal(dir.path());
    assert!(text.contains("in use by another process"), "{text}");
    append(&log, 0..1).await;
    drop(log);
    assert_eq!(opened(dir.path()).bounds().await.expect("bounds").last, 1);
}

#[test]
fn a_file_in_the_place_of_the_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("data");
    fs::write(&path, "x").expect("written");
    assert!(refusal(&path).contains("a file is in the way"));
    assert!(refusal(&path.join("below")).contains("a file is in the way"));
}

#[test]
fn a_later_format_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()).expect("opens"));
    let identity = dir.path().join("identity");
    let text = fs::read_to_string(&identity).expect("an identity");
    fs::write(&identity, text.replace("format 1", "format 2")).expect("written");
    let text = refusal(dir.path());
    assert!(text.contains("format 2"), "{text}");
    assert!(text.contains("run the version"), "{text}");
}

fn print_refusal(dir: PathBuf) {
    println!("refused: {}", refusal(&dir));
}

#[test]
fn a_read_only_directory_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    drop(open(dir.path()).expect("opens"));
    let path = dir.path().display();
    let mount = format!("mount --bind {path} {path} && mount -o remount,ro,bind {path}");
    let output = play_mounted("read-only", dir.path(), &mount);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("read-only file system"), "{text}");
    assert!(text.contains("mount it writable"), "{text}");
}

#[test]
fn a_directory_without_permission_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    drop(open(&data).expect("opens"));
    // In a user namespace without a mapping not even root may pass.
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).expect("permissions");
    let output = play("read-only", &data, &["unshare", "-U"])
        .output()
        .expect("`unshare` of util-linux is needed for this test");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("permissions");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("give the user that runs this process"),
        "{output:?}"
    );
}

async fn fill_the_disk(dir: PathBuf) {
    let filler = dir.join("filler");
    fs::write(&filler, vec![1; 1 << 20]).expect("written");
    let data = dir.join("data");
    let log = opened(&data);
    let mut acknowledged = 0_u64;
    let reason = loop {
        match patiently(log.append(Bytes::from(vec![5; 100_000]))).await {
            Ok(position) => {
                acknowledged += 1;
                assert_eq!(position, acknowledged);
            }
            Err(AppendError::Poisoned(reason)) => break reason,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert!(acknowledged > 3);
    assert!(reason.contains("restart"), "{reason}");
    // Room alone does not help: what is in the file is unknown until it has been read anew.
    fs::remove_file(&filler).expect("removed");
    for _ in 0..3 {
        let outcome = patiently(log.append(record(1))).await;
        assert_eq!(outcome, Err(AppendError::Poisoned(reason.clone())));
    }
    assert_eq!(log.not_writable(), Some(reason));
    assert_eq!(log.bounds().await.expect("bounds").last, acknowledged);
    assert_eq!(
        read_all(&log).await.expect("readable").len() as u64,
        acknowledged
    );
    drop(log);
    let log = opened(&data);
    let last = log.bounds().await.expect("bounds").last;
    assert!(last >= acknowledged, "what was acknowledged is kept");
    append(&log, 0..3).await;
    let entries = read_all(&log).await.expect("readable");
    assert_eq!(entries.len() as u64, last + 3);
    assert!(
        entries[..acknowledged as usize]
            .iter()
            .all(|entry| entry.payload.len() == 100_000)
    );
}

#[test]
fn a_full_disk_poisons_the_log_until_it_is_opened_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = format!("mount -t tmpfs -o size=4m none {}", dir.path().display());
    play_mounted("full-disk", dir.path(), &mount);
}

#[tokio::test]
async fn a_lenient_policy_still_syncs_when_the_log_is_closed() {
    for fsync in [
        FsyncPolicy::Os,
        FsyncPolicy::Interval(std::time::Duration::from_secs(3_600)),
    ] {
        let dir = tempfile::tempdir().expect("a directory");
        let mut options = Options::new(dir.path());
        options.fsync = fsync;
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(options).expect("opens"));
        append(&log, 0..20).await;
        drop(log);
        // The mark is written after a sync only.
        let mark = fs::read(dir.path().join("synced")).expect("a mark");
        assert_eq!(mark[..8], 20_u64.to_le_bytes());
        assert_eq!(
            read_all(&opened(dir.path())).await.expect("readable").len(),
            20
        );
    }
}
