//! Wrong command lines, settings and places: each ends with one line that says what is wrong, and nothing else happens.

use super::stand::{FIRN, Stand, dev, home};
use integration::process::{Finished, Firn};
use std::path::Path;

/// Ends like a command that could not do what it was asked, with one line that names `about`.
pub(crate) fn one_line(case: &str, finished: &Finished, about: &str, wrong: &mut Vec<String>) {
    // What went well before is logged, too.
    let said: Vec<&str> = finished.stderr.lines().filter(|line| !line.contains(" INFO ")).collect();
    let said = said.join("\n");
    let lines = said.lines().count();
    let fails = finished.status.code() == Some(1);
    if !fails || lines != 1 || !said.contains(about) || !said.starts_with("firn: ") {
        wrong.push(format!("{case}: {} with {lines} lines, wanted one about `{about}`:\n{said}", finished.status));
    }
}

async fn run(home: &Path, arguments: &[&str]) -> Finished {
    let firn = Firn::new(FIRN, &home.join("log"), arguments).env("AWS_ENDPOINT_URL", "http://127.0.0.1:1");
    let firn = firn.env("AWS_ACCESS_KEY_ID", "k").env("AWS_SECRET_ACCESS_KEY", "s").env("AWS_REGION", "eu-central-1");
    firn.finish().await.expect("it ends")
}

#[tokio::test]
async fn a_start_that_cannot_succeed_says_why() {
    let home = home();
    let taken = Stand::firn(|firn| firn).await;
    let file = home.path().join("file");
    std::fs::write(&file, "not a directory").expect("written");
    let file = file.display().to_string();
    let below_file = format!("{file}/data");
    let taken = taken.address().to_string();
    let log_dirs = format!("log.dirs={file}");
    let mut wrong = Vec::new();
    let cases: Vec<(&str, Vec<&str>)> = vec![
        ("(--kafka names another address)", vec!["--kafka", &taken]),
        ("nonsense", vec!["--kafka", "nonsense"]),
        ("70000", vec!["--kafka", "127.0.0.1:70000"]),
        ("(--http names another address)", vec!["--http", &taken]),
        ("no.such.setting", vec!["--set", "no.such.setting=1"]),
        ("log.retention.ms", vec!["--set", "log.retention.ms=soon"]),
        ("num.partitions", vec!["--set", "num.partitions=0"]),
        ("firn.flush", vec!["--set", "firn.flush=perhaps"]),
        ("firn.memory.bytes", vec!["--set", "firn.tail.cache.bytes=600000000"]),
        ("ftp", vec!["--object-store", "ftp://host/dir"]),
        ("s3://", vec!["--object-store", "s3://"]),
        ("not a url", vec!["--object-store", "not a url"]),
        ("file://", vec!["--object-store", "file://relative/dir"]),
        (&file, vec!["--data", &file]),
        (&below_file, vec!["--data", &below_file]),
        (&file, vec!["--set", &log_dirs]),
    ];
    for (about, arguments) in cases {
        let data = home.path().join("data").display().to_string();
        let finished = run(home.path(), &merged(&data, &arguments)).await;
        one_line(&arguments.join(" "), &finished, about, &mut wrong);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// `firn dev` with defaults that disturb nobody, and `arguments` in their place.
fn merged<'a>(data: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["dev"];
    for (flag, value) in [("--kafka", "127.0.0.1:0"), ("--http", "127.0.0.1:0"), ("--data", data)] {
        if !arguments.contains(&flag) {
            all.extend([flag, value]);
        }
    }
    all.extend(arguments);
    all
}

#[tokio::test]
async fn a_wrong_configuration_file_is_explained() {
    let home = home();
    let mut wrong = Vec::new();
    for (name, text, about) in [
        ("unknown", "no.such.setting = 1\n", "no.such.setting"),
        ("typo", "log.retentoin.ms = 1\n", "log.retention.ms"),
        ("invalid", "log.retention.ms = \"soon\"\n", "log.retention.ms"),
        ("refused", "process.roles = \"captain\"\n", "process.roles"),
        ("listener", "listeners = \"SSL://127.0.0.1:9093\"\n", "SSL"),
    ] {
        let path = home.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).expect("written");
        let path = path.display().to_string();
        for arguments in [&["server", "--config", &path][..], &["config", "check", &path]] {
            let finished = run(home.path(), arguments).await;
            one_line(&format!("{name} {}", arguments[0]), &finished, about, &mut wrong);
        }
    }
    for arguments in [&["server", "--config", "/not/there.toml"][..], &["config", "check", "/not/there.toml"]] {
        one_line(arguments[0], &run(home.path(), arguments).await, "/not/there.toml", &mut wrong);
    }
    // Where TOML itself is at fault, the place in the file is shown, which takes some lines.
    let path = home.path().join("syntax.toml");
    std::fs::write(&path, "log.retention.ms = = 1\n").expect("written");
    let finished = run(home.path(), &["config", "check", &path.display().to_string()]).await;
    assert!(finished.status.code() == Some(1) && finished.stderr.contains("line 1"), "{finished:?}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn client_commands_that_cannot_succeed_say_why() {
    let home = home();
    let stand = Stand::firn(|firn| firn).await;
    let at = stand.address().to_string();
    let mut wrong = Vec::new();
    let nowhere = "127.0.0.1:1";
    let text = home.path().join("text");
    std::fs::write(&text, "no segment").expect("written");
    let text = text.display().to_string();
    for (about, arguments) in [
        (nowhere, &["topic", "list", "--bootstrap", nowhere][..]),
        (nowhere, &["produce", "t", "--value", "x", "--bootstrap", nowhere]),
        (nowhere, &["consume", "t", "--bootstrap", nowhere]),
        (nowhere, &["tier", "status", "--admin", nowhere]),
        (nowhere, &["tier", "flush", "t", "--admin", nowhere]),
        ("INVALID_TOPIC_EXCEPTION", &["topic", "create", "a b", "--bootstrap", &at]),
        ("INVALID_CONFIG", &["topic", "create", "t", "--config", "no.such=1", "--bootstrap", &at]),
        ("INVALID_PARTITIONS", &["topic", "create", "t", "--partitions", "0", "--bootstrap", &at]),
        ("not-there", &["topic", "describe", "not-there", "--bootstrap", &at]),
        ("not-there", &["topic", "delete", "not-there", "--bootstrap", &at]),
        ("not-there", &["consume", "not-there", "--bootstrap", &at]),
        ("ftp", &["bucket", "check", "ftp://host/dir"]),
        ("/not/there", &["log", "dump", "/not/there"]),
        (&text, &["log", "dump", &text]),
    ] {
        one_line(&arguments.join(" "), &run(home.path(), arguments).await, about, &mut wrong);
    }
    // The report on a bucket has a line for each thing that was looked at; one that nobody can reach is one line.
    let finished = run(home.path(), &["bucket", "check", "s3://nobody/is-there"]).await;
    assert!(!finished.status.success() && !finished.stderr.contains("panicked"), "{finished:?}");
    // What the command line itself cannot read is explained by its parser, with the right exit code.
    for arguments in [&["dev", "--no-such-flag"][..], &["topic"], &["dev", "--set", "novalue"], &["frobnicate"]] {
        let finished = run(home.path(), arguments).await;
        assert_eq!(finished.status.code(), Some(2), "{arguments:?}: {}", finished.stderr);
        assert!(finished.stderr.contains("Usage") || finished.stderr.contains("error:"), "{}", finished.stderr);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_directory_serves_one_process_of_one_cluster() {
    let home = home();
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    let running = dev(&first).start().await.expect("a broker");
    let mut wrong = Vec::new();
    let again = dev(&first).finish().await.expect("it ends");
    one_line("the same directory", &again, &first.display().to_string(), &mut wrong);
    let mut witness = super::stand::Witness::at(running.kafka(), &[]).await;
    witness.is_well().await;
    running.kill().await.expect("killed");
    // Two directories of two clusters do not make one.
    let other = dev(&second).start().await.expect("a broker");
    other.kill().await.expect("killed");
    let both = format!("{},{}", first.display(), second.display());
    let mixed = dev(&first).set("log.dirs", both).finish().await.expect("it ends");
    one_line("two clusters", &mixed, &second.display().to_string(), &mut wrong);
    // The metadata of one cluster beside the records of another.
    let stray = home.path().join("stray");
    std::fs::create_dir_all(&stray).expect("a directory");
    std::fs::copy(second.join("meta.json"), stray.join("meta.json")).expect("copied");
    let strange = dev(&stray).finish().await.expect("it ends");
    one_line("records without their metadata", &strange, &stray.display().to_string(), &mut wrong);
    // A node of another number.
    let renumbered = dev(&first).set("node.id", 7).finish().await.expect("it ends");
    one_line("another node", &renumbered, &first.display().to_string(), &mut wrong);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // All of that did no harm.
    let running = dev(&first).start().await.expect("a broker");
    witness.address_moved(integration::client::Client::connect(running.kafka()).await.expect("a connection"));
    witness.is_well().await;
}
