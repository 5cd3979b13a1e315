//! Source authority against the real program: put, kept and obeyed, by call, by file and by
//! command.

use std::{fs, process::Output};

use sellable::proto::v1 as pb;
use serde_json::Value;
use tonic::{Code, Status};

use crate::{
    bad::{says, violations},
    server::{CHANNEL, Client, PATIENCE, Server, Setup, received},
};

const RULES: &str = "[channel.web]\nsources = [\"*\"]\n";
const WMS: &str = "[source.wms]\nmay = [\"received\"]\nlocations = [\"dc-*\"]\n";

async fn put(
    client: &Client,
    request: pb::PutRulesRequest,
) -> Result<pb::PutRulesResponse, Status> {
    let answer = client.rules().put_authority(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn get(client: &Client, version: u64) -> Result<pb::GetRulesResponse, Status> {
    let request = pb::GetRulesRequest { version };
    let answer = client.rules().get_authority(request).await;
    answer.map(tonic::Response::into_inner)
}

fn document(toml: &str) -> pb::PutRulesRequest {
    pb::PutRulesRequest {
        toml: toml.into(),
        actor: "anna".into(),
        note: "why".into(),
        ..pb::PutRulesRequest::default()
    }
}

/// Posts a receipt of one unit of `A`, and gives its outcome.
async fn receipt(client: &Client, source: &str, id: &str, location: &str) -> pb::MovementOutcome {
    let movement = pb::Movement {
        source: source.into(),
        ..received(id, "A", 1, location)
    };
    let request = pb::PostRequest {
        movements: vec![movement],
    };
    let answer = client.movements().post(request).await.expect("posted");
    answer.into_inner().outcomes.remove(0)
}

async fn exceptions(client: &Client) -> Vec<pb::Exception> {
    let request = pb::ListExceptionsRequest::default();
    let list = client.operations().list_exceptions(request).await;
    list.expect("a list").into_inner().exceptions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_source_may_not_post_is_parked() {
    let mut server = Setup::new().rules(RULES).start();
    let client = server.connect().await;
    let applied = pb::Outcome::Applied;
    let open = receipt(&client, "anybody", "1", "anywhere").await;
    assert_eq!(open.outcome(), applied, "{open:?}");

    put(&client, document(WMS)).await.expect("in force");
    let allowed = receipt(&client, "wms", "2", "dc-east").await;
    assert_eq!(allowed.outcome(), applied, "{allowed:?}");
    for (source, id, location) in [("wms", "3", "store-1"), ("pos", "4", "dc-east")] {
        let parked = receipt(&client, source, id, location).await;
        assert_eq!(parked.outcome(), pb::Outcome::Parked, "{parked:?}");
    }
    let answer = client.ats("A", 0).await.expect("an answer");
    assert_eq!(answer.items[0].ats, 2);

    // The same after everything was read from the log again.
    let digest = client.digest(0).await;
    server.stop();
    server.restart();
    let client = server.connect().await;
    assert_eq!(client.digest(0).await.digest, digest.digest);
    let found = exceptions(&client).await;
    let told: Vec<(i32, &str, &str)> = found
        .iter()
        .map(|own| (own.kind, own.source.as_str(), own.id.as_str()))
        .collect();
    let kind = pb::ExceptionKind::UnauthorizedSource.into();
    assert_eq!(told, [(kind, "wms", "3"), (kind, "pos", "4")]);
    for own in &found {
        says(&own.reason, &["source", "release it"]);
    }

    // It is the authority of its time that counts: what was parked stays so.
    put(&client, document("# all")).await.expect("in force");
    let later = receipt(&client, "pos", "5", "dc-east").await;
    assert_eq!(later.outcome(), applied, "{later:?}");
    assert_eq!(exceptions(&client).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_are_put_compared_and_kept() {
    let server = Setup::new().start();
    let client = server.connect().await;
    let built_in = get(&client, 0).await.expect("the one built in");
    assert_eq!(built_in, pb::GetRulesResponse::default());

    let checked = pb::PutRulesRequest {
        validate_only: true,
        ..document(WMS)
    };
    let checked = put(&client, checked).await.expect("valid");
    assert_eq!((checked.version, checked.changed), (0, true));
    says(
        &checked.warnings.concat(),
        &["line 3", "`dc-*` matches no location seen so far"],
    );
    assert_eq!(get(&client, 0).await.expect("as before").version, 0);

    let expecting = |version: u64, toml: &str| pb::PutRulesRequest {
        expected_version: Some(version),
        ..document(toml)
    };
    let first = put(&client, expecting(0, WMS)).await.expect("in force");
    assert!(first.changed && first.version > 0);
    let again = put(&client, document(WMS)).await.expect("no change");
    assert_eq!((again.changed, again.version), (false, first.version));

    let late = put(&client, expecting(0, "# none")).await;
    let late = late.expect_err("another one is in force");
    assert_eq!(late.code(), Code::Aborted);
    says(late.message(), &["version 0", &first.version.to_string()]);

    let second = put(&client, expecting(first.version, "# none"))
        .await
        .expect("in force");
    assert!(second.version > first.version);
    let before = get(&client, first.version).await.expect("kept");
    assert_eq!((before.toml.as_str(), before.actor.as_str()), (WMS, "anna"));
    assert!(before.put_at.is_some() && before.note == "why");
    let unknown = get(&client, second.version + 1).await;
    let unknown = unknown.expect_err("no such version");
    assert_eq!(unknown.code(), Code::NotFound);

    // The rules are another document, with versions of their own.
    assert_eq!(client.status().await.rules_version, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_names_its_line() {
    let server = Setup::new().start();
    let client = server.connect().await;
    let broken = put(&client, document("[source.wms]\nmay = [\"shiped\"]\n")).await;
    let broken = broken.expect_err("a kind is wrong");
    assert_eq!(broken.code(), Code::InvalidArgument);
    let found = violations(&broken);
    assert_eq!(found[0].0, "toml:2:8");
    says(&found[0].1, &["source.wms.may", "did you mean `shipped`?"]);

    let dry_run = pb::PutRulesRequest {
        dry_run: true,
        ..document(WMS)
    };
    let dry_run = put(&client, dry_run).await.expect_err("there is none");
    assert_eq!(dry_run.code(), Code::InvalidArgument);
    assert_eq!(violations(&dry_run)[0].0, "dry_run");
    let long = pb::PutRulesRequest {
        actor: "x".repeat(129),
        ..document(WMS)
    };
    let long = put(&client, long).await.expect_err("too long");
    assert_eq!(violations(&long)[0].0, "actor");
    assert_eq!(get(&client, 0).await.expect("as before").version, 0);
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, waiting).await;
    assert!(waited.is_ok(), "in vain: {what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_put_at_the_start_and_on_sighup() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("authority.toml");
    fs::write(&file, WMS).expect("written");
    let mut server = Setup::new().set("authority.file", file.display()).start();
    let client = server.connect().await;
    let first = get(&client, 0).await.expect("in force");
    assert_eq!(
        (first.toml.as_str(), first.actor.as_str()),
        (WMS, "authority.file")
    );

    let changed = format!("{WMS}# more\n");
    fs::write(&file, &changed).expect("written");
    server.signal("HUP");
    until("the changed file", async || {
        get(&client, 0).await.expect("in force").toml == changed
    })
    .await;
    let second = get(&client, 0).await.expect("in force");

    fs::write(&file, "[source.wms]\nmayy = []\n").expect("written");
    server.signal("HUP");
    until("a complaint", async || {
        server.log().contains("source authority in force stay") && server.log().contains("mayy")
    })
    .await;
    assert_eq!(get(&client, 0).await.expect("as before"), second);

    // The file is not put again if it says what is in force.
    fs::write(&file, &changed).expect("written");
    server.stop();
    server.restart();
    let client = server.connect().await;
    assert_eq!(get(&client, 0).await.expect("as before"), second);
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn json(server: &Server, arguments: &[&str]) -> Value {
    let (out, err) = text(&server.run(arguments));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_check_put_and_get() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (sound, broken) = (path("sound.toml"), path("broken.toml"));
    fs::write(&sound, WMS).expect("written");
    fs::write(&broken, "[sources.wms]\n").expect("written");
    let server = Setup::new().rules(RULES).start();

    let (out, err) = text(&server.run(&["authority", "get"]));
    assert_eq!(out, "");
    says(&err, &["every source may post everything"]);
    for offline in [&[][..], &["--offline"]] {
        let arguments = |file| [&["authority", "check", file], offline].concat();
        let checked = server.run(&arguments(&broken));
        assert_eq!(checked.status.code(), Some(2), "{checked:?}");
        says(&text(&checked).1, &["line 1", "did you mean `source`?"]);
        let checked = server.run(&arguments(&sound));
        says(&text(&checked).0, &["The document is valid."]);
    }
    let put = json(
        &server,
        &["authority", "put", &sound, "--note", "why", "--json"],
    );
    assert_eq!(put["changed"], true);
    assert!(put.get("changes").is_none(), "{put}");
    let got = json(&server, &["authority", "get", "--json"]);
    assert_eq!((&got["toml"], &got["note"]), (&WMS.into(), &"why".into()));
    assert_eq!(got["version"], put["version"]);

    let late = server.run(&["authority", "put", &sound, "--expect", "0"]);
    let said = text(&late);
    assert_eq!(late.status.code(), Some(1), "{said:?}");
    says(&said.1, &["look with `sellable authority get`"]);
    // The channel rules are untouched, and answered as ever.
    let rules = json(&server, &["rules", "get", "--json"]);
    says(&rules["toml"].to_string(), &[CHANNEL]);
}
