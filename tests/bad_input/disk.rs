//! The real program on a disk that is full or read-only.
//!
//! The disk is a small file system in memory, in namespaces of its own, as in `log_embedded.rs`.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    time::Duration,
};

use prost::Message;
use sellable::proto::v1 as pb;
use tonic::{Code, transport::Endpoint};

use crate::{
    bad::{delimited, post_raw, says},
    process::{end_of, free_port, program, run, without_settings},
    server::{Client, PATIENCE, patiently, received},
};

/// A command in user and mount namespaces of its own, after a shell has prepared the mounts.
fn mounted(prepare: &str, command: &Command) -> Command {
    let script = format!("{prepare} && exec \"$0\" \"$@\"");
    let mut wrapped = Command::new("unshare");
    wrapped.args(["-rm", "sh", "-c", &script]);
    wrapped.arg(command.get_program()).args(command.get_args());
    without_settings(&mut wrapped);
    wrapped
}

fn serve(data_dir: &Path, ports: (u16, u16)) -> Command {
    let mut command = program();
    command.args(["serve", "--listen", &format!("127.0.0.1:{}", ports.0)]);
    command.args(["--http-listen", &format!("127.0.0.1:{}", ports.1)]);
    command.arg("--data-dir").arg(data_dir);
    command
}

#[test]
fn a_start_on_a_read_only_disk_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display();
    let prepare = format!("mount --bind {path} {path} && mount -o remount,ro,bind {path}");
    for data_dir in [dir.path().to_owned(), dir.path().join("below")] {
        let command = serve(&data_dir, (free_port(), free_port()));
        run(mounted(&prepare, &command)).says(
            2,
            &[
                data_dir.to_str().expect("text"),
                "read-only file system; mount it writable or choose another data directory",
            ],
        );
    }
}

#[test]
fn a_start_on_a_full_disk_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().display();
    let prepare = format!("mount -t tmpfs -o size=4k none {path} && echo full > {path}/filler");
    let command = serve(&dir.path().join("data"), (free_port(), free_port()));
    run(mounted(&prepare, &command)).says(2, &["the disk or quota is full; free some space"]);
}

/// The program on a disk that another file nearly fills; started again, once it has been stopped,
/// on the same disk without that file.
struct OnSmallDisk {
    shell: Option<Child>,
    /// A line of it stops the program. So does its end: nothing is left running if a test fails.
    stdin: Option<ChildStdin>,
    ports: (u16, u16),
    dir: tempfile::TempDir,
}

const ROUNDS: &str = r#"
head -c 2000000 /dev/zero > "$DISK/filler" || exit 99
for round in 1 2; do
  "$0" "$@" & program=$!
  read line
  kill -TERM $program
  wait $program
  echo "round $round ended with $?" >&2
  rm -f "$DISK/filler"
done
"#;

impl OnSmallDisk {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).expect("made");
        let rules = dir.path().join("rules.toml");
        fs::write(&rules, "[channel.web]\nsources = [\"*\"]\n").expect("written");
        let ports = (free_port(), free_port());
        let mut command = serve(&disk.join("data"), ports);
        command.arg("--rules").arg(rules);
        let mut shell = Command::new("unshare");
        let script = format!("mount -t tmpfs -o size=4m none \"$DISK\" || exit 98\n{ROUNDS}");
        shell.args(["-rm", "sh", "-c", &script]);
        shell.arg(command.get_program()).args(command.get_args());
        without_settings(&mut shell);
        let log = File::create(dir.path().join("stderr.log")).expect("a log file");
        let mut shell = shell
            .env("DISK", &disk)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("`unshare` of util-linux is needed for this test");
        Self {
            stdin: shell.stdin.take(),
            shell: Some(shell),
            ports,
            dir,
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.dir.path().join("stderr.log")
    }

    async fn connect(&self) -> Client {
        let url = format!("http://127.0.0.1:{}", self.ports.0);
        let endpoint = Endpoint::from_shared(url).expect("an address");
        let connect = async {
            loop {
                if let Ok(channel) = endpoint.connect().await {
                    let client = Client { channel };
                    let status = client.operations().status(pb::StatusRequest {}).await;
                    if status.is_ok_and(|status| status.get_ref().ready) {
                        break client;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let connected = tokio::time::timeout(PATIENCE, connect).await;
        connected.unwrap_or_else(|_| panic!("it does not get ready: {}", self.log()))
    }

    /// The page, from its status line on.
    fn page(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.1)).expect("it answers");
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("asked");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("a page");
        text
    }

    /// Ends this round of the program, and starts the next.
    async fn next_round(&mut self, round: u32) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(b"\n").expect("it reads");
        let ended = format!("round {round} ended with");
        let wait = async {
            while !self.log().contains(&ended) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("it does not end: {}", self.log()));
    }
}

impl Drop for OnSmallDisk {
    fn drop(&mut self) {
        self.stdin = None;
        if let Some(shell) = self.shell.take() {
            end_of(shell);
        }
        if std::thread::panicking() {
            eprintln!("--- the program printed:\n{}---", self.log());
        }
    }
}

/// A movement with so much beside what it says that few fill the disk.
fn large(number: u64) -> Vec<u8> {
    let movement = received(&number.to_string(), "A", 1, "dc").encode_to_vec();
    [movement, delimited(1_000, &[7; 100_000])].concat()
}

#[tokio::test]
async fn a_disk_that_fills_up_stops_writes_and_nothing_else() {
    let mut program = OnSmallDisk::start();
    let client = program.connect().await;
    let ats = async |client: &Client| {
        let answer = patiently(client.ats("A", 0)).await;
        answer.expect("an answer").items[0].ats
    };
    let mut stored = 0;
    let status = loop {
        match patiently(post_raw(&client.channel, vec![large(stored)])).await {
            Ok(_) => stored += 1,
            Err(status) => break status,
        }
        assert!(stored < 1_000, "the disk does not fill up");
    };
    assert!(stored > 3);
    assert_eq!(status.code(), Code::Unavailable);
    let why = ["No space left on device", "correct it and restart"];
    says(status.message(), &why);
    says(status.message(), &["the log takes no more writes"]);

    // What was answered is there, and is answered for; nothing more is taken.
    assert_eq!(ats(&client).await, stored as i64);
    let small = received("small", "A", 1, "dc");
    let request = pb::PostRequest {
        movements: vec![small],
    };
    let status = client.movements().post(request).await;
    says(status.expect_err("refused").message(), &why);
    let request = pb::PutRulesRequest {
        toml: "[channel.app]\nsources = [\"*\"]\n".into(),
        ..pb::PutRulesRequest::default()
    };
    let status = client.rules().put(request).await.expect_err("refused");
    assert_eq!(status.code(), Code::Unavailable);
    says(&client.status().await.not_writable_because, &why);
    let ready = program.page("/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    says(&ready, &["ready, but takes no writes: "]);
    says(&ready, &why);
    assert!(program.page("/livez").starts_with("HTTP/1.1 200"));
    assert_eq!(ats(&client).await, stored as i64);

    // With space again, a restart takes up where it was: what was refused may be posted again.
    program.next_round(1).await;
    let client = program.connect().await;
    assert_eq!(client.status().await.not_writable_because, "");
    assert!(
        ats(&client).await >= stored as i64,
        "what was answered is lost"
    );
    // Posting all of them again takes room for each, so only some of them are.
    for number in [0, stored - 1, stored, stored + 1] {
        let answer = patiently(post_raw(&client.channel, vec![large(number)])).await;
        let answer = answer.unwrap_or_else(|status| panic!("{number}: {status}"));
        let outcome = &answer.outcomes[0];
        assert_eq!(outcome.outcome(), pb::Outcome::Applied);
        // The one that was refused may have been stored whole all the same.
        assert!(
            outcome.duplicate || number >= stored,
            "{number} {outcome:?}"
        );
    }
    assert_eq!(ats(&client).await, stored as i64 + 2);
    program.next_round(2).await;
}
