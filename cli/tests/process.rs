//! The binary as a process: what it exits with, and that it says why in one line.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Runs `hoard` with these arguments and variables, and nothing else of this process's environment.
fn hoard(args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hoard"));
    let output = command.env_clear().envs(variables.iter().copied()).args(args).output();
    let output = output.expect("the binary was built for this test");
    let text = |bytes| String::from_utf8(bytes).expect("it prints UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn refused(args: &[&str], variables: &[(&str, &str)], code: i32, said: &str) {
    let (status, out, err) = hoard(args, variables);
    assert_eq!((status, out.as_str()), (Some(code), ""), "{err}");
    assert!(err.starts_with("hoard: ") && err.contains(said), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn help_and_version_are_printed() {
    let (code, out, _) = hoard(&["--help"], &[]);
    assert_eq!(code, Some(0));
    assert!(out.contains("hoard node --join HOST:PORT"), "{out}");
    let (code, version, _) = hoard(&["version"], &[]);
    assert_eq!(code, Some(0));
    assert_eq!(version, hoard(&["--version"], &[]).1);
    let (code, _, err) = hoard(&[], &[]);
    assert_eq!(code, Some(2));
    assert!(err.contains("Usage: hoard <COMMAND>"), "{err}");
}

#[test]
fn a_variable_wins_over_the_file_and_a_flag_over_the_variable() {
    // Which setting holds shows in the port that is past the last.
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("layers.toml");
    fs::write(&file, "listen = \"127.0.0.1:60001\"\n").unwrap();
    let file = file.to_str().unwrap();
    let variable = ("HOARD_LISTEN", "127.0.0.1:60002");
    refused(&["node", "--config", file], &[], 2, "port 70001");
    refused(&["node"], &[("HOARD_CONFIG", file)], 2, "port 70001");
    refused(&["node", "--config", file], &[variable], 2, "port 70002");
    refused(&["node", "--config", file, "--listen", "60003"], &[variable], 2, "port 70003");
}

#[test]
fn a_mistake_is_one_line_and_exits_with_2() {
    refused(&["node", "--no-such-flag"], &[], 2, "--no-such-flag");
    refused(&["nod"], &[], 2, "a similar subcommand exists: 'node'");
    refused(&["node"], &[("HOARD_REPLICAS", "many")], 2, "--replicas");
    refused(&["node", "--data-dir", "/tmp"], &[], 2, "later release");
    for (flag, value, said) in [
        ("--replace-after", "200ms", "--replace-after 200ms is less than 450ms"),
        ("--replace-after", "3650d", "--replace-after is more than 49 days"),
        ("--partitions", "0", "expected a whole number from 1 to 1024"),
        ("--partitions", "1025", "expected a whole number from 1 to 1024"),
        ("--replicas", "0", "expected a whole number from 1 to 7"),
        ("--replicas", "8", "expected a whole number from 1 to 7"),
        ("--min-replicas", "0", "expected a whole number from 1 to 7"),
        ("--min-replicas", "4", "--min-replicas 4 is more than --replicas 3"),
        ("--max-value", "1023b", "--max-value 1023 is not between 1kb and 512mb"),
        ("--max-value", "513mb", "--max-value 513mb is not between 1kb and 512mb"),
    ] {
        refused(&["node", flag, value], &[], 2, said);
    }
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("unknown.toml");
    fs::write(&file, "\nprot = 1\n").unwrap();
    let file = file.to_str().unwrap();
    refused(&["node", "--config", file], &[], 2, &format!("{file}:2: unknown key `prot`"));
}

#[test]
fn what_does_not_work_is_one_line_and_exits_with_1() {
    refused(&["node", "--config", "/nowhere/a.toml"], &[], 1, "/nowhere/a.toml");
    refused(&["node", "--secret-file", "/nowhere/secret"], &[], 1, "/nowhere/secret");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let peer = ["node", "--listen", "1", "--peer", &address];
    refused(&peer, &[], 1, &format!("cannot listen on {address}"));

    let site = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for command in [&["status"][..], &["ready"], &["leave"], &["drain", "a"]] {
        let args: Vec<&str> = command.iter().copied().chain(["--http", &site]).collect();
        refused(&args, &[], 1, &format!("no answer from a node at {site}"));
    }
}

#[test]
fn a_node_is_drained_by_its_name_whatever_that_is() {
    let site = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = site.local_addr().unwrap().to_string();
    let drain = Command::new(env!("CARGO_BIN_EXE_hoard"))
        .args(["drain", "rack 4/a&b=é+", "--http", &address])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut asked, _) = site.accept().unwrap();
    let mut first = String::new();
    BufReader::new(&asked).read_line(&mut first).unwrap();
    asked.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(first, "POST /api/drain?node=rack+4%2Fa%26b%3D%C3%A9%2B HTTP/1.1\r\n");
    let output = drain.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && out.starts_with("rack 4/a&b=é+ is leaving"), "{out}");
}
