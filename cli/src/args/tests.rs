use clap::CommandFactory;

use super::*;
use crate::settings::tests::refused_line;

/// The flags of `hoard node`: those of DESIGN.md, section 8, and the rest.
const NODE_FLAGS: [&str; 28] = [
    "--listen",
    "--any-key",
    "--http",
    "--peer",
    "--join",
    "--advertise",
    "--name",
    "--zone",
    "--data-dir",
    "--maxmemory",
    "--maxmemory-policy",
    "--max-value",
    "--near-cache-bytes",
    "--near-max-staleness",
    "--any-key-reads",
    "--min-replicas",
    "--replicas",
    "--partitions",
    "--secret-file",
    "--config",
    "--requirepass",
    "--replace-after",
    "--write-timeout",
    "--leave-timeout",
    "--max-clients",
    "--threads",
    "--log",
    "--help",
];

fn help_of(command: &str) -> String {
    let mut cli = Cli::command();
    let command = cli.find_subcommand_mut(command).unwrap();
    command.render_long_help().to_string()
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn the_help_of_a_node_explains_every_flag_and_variable() {
    let help = help_of("node");
    for flag in NODE_FLAGS {
        assert!(help.contains(&format!("{flag} ")) || flag == "--help", "{flag}");
        if !matches!(flag, "--help") {
            let variable = format!("HOARD_{}", flag[2..].replace('-', "_").to_uppercase());
            assert!(help.contains(&format!("[env: {variable}")), "{variable}");
        }
    }
    for policy in scatterhoard_store::Policy::ALL {
        assert!(help.contains(policy.name()), "{}", policy.name());
    }
}

#[test]
fn no_flag_goes_unexplained() {
    for command in Cli::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{}", command.get_name());
        for arg in command.get_arguments() {
            assert!(arg.get_help().is_some(), "{} {}", command.get_name(), arg.get_id());
        }
    }
    let known: Vec<String> = Cli::command()
        .find_subcommand("node")
        .unwrap()
        .get_arguments()
        .filter_map(|arg| arg.get_long().map(|long| format!("--{long}")))
        .collect();
    for flag in known {
        assert!(NODE_FLAGS.contains(&flag.as_str()), "{flag} is missing in this test");
    }
}

#[test]
fn the_help_states_the_defaults_that_hold() {
    let help = help_of("node").split_whitespace().collect::<Vec<_>>().join(" ");
    let config = scatterhoard_node::Config::default();
    let check = |flag: &str, default: String| {
        let (_, rest) = help.split_once(&format!("{flag} <")).unwrap();
        let (_, rest) = rest.split_once("[default: ").unwrap();
        let (stated, _) = rest.split_once(']').unwrap();
        assert_eq!(stated, default, "{flag}");
    };
    let seconds = |time: std::time::Duration| format!("{}s", time.as_secs());
    check("--listen", config.listen.to_string());
    check("--replicas", config.replicas.to_string());
    check("--min-replicas", config.replicas_min.to_string());
    check("--partitions", config.partitions.to_string());
    check("--replace-after", seconds(config.replace_after));
    check("--maxmemory", Bytes(config.maxmemory).to_string());
    check("--maxmemory-policy", config.maxmemory_policy.name().to_owned());
    check("--max-value", Bytes(config.value_bytes_max as u64).to_string());
    check("--near-cache-bytes", Bytes(config.near_cache_bytes).to_string());
    check("--near-max-staleness", format!("{}ms", config.near_staleness_max.as_millis()));
    assert_eq!(config.any_key_reads, AnyKeyReads::Leader);
    check("--any-key-reads", "leader".to_owned());
    check("--max-clients", config.clients_max.to_string());
    check("--write-timeout", seconds(config.write_timeout));
    check("--leave-timeout", seconds(config.leave_timeout));
}

#[test]
fn the_help_of_the_others_explains_them() {
    let top = Cli::command().render_long_help().to_string();
    for command in ["node", "status", "ready", "drain", "leave", "prove", "version"] {
        assert!(top.contains(&format!("\n  {command} ")), "{command}");
    }
    for command in ["status", "ready", "drain", "leave"] {
        assert!(help_of(command).contains("--http <ADDR>"), "{command}");
    }
    assert!(help_of("status").contains("--json"));
    assert!(help_of("ready").contains("--wait <TIME>"));
    assert!(help_of("drain").contains("<NODE>"));
    let help = help_of("prove").split_whitespace().collect::<Vec<_>>().join(" ");
    for kind in scatterhoard_prove::fault::Kind::ALL {
        assert!(help.contains(kind.name()), "{kind}");
    }
}

#[test]
fn a_mistake_on_the_command_line_is_one_line() {
    let check = |line: &str, said: &str| assert_eq!(refused_line(line), said, "{line}");
    check(
        "node --listne 7001",
        "unexpected argument '--listne' found; a similar argument exists: '--listen' (try --help)",
    );
    check(
        "node --replicas 9",
        "invalid value '9' for '--replicas <N>': expected a whole number from 1 to 7 (try --help)",
    );
    check(
        "prove --faults kill,cutt",
        "invalid value 'cutt' for '--faults <LIST>': there is no fault `cutt`; there are kill, crash, pause, \
         cut, island, one-way, loss, delay, reorder, bandwidth, clock, memory, descriptors, leave, \
         restart-all, join (try --help)",
    );
    check(
        "node --write-timeout 2",
        "invalid value '2' for '--write-timeout <TIME>': a time is a whole number and a unit, such as \
         200ms, 30s or 5m (try --help)",
    );
    check("drain", "the following required arguments were not provided: <NODE> (try --help)");
}

#[test]
fn the_last_of_two_equal_flags_wins() {
    let cli = Cli::try_parse_from(["hoard", "node", "--replicas", "3", "--replicas", "5"]).unwrap();
    let Command::Node(args) = cli.command else { panic!("a node was asked for") };
    assert_eq!(args.settings.replicas, Some(Whole(5)));
}

#[test]
fn a_node_is_asked_at_an_address_a_port_or_an_url() {
    let check = |text: &str, site: &str| {
        assert_eq!(text.parse::<Site>().unwrap().to_string(), site);
    };
    check("9001", "127.0.0.1:9001");
    check("cache-1:9001", "cache-1:9001");
    check("http://10.0.0.5:9001/", "10.0.0.5:9001");
    assert!("http://".parse::<Site>().is_err());
}

#[test]
fn a_log_level_is_ours_and_a_filter_everyones() {
    let check = |text: &str, directives: &str| {
        assert_eq!(text.parse::<Log>().unwrap().directives(), directives);
    };
    check("info", "warn,openraft=error,hoard=info,scatterhoard=info");
    check("DEBUG", "warn,hoard=debug,scatterhoard=debug");
    check("error", "error");
    check("off", "off");
    check("openraft=debug,warn", "openraft=debug,warn");
    assert!("".parse::<Log>().is_err());
    assert!("loud=very".parse::<Log>().is_err());
}
