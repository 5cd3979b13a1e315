//! `sellable serve` where it cannot start: it ends, with the documented exit code, and says what
//! to do.

use std::{fs, io::Write, net::TcpListener, path::Path, process::Command, thread};

use crate::{
    nats::NatsServer,
    process::{Ended, free_port, program, run},
    server::{self, PATIENCE, Setup, data_dir, received},
};

/// Bad usage or bad input.
const USAGE: i32 = 2;
/// No server, or not now.
const UNAVAILABLE: i32 = 4;

/// `serve` on ports of its own, with its log and its working directory in `dir`.
fn serve(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = program();
    command.arg("serve").current_dir(dir);
    let address = || format!("127.0.0.1:{}", free_port());
    command.args(["--set", &format!("listen={}", address())]);
    command.args(["--set", &format!("http.listen={}", address())]);
    command.args(arguments);
    command
}

fn serve_to_end(arguments: &[&str]) -> Ended {
    let dir = tempfile::tempdir().expect("a directory");
    run(serve(dir.path(), arguments))
}

#[test]
fn a_wrong_nats_url_is_told() {
    let refused = format!("nats://127.0.0.1:{}", free_port());
    serve_to_end(&["--nats", &refused]).says(
        UNAVAILABLE,
        &[&refused, "does not answer", "is it running there?"],
    );
    let unknown = "nats://no-such-host.invalid:4222";
    serve_to_end(&["--nats", unknown]).says(
        UNAVAILABLE,
        &[unknown, "does not answer", "is it running there?"],
    );
    for url in ["http://localhost:4222", "nats://a:4222,,nats://b:4222"] {
        serve_to_end(&["--nats", url])
            .says(USAGE, &["flag --nats", "`nats.url`", "nats://host:4222"]);
    }
    serve_to_end(&["--nats", "nats://localhost:port"]).says(
        USAGE,
        &["is not the address of a NATS server", "nats://host:4222"],
    );
}

#[test]
fn something_else_than_nats_is_told() {
    for greeting in [
        &b""[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\x00\xff\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("nats://{}", listener.local_addr().expect("an address"));
        // It ends with the test's process; who waits for a greeting that never comes is kept.
        thread::spawn(move || {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept() {
                let _ = stream.write_all(greeting);
                kept.push(stream);
            }
        });
        serve_to_end(&["--nats", &url]).says(UNAVAILABLE, &[&url, "does not answer"]);
    }
}

#[test]
fn nats_without_jetstream_is_told() {
    let plain = NatsServer::start_without_jetstream();
    serve_to_end(&["--nats", &plain.url()])
        .says(USAGE, &["has no JetStream for us", "start it with `-js`"]);
    let not_for_us = NatsServer::start_with(
        "accounts { A { users: [{ user: a, password: b }] } }\nno_auth_user: a",
    );
    serve_to_end(&["--nats", &not_for_us.url()]).says(
        USAGE,
        &[
            "has no JetStream for us",
            "enable JetStream for this account",
        ],
    );
}

#[test]
fn credentials_are_asked_for_and_never_shown() {
    let nats = NatsServer::start_with("authorization { user: u, password: \"ri@ght\" }");
    let with = |user: &str| nats.url().replace("nats://", &format!("nats://{user}@"));
    for user in ["u:hidden-1", "hidden-1"] {
        let ended = serve_to_end(&["--nats", &with(user)]);
        ended.says(USAGE, &["does not let us in", "check the credentials"]);
        assert!(!ended.stderr.contains("hidden-1"), "{ended:?}");
    }
    serve_to_end(&[
        "--nats",
        &nats.url(),
        "--set",
        "nats.credentials_file=missing.creds",
    ])
    .says(USAGE, &["missing.creds", "cannot be read"]);
    serve_to_end(&["--set", "nats.credentials_file=a.creds"])
        .says(USAGE, &["`nats.credentials_file`", "`nats.url` is not"]);
    let server = Setup::new().nats(&with("u:ri%40ght")).start();
    let status = server.run(&["status"]);
    let said = String::from_utf8_lossy(&status.stdout).into_owned() + &server.log();
    assert!(said.contains("***@127.0.0.1"), "{said}");
    assert!(!said.contains("ght@"), "{said}");
}

#[test]
fn a_stream_that_cannot_be_the_log_is_told() {
    let nats = NatsServer::start();
    serve_to_end(&["--nats", &nats.url(), "--set", "nats.stream=a.b"])
        .says(USAGE, &["cannot be the name of a stream", "use letters"]);
    serve_to_end(&["--nats", &nats.url(), "--set", "nats.replicas=3"]).says(
        USAGE,
        &["the stream SELLABLE cannot be created", "replicas"],
    );
}

#[test]
fn a_port_in_use_is_told() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    for (flag, key) in [("--listen", "listen"), ("--http-listen", "http.listen")] {
        let dir = tempfile::tempdir().expect("a directory");
        run(serve(dir.path(), &[flag, &address])).says(
            USAGE,
            &[
                &address,
                &format!("(`{key}`)"),
                &format!("another process listens there; stop it, or set `{key}` to another"),
            ],
        );
        assert!(!dir.path().join("data").exists(), "it began before it knew");
        run(serve(dir.path(), &[flag, "192.0.2.1:7420"]))
            .says(USAGE, &[&format!("set `{key}` to an address of this host")]);
    }
    serve_to_end(&[
        "--listen",
        "127.0.0.1:7999",
        "--http-listen",
        "127.0.0.1:7999",
    ])
    .says(USAGE, &["`http.listen`", "two ports"]);
}

#[tokio::test]
async fn a_data_directory_in_use_is_told_and_its_owner_goes_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = data_dir(&dir);
    let owner = Setup::new().start_in(dir);
    let client = owner.connect().await;
    serve_to_end(&["--data-dir", data.to_str().expect("text")]).says(
        USAGE,
        &[
            "is in use by another process",
            "stop that one, or give this one",
        ],
    );
    client.post(vec![received("a", "A", 1, "dc")]).await;
}

#[test]
fn a_data_directory_that_is_none_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("file"), "x").expect("written");
    for path in ["file", "file/below"] {
        run(serve(dir.path(), &["--data-dir", path])).says(
            USAGE,
            &[
                path,
                "a file is in the way",
                "choose another data directory",
            ],
        );
    }
    let damaged = dir.path().join("damaged");
    fs::create_dir(&damaged).expect("made");
    fs::write(damaged.join("identity"), "x").expect("written");
    run(serve(dir.path(), &["--data-dir", "damaged"])).says(1, &["identity", "is damaged"]);
}

#[test]
fn settings_name_the_key_and_the_line() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "\
shards = \"two\"
lisen = \"127.0.0.1:1\"

[journal]
sync = \"sometimes\"
sync_interval_ms = 0

[ids]
max = 999
horizon_hours = 1.5

[nats]
replicas = 99999999999999999999

[nonsense]
a = 1
";
    fs::write(dir.path().join("sellable.toml"), text).expect("written");
    run(serve(dir.path(), &[])).says(
        USAGE,
        &[
            "8 settings are wrong",
            "sellable.toml:1: `shards` is the text \"two\"; it takes a whole number from 0 to 256",
            "sellable.toml:2: `lisen` is not known; did you mean `listen`?",
            "sellable.toml:5: `journal.sync` is \"sometimes\"; it takes \"always\", \"interval\" or \"os\"",
            "sellable.toml:6: `journal.sync_interval_ms` is 0; it takes a whole number from 1 to",
            "sellable.toml:9: `ids.max` is 999; it takes a whole number from 1000",
            "sellable.toml:10: `ids.horizon_hours` is of type float; it takes a whole number",
            "sellable.toml:13: `nats.replicas` is 99999999999999999999; it takes",
            "sellable.toml:16: `nonsense.a` is not known",
            "`sellable config` documents every key",
        ],
    );
    fs::write(dir.path().join("sellable.toml"), "shards = \n").expect("written");
    run(serve(dir.path(), &[])).says(USAGE, &["sellable.toml:1: "]);
    fs::write(dir.path().join("sellable.toml"), b"shards = \xff\n").expect("written");
    run(serve(dir.path(), &[])).says(
        USAGE,
        &["cannot read the settings in sellable.toml", "UTF-8"],
    );
    run(serve(dir.path(), &["--config", "missing.toml"])).says(
        USAGE,
        &[
            "cannot read the settings in missing.toml",
            "prints a file to start from",
        ],
    );
}

#[test]
fn flags_and_variables_name_themselves() {
    serve_to_end(&[
        "--shards",
        "many",
        "--set",
        "ids.maks=5",
        "--log-level",
        "a=b=c",
    ])
    .says(
        USAGE,
        &[
            "flag --shards: `shards` is \"many\"; it takes a whole number",
            "flag --set: `ids.maks` is not known; did you mean `ids.max`?",
        ],
    );
    serve_to_end(&["--log-level", "a=b=c"]).says(USAGE, &["`trace.filter`", "write a level"]);
    serve_to_end(&["--set", "shards"]).says(USAGE, &["write it as key=value"]);
    serve_to_end(&["--no-such-flag"]).says(USAGE, &["--no-such-flag", "--help"]);
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = serve(dir.path(), &[]);
    command
        .env("SELLABLE_SHARDS", "257")
        .env("SELLABLE_LISTEN", "here");
    run(command).says(
        USAGE,
        &["environment variable SELLABLE_SHARDS: `shards` is 257"],
    );
    // A platform may set variables of this prefix for its own ends: they are no errors, and one
    // that is nearly a setting's is worth a warning.
    let mut command = program();
    command
        .args(["config", "--effective"])
        .current_dir(dir.path());
    command
        .env("SELLABLE_SHARD", "3")
        .env("SELLABLE_PORT", "tcp://10.0.0.1:80");
    let ended = run(command);
    ended.says(
        0,
        &[
            "SELLABLE_SHARD is not known",
            "did you mean SELLABLE_SHARDS?",
        ],
    );
    assert!(!ended.stderr.contains("SELLABLE_PORT"), "{ended:?}");
}

#[test]
fn broken_rules_end_the_start_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    for (text, said) in [
        (
            &b"[channel.web]\nsources = [\"*\"]\nbufer = 3\n"[..],
            "line 3, column 1",
        ),
        (b"[channel.web\n", "line 1"),
        (b"[channel.w\xffeb]\n", "UTF-8"),
    ] {
        fs::write(dir.path().join("rules.toml"), text).expect("written");
        run(serve(dir.path(), &["--rules", "rules.toml"])).says(
            USAGE,
            &[
                "the rules in rules.toml (`rules.file`)",
                said,
                "sellable rules check FILE",
            ],
        );
    }
    run(serve(dir.path(), &["--rules", "missing.toml"]))
        .says(USAGE, &["the rules in missing.toml", "No such file"]);
    assert!(!dir.path().join("data").exists(), "it began before it knew");
}

#[test]
fn a_broken_source_authority_ends_the_start_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let text = "[source.wms]\nmay = [\"shiped\"]\n";
    fs::write(dir.path().join("authority.toml"), text).expect("written");
    run(serve(dir.path(), &["--authority", "authority.toml"])).says(
        USAGE,
        &[
            "authority.toml (`authority.file`)",
            "line 2, column 8",
            "did you mean `shipped`?",
            "sellable authority check FILE",
        ],
    );
    assert!(!dir.path().join("data").exists(), "it began before it knew");
}

#[tokio::test]
async fn broken_rules_on_sighup_leave_those_in_force() {
    let sound = "[channel.web]\nsources = [\"*\"]\n";
    let server = Setup::new().rules(sound).start();
    let client = server.connect().await;
    let position = client
        .post(vec![received("a", "A", 9, "dc")])
        .await
        .position;
    let version = client.status().await.rules_version;
    fs::write(server.rules_file(), format!("{sound}buffer = -1\n")).expect("written");
    server.signal("HUP");
    printed(&server, "the rules in force stay").await;
    assert!(server.log().contains("line 3"), "the line is not named");
    fs::remove_file(server.rules_file()).expect("removed");
    server.signal("HUP");
    printed(&server, "No such file").await;
    let answer = client.ats("A", position).await.expect("an answer");
    assert_eq!((answer.rules_version, answer.items[0].ats), (version, 9));
    fs::write(server.rules_file(), format!("{sound}buffer = 2\n")).expect("written");
    server.signal("HUP");
    while client.status().await.rules_version == version {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(client.ats("A", 0).await.expect("an answer").items[0].ats, 7);
}

async fn printed(server: &server::Server, part: &str) {
    let wait = async {
        while !server.log().contains(part) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    waited.unwrap_or_else(|_| panic!("{part:?} is not printed"));
}
