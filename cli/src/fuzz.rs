//! What must hold of any configuration file and of any value of a flag. For tests and fuzzers only; the
//! fuzz targets include this file and those it uses as they are, since a binary cannot be linked to.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use clap::Parser;
use scatterhoard_node::Config;
use scatterhoard_prove::args::one_line;

use crate::address::{Endpoint, Host, Remote};
use crate::args::{Cli, Eviction, Log, Site, Whole};
use crate::measure::{Bytes, Span};
use crate::settings::{self, Misread};

/// A configuration file.
///
/// Nothing panics. What is wrong is said on one line, with a line that the file has. What is right makes a
/// configuration that a node can start from.
pub(crate) fn config(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    match settings::parse(text) {
        Err(Misread { line, message }) => {
            assert!((1..=text.lines().count() + 1).contains(&line), "line {line}");
            assert!(!message.contains('\n'), "{message}");
        }
        Ok(mut settings) => {
            // Neither asks the resolver nor reads files.
            settings.secret_file = None;
            settings.advertise.take_if(|host| host.to_string().parse::<IpAddr>().is_err());
            match settings::config(settings) {
                Ok(config) => startable(&config),
                Err(error) => assert!(error.is_usage(), "{error}"),
            }
        }
    }
}

/// What the node relies on.
fn startable(config: &Config) {
    assert!(
        (1..=7).contains(&config.replicas) && (1..=config.replicas).contains(&config.replicas_min)
    );
    assert!((1..=1024).contains(&config.partitions));
    assert!((1 << 10..=512 << 20).contains(&config.value_bytes_max));
    assert!((1..=1_000_000).contains(&config.clients_max));
    assert!(Config::replace_after_bounds().contains(&config.replace_after));
    assert!(!config.write_timeout.is_zero());
    let addresses = [config.listen, config.any_key, config.http, config.peer];
    assert!(addresses.iter().all(|address| address.port() != 0), "{addresses:?}");
    let labels = [config.name.as_deref().unwrap_or("n"), &config.zone];
    assert!(labels.iter().all(|label| label.len() <= Config::LABEL_BYTES_MAX));
    assert!(config.name.as_deref().is_none_or(|name| !name.trim().is_empty()));
    assert!(config.requirepass.as_deref() != Some(""));
}

/// A command line: the first byte chooses whether it is one value, read as each kind of flag reads it, or
/// whole arguments, one on each line.
///
/// Nothing panics. What can be written as it was read is read again as the same. What is wrong is said on
/// one line.
pub(crate) fn flags(input: &[u8]) {
    let Some((&kind, text)) = input.split_first() else { return };
    let Ok(text) = str::from_utf8(text) else { return };
    if kind & 1 == 0 {
        value(text);
        return;
    }
    let words = std::iter::once("hoard").chain(text.lines());
    if let Err(error) = Cli::try_parse_from(words) {
        let said = one_line(&error);
        assert!(!said.contains('\n'), "{said}");
    }
}

fn value(text: &str) {
    again::<Bytes>(text);
    again::<Remote>(text);
    again::<Host>(text);
    again::<Site>(text);
    if let Ok(Span(time)) = text.parse::<Span>() {
        assert_eq!(format!("{}ms", time.as_millis()).parse(), Ok(Span(time)));
    }
    if let Ok(endpoint) = text.parse::<Endpoint>() {
        let socket = endpoint.socket();
        assert!(socket.port() != 0);
        assert_eq!(socket.to_string().parse().map(Endpoint::socket), Ok(socket));
    }
    if let Ok(number) = text.parse::<Whole<1, 256>>() {
        assert!((1..=256).contains(&number.into_number::<u16>()));
    }
    if let Ok(Eviction(policy)) = text.parse() {
        assert!(policy.name().eq_ignore_ascii_case(text));
    }
    if let Ok(log) = text.parse::<Log>() {
        assert!(!log.directives().is_empty());
    }
}

/// What is read is read again from its writing.
fn again<T: FromStr + fmt::Display + PartialEq + fmt::Debug>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let written = value.to_string();
        assert_eq!(written.parse().ok(), Some(value), "from {written:?}");
    }
}

#[cfg(test)]
mod tests {
    use scatterhoard_fuzz::bounded;

    use super::*;

    #[test]
    fn any_file_is_refused_or_makes_a_node() {
        let seeds = [
            "listen = \"127.0.0.1:7001\"\nany-key = 8001\nhttp = \"[::1]:9001\"\npeer = 17001\n",
            "join = [\"10.0.0.6:16379\", \"h:1\"]\nname = \"n1\"\nzone = \"z\"\nreplicas = 5\n",
            "min-replicas = \"2\"\npartitions = 16\nreplace-after = \"5m\"\nmaxmemory = \"1gb\"\n",
            "maxmemory-policy = \"allkeys-lru\"\nmax-value = \"64mb\"\nrequirepass = \"x\"\n",
            "max-clients = 100\nwrite-timeout = \"2s\"\nthreads = 2\nlog = \"debug\"\n# end",
            "advertise = \"10.0.0.5\"\nlisten = \"0.0.0.0:7001\"\nleave-timeout = '20 S'\n",
            "secret-file = \"/s\"\ndata-dir = \"/d\"\n",
            "[node]\nlisten = 1\n",
        ];
        bounded("config", &seeds.map(|text| text.as_bytes().to_vec()), config);
    }

    #[test]
    fn any_flag_is_refused_in_a_line_or_read_as_it_is_written() {
        let values = [
            "64mb",
            "1gb",
            "7b",
            "200ms",
            "30 s",
            "10.0.0.5:16379",
            "[::1]:7001",
            "localhost:7001",
            "7001",
            "host.example",
            "http://h:8379/",
            "volatile-ttl",
            "256",
            "warn",
            "scatterhoard_cluster=debug,openraft=info",
        ];
        let lines = [
            "node\n--listen\n7001\n--join\na:1,b:2\n--replicas\n3\n--maxmemory=1gb",
            "status\n--json\n--http\n127.0.0.1:9001",
            "ready\n--wait\n5s",
            "recover\n--ended\nn1\n--ended\nn2",
            "drain\nn1",
            "node\n--replicas\n8",
            "nod",
            "node\n--help",
        ];
        let seed = |kind: &[u8], text: &str| [kind, text.as_bytes()].concat();
        let seeds = values.map(|text| seed(b"\0", text)).into_iter();
        let seeds = seeds.chain(lines.map(|text| seed(b"\x01", text)));
        bounded("flags", &seeds.collect::<Vec<_>>(), flags);
    }
}
