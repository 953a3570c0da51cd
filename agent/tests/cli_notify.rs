//! Messages: who is told of what, through a program that takes mail and a server that takes webhooks.
// The system's own tools are asked: layout::system has no such pipes.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::Bench;
use serde_json::Value;

const TOKEN: &str = "t0ken-of-the-test";

/// What a service was sent.
#[derive(Debug, Clone)]
struct Request {
    line: String,
    headers: Vec<String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter().filter_map(|h| h.split_once(": "));
        headers
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

/// A server that keeps what it is sent.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers with this status.
    fn start(status: &'static str) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = requests.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let request = answer(stream.unwrap(), status);
                kept.lock().unwrap().push(request);
            }
        });
        Server { port, requests }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What has come since the last call.
    fn take(&self) -> Vec<Request> {
        std::mem::take(&mut *self.requests.lock().unwrap())
    }
}

fn answer(mut stream: TcpStream, status: &str) -> Request {
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = |line: &String| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.parse().unwrap())
    };
    let length: usize = lines.iter().find_map(length).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\nLocation: /elsewhere\r\n\r\n"
    )
    .unwrap();
    Request {
        line: lines.remove(0),
        headers: lines,
        body: String::from_utf8(body).unwrap(),
    }
}

/// A host that saves one directory, tells root by mail, and others through webhooks.
struct Host {
    bench: Bench,
}

impl Host {
    fn new(webhooks: &str, more: &str) -> Host {
        let bench = Bench::with_store().loud();
        fs::create_dir_all(bench.path("tree")).unwrap();
        fs::write(bench.path("tree/file"), "content").unwrap();
        let mails = bench.path("mails");
        fs::create_dir(&mails).unwrap();
        let sendmail = bench.path("sendmail");
        let script = format!(
            "#!/bin/sh\ncd {mails:?} && echo \"$*\" > args && cat > part.$$ && mv part.$$ mail.$(ls | wc -l)\n"
        );
        fs::write(&sendmail, script).unwrap();
        fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
        bench.configure(&format!(
            "targets = [{:?}]\nroots = [{:?}]\n\n[notify]\nsendmail = {sendmail:?}\nlow-space = \"off\"\nwebhooks = [{webhooks}]\n{more}\n[metrics]\nfile = \"\"\n",
            bench.path("store"),
            bench.path("tree"),
        ));
        Host { bench }
    }

    /// Mails since the last call, in order.
    fn mails(&self) -> Vec<String> {
        let dir = self.bench.path("mails");
        let mut files: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| {
                p.file_name()
                    .unwrap()
                    .to_string_lossy()
                    .starts_with("mail.")
            })
            .collect();
        files.sort();
        let texts = files.iter().map(|f| fs::read_to_string(f).unwrap());
        let texts: Vec<String> = texts.collect();
        files.iter().for_each(|f| fs::remove_file(f).unwrap());
        texts
    }

    /// The target is not to be found.
    fn hide_store(&self) {
        fs::rename(self.bench.path("store"), self.bench.path("hidden")).unwrap();
    }

    fn show_store(&self) {
        fs::rename(self.bench.path("hidden"), self.bench.path("store")).unwrap();
    }

    /// All runs, and what was told, were so many hours earlier.
    fn pass(&self, hours: i64) {
        let earlier = |value: &mut Value| {
            let Some(text) = value.as_str() else { return };
            let time: i64 = seconds(text);
            *value = Value::String(rfc3339(time - hours * 3600));
        };
        for entry in fs::read_dir(self.bench.path("state/runs")).unwrap() {
            let path = entry.unwrap().path();
            let mut run: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            earlier(&mut run["started"]);
            earlier(&mut run["ended"]);
            fs::write(&path, serde_json::to_vec(&run).unwrap()).unwrap();
        }
        let path = self.bench.path("state/notified.json");
        let mut told: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        if let Some(told) = told["told"].as_object_mut() {
            for one in told.values_mut() {
                earlier(&mut one["since"]);
                earlier(&mut one["last"]);
            }
        }
        fs::write(&path, serde_json::to_vec(&told).unwrap()).unwrap();
    }
}

fn date(args: &[&str]) -> String {
    let output = Command::new("date").args(args).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn seconds(text: &str) -> i64 {
    date(&["-u", "-d", text, "+%s"]).parse().unwrap()
}

fn rfc3339(seconds: i64) -> String {
    date(&["-u", "-d", &format!("@{seconds}"), "+%Y-%m-%dT%H:%M:%SZ"])
}

fn subjects(mails: &[String]) -> Vec<&str> {
    let subject = |mail: &'_ String| -> usize { mail.find("\nSubject: ").unwrap() + 10 };
    mails
        .iter()
        .map(|mail| mail[subject(mail)..].lines().next().unwrap())
        .collect()
}

/// A mail and a webhook arrive for failure, overdue and recovery, and there is no secret in either.
#[test]
fn failure_overdue_and_recovery_arrive() {
    let server = Server::start("200 OK");
    let secret = tempfile::tempdir().unwrap();
    let token = secret.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let host = Host::new(
        &format!(
            "{{ kind = \"json\", url = {:?}, token-file = {token:?} }}",
            server.url("/s3cret-path")
        ),
        "",
    );
    let run = |args: &[&str], code| host.bench.run(args).expect(code);
    run(&["-q", "backup"], 0);
    assert!(host.mails().is_empty() && server.take().is_empty());

    host.hide_store();
    let failed = run(&["-q", "-vv", "backup"], 1);
    let mut said = failed.err;
    let mails = host.mails();
    assert_eq!(mails.len(), 1);
    let subject = subjects(&mails)[0];
    assert!(
        subject.starts_with("[lifeboat] ") && subject.contains(": backup of directories failed: "),
        "{subject}"
    );
    assert!(mails[0].starts_with("To: root\n") && mails[0].contains("cannot use the target"));
    assert!(mails[0].contains("-> "), "{}", mails[0]);
    assert_eq!(
        fs::read_to_string(host.bench.path("mails/args")).unwrap(),
        "-t -oi\n"
    );
    let requests = server.take();
    assert_eq!(requests.len(), 1);
    assert!(requests[0].line.starts_with("POST /s3cret-path "));
    assert_eq!(
        requests[0].header("Authorization"),
        Some(format!("Bearer {TOKEN}").as_str())
    );
    assert_eq!(requests[0].json()["event"], "failure");
    let mut told = vec![mails.concat(), requests[0].body.clone()];

    // The same again says nothing.
    run(&["-q", "backup"], 1);
    assert!(host.mails().is_empty() && server.take().is_empty());

    // Two days later nothing runs any more but the daily check.
    host.pass(48);
    let status = run(&["status", "--notify", "-vv"], 2);
    said.push_str(&status.err);
    assert!(status.out.starts_with("CRITICAL: "), "{}", status.out);
    let (mails, requests) = (host.mails(), server.take());
    assert_eq!(subjects(&mails).len(), 1);
    assert!(subjects(&mails)[0].contains("newest good restore point is 2 days old"));
    assert_eq!(requests[0].json()["event"], "overdue");
    told.extend([mails.concat(), requests[0].body.clone()]);
    run(&["status", "--notify", "-q"], 2);
    assert!(host.mails().is_empty() && server.take().is_empty());

    host.show_store();
    run(&["-q", "backup"], 0);
    let (mails, requests) = (host.mails(), server.take());
    assert_eq!(mails.len(), 1);
    assert!(subjects(&mails)[0].contains(": well again: "));
    assert_eq!(requests[0].json()["event"], "recovery");
    told.extend([mails.concat(), requests[0].body.clone()]);
    run(&["status", "--notify"], 0);
    assert!(host.mails().is_empty() && server.take().is_empty());

    let state = kept(&host.bench.path("state"));
    for text in told.iter().chain([&said, &state]) {
        assert!(!text.contains(TOKEN) && !text.contains("s3cret"), "{text}");
    }
}

/// All that is in the files of a directory.
fn kept(dir: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => all.push_str(&kept(&path)),
            false => all.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap())),
        }
    }
    all
}

/// What cannot be sent is said, waits, and goes with the next run.
#[test]
fn what_cannot_be_sent_goes_later() {
    // A port that nothing listens on.
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let host = Host::new(
        &format!("{{ kind = \"ntfy\", url = \"http://127.0.0.1:{port}/s3cret\" }}"),
        "when = \"always\"",
    );
    let run = host.bench.run(["-q", "backup"]).expect(0);
    assert!(
        run.err.contains(&format!("ntfy at 127.0.0.1:{port}: ")),
        "{}",
        run.err
    );
    assert!(!run.err.contains("s3cret"), "{}", run.err);
    // Who can be told is.
    assert_eq!(host.mails().len(), 1);
    let status = host.bench.run(["--json", "status"]).expect(1).json();
    let unsent = status["unsent"].as_str().unwrap();
    assert!(unsent.starts_with("ntfy at 127.0.0.1:"), "{unsent}");
    assert_eq!(
        fs::read_dir(host.bench.path("state/outbox"))
            .unwrap()
            .count(),
        1
    );

    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let first = std::thread::spawn(move || {
        (0..2)
            .map(|_| answer(listener.accept().unwrap().0, "200 OK"))
            .collect::<Vec<_>>()
    });
    host.bench.run(["-q", "backup"]).expect(0);
    let requests = first.join().unwrap();
    assert_eq!(requests.len(), 2);
    for request in &requests {
        assert!(request.header("Title").unwrap().contains("ended well"));
        assert_eq!(request.header("Priority"), Some("2"));
    }
    assert_eq!(host.mails().len(), 1);
    assert_eq!(
        fs::read_dir(host.bench.path("state/outbox"))
            .unwrap()
            .count(),
        0
    );
    host.bench.run(["status"]).expect(0);
}

#[test]
fn a_test_says_what_became_of_it() {
    let (fine, gone) = (Server::start("200 OK"), Server::start("404 Not Found"));
    let moved = Server::start("302 Found");
    let host = Host::new(
        &format!(
            "{{ kind = \"slack\", url = {:?} }}, {{ kind = \"gotify\", url = {:?}, token = \"{TOKEN}\" }}, \
             {{ kind = \"json\", url = {:?} }}",
            fine.url("/s3cret"),
            gone.url(""),
            moved.url("/s3cret"),
        ),
        "",
    );
    let config = host.bench.path("lifeboat.toml");
    let mode = |mode| fs::set_permissions(&config, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o644);
    let run = host.bench.run(["notify", "test"]).expect(1);
    // Secrets that everybody may read are none.
    assert_eq!(run.out.matches("chmod 600").count(), 2, "{}", run.out);
    assert!(fine.take().is_empty() && gone.take().is_empty());
    assert_eq!(moved.take().len(), 1);
    mode(0o600);
    let run = host.bench.run(["notify", "test"]).expect(1);
    assert!(
        run.out
            .contains("mail to root: the mail system has taken it"),
        "{}",
        run.out
    );
    assert!(
        run.out
            .contains(&format!("slack at 127.0.0.1:{}: sent", fine.port)),
        "{}",
        run.out
    );
    assert!(run.out.contains("HTTP status 404"), "{}", run.out);
    assert!(run.out.contains("HTTP status 302"), "{}", run.out);
    assert!(
        !run.out.contains("s3cret") && !run.out.contains(TOKEN),
        "{}",
        run.out
    );
    assert!(
        fine.take()[0].json()["text"]
            .as_str()
            .unwrap()
            .contains("this is a test")
    );
    let gotify = &gone.take()[0];
    assert!(gotify.line.starts_with("POST /message "));
    assert_eq!(gotify.header("X-Gotify-Key"), Some(TOKEN));
    // It does not go on to where it is sent.
    assert_eq!(moved.take().len(), 1);
    assert_eq!(host.mails().len(), 2);
    // Nothing of it is in what shows the configuration.
    let shown = host.bench.run(["config", "show"]).expect(0).out;
    assert!(
        !shown.contains("s3cret") && !shown.contains(TOKEN),
        "{shown}"
    );
    let json = host
        .bench
        .run(["--json", "notify", "test"])
        .expect(1)
        .json();
    assert_eq!(json[1]["ok"], true);
    assert_eq!(json[2]["ok"], false);
}

/// A server whose certificate nobody has signed gets nothing.
#[test]
fn a_server_that_is_not_trusted_is_told_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(args).current_dir(dir.path());
        command
    };
    let made = openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key",
        "-out",
        "cert",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=DNS:localhost",
    ])
    .output();
    if !made.is_ok_and(|made| made.status.success()) {
        eprintln!("skipped: there is no openssl");
        return;
    }
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let mut server = openssl(&[
        "s_server",
        "-accept",
        &port.to_string(),
        "-key",
        "key",
        "-cert",
        "cert",
        "-www",
    ])
    .stdin(Stdio::null())
    .stdout(Stdio::null())
    .stderr(Stdio::null())
    .spawn()
    .unwrap();
    for _ in 0..100 {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let host = Host::new(
        &format!("{{ kind = \"ntfy\", url = \"https://localhost:{port}/s3cret\" }}"),
        "",
    );
    let run = host.bench.run(["notify", "test"]);
    server.kill().unwrap();
    server.wait().unwrap();
    let run = run.expect(1);
    assert!(
        run.out.contains("its certificate is not trusted"),
        "{}",
        run.out
    );
    assert!(run.out.contains("update-ca-certificates"), "{}", run.out);
    assert!(!run.out.contains("s3cret"), "{}", run.out);
}
