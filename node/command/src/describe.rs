//! `COMMAND …`: what the table says, on the wire.
//!
//! Shapes are those of Redis 7.0: entries of ten elements; in RESP3 sets and maps where Redis has them.

use scatterhoard_resp::{Args, Encoder};

use crate::{
    CommandError, CommandFilter, CommandQuery, CommandSpec, Deprecated, KeySpec,
    arguments::{Argument, ArgumentKind, arguments_of},
    commands, encode_error,
    lookup::{find_full, resolve_quietly},
};

/// Answers `COMMAND …`.
pub fn write_query(out: &mut Encoder<'_>, query: &CommandQuery<'_>) {
    match query {
        CommandQuery::All => write_entries(out),
        CommandQuery::Count => out.integer(commands().len() as i64),
        CommandQuery::Info { names } if names.is_empty() => write_entries(out),
        CommandQuery::Info { names } => {
            out.array(names.len());
            for name in names {
                match find_full(name) {
                    Some(spec) => write_entry(out, spec),
                    None => out.null(),
                }
            }
        }
        CommandQuery::Docs { names } if names.is_empty() => write_docs(out, commands()),
        CommandQuery::Docs { names } => {
            let known: Vec<_> = names.iter().filter_map(|name| find_full(name)).collect();
            write_docs(out, known.into_iter());
        }
        CommandQuery::GetKeys { words } => write_keys(out, words),
        CommandQuery::List(filter) => write_names(out, filter),
    }
}

fn write_entries(out: &mut Encoder<'_>) {
    out.array(commands().len());
    for spec in commands() {
        write_entry(out, spec);
    }
}

fn write_entry(out: &mut Encoder<'_>, spec: &CommandSpec) {
    let (first, last, step) = key_range(spec.keys);
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    write_words(out, spec.flags.iter().map(|flag| flag.name()));
    out.integer(i64::from(first));
    out.integer(i64::from(last));
    out.integer(i64::from(step));
    write_words(out, spec.categories().map(|category| category.name()));
    out.set(spec.tips.len());
    for tip in spec.tips {
        out.bulk(tip.as_bytes());
    }
    out.set(spec.keys.len());
    for keys in spec.keys {
        write_key_spec(out, keys);
    }
    // Redis writes an empty set, but a list of subcommands.
    match spec.subcommands.len() {
        0 => out.set(0),
        count => out.array(count),
    }
    for subcommand in spec.subcommands {
        write_entry(out, subcommand);
    }
}

/// The first key, the last one (from the end if negative), and the step, as before Redis 7.
fn key_range(specs: &[KeySpec]) -> (i8, i8, i8) {
    let Some(lead) = specs.first() else {
        return (0, 0, 0);
    };
    let last_of = |spec: &KeySpec| if spec.last < 0 { spec.last } else { spec.first + spec.last };
    let last = specs.iter().map(last_of).max().unwrap_or_default();
    (lead.first, last, lead.step)
}

/// A set of simple strings.
fn write_words(out: &mut Encoder<'_>, words: impl Iterator<Item = &'static str>) {
    let words: Vec<_> = words.collect();
    out.set(words.len());
    for word in words {
        out.simple(word);
    }
}

fn write_key_spec(out: &mut Encoder<'_>, keys: &KeySpec) {
    out.map(3);
    out.bulk(b"flags");
    write_words(out, keys.flags.iter().copied());
    out.bulk(b"begin_search");
    out.map(2);
    write_field(out, "type", "index");
    out.bulk(b"spec");
    out.map(1);
    out.bulk(b"index");
    out.integer(i64::from(keys.first));
    out.bulk(b"find_keys");
    out.map(2);
    write_field(out, "type", "range");
    out.bulk(b"spec");
    out.map(3);
    for (name, number) in [("lastkey", keys.last), ("keystep", keys.step), ("limit", 0)] {
        out.bulk(name.as_bytes());
        out.integer(i64::from(number));
    }
}

fn write_field(out: &mut Encoder<'_>, name: &str, value: &str) {
    out.bulk(name.as_bytes());
    out.bulk(value.as_bytes());
}

fn write_docs(out: &mut Encoder<'_>, specs: impl ExactSizeIterator<Item = &'static CommandSpec>) {
    out.map(specs.len());
    for spec in specs {
        out.bulk(spec.name.as_bytes());
        write_doc(out, spec);
    }
}

fn write_doc(out: &mut Encoder<'_>, spec: &'static CommandSpec) {
    let fields_of_deprecated = if spec.deprecated.is_some() { 3 } else { 0 };
    let fields_of_container = usize::from(!spec.subcommands.is_empty());
    let arguments = arguments_of(spec);
    let fields_of_arguments = usize::from(!arguments.is_empty());
    out.map(4 + fields_of_deprecated + fields_of_arguments + fields_of_container);
    write_field(out, "summary", spec.summary);
    write_field(out, "since", spec.since);
    write_field(out, "group", spec.group.name());
    write_field(out, "complexity", spec.complexity);
    if let Some(Deprecated { since, replaced_by }) = spec.deprecated {
        out.bulk(b"doc_flags");
        write_words(out, std::iter::once("deprecated"));
        write_field(out, "deprecated_since", since);
        write_field(out, "replaced_by", replaced_by);
    }
    if !arguments.is_empty() {
        out.bulk(b"arguments");
        write_arguments(out, spec, &arguments);
    }
    if !spec.subcommands.is_empty() {
        out.bulk(b"subcommands");
        write_docs(out, spec.subcommands.iter());
    }
}

fn write_arguments(out: &mut Encoder<'_>, spec: &CommandSpec, arguments: &[Argument]) {
    out.array(arguments.len());
    for argument in arguments {
        write_argument(out, spec, argument);
    }
}

fn write_argument(out: &mut Encoder<'_>, spec: &CommandSpec, argument: &Argument) {
    let (kind, parts) = match &argument.kind {
        ArgumentKind::Token => ("pure-token", None),
        ArgumentKind::Value(name) => (type_of_value(name), None),
        ArgumentKind::Choice(parts) => ("oneof", Some(parts)),
        ArgumentKind::Block(parts) => ("block", Some(parts)),
    };
    let flags = [
        ("optional", argument.optional),
        ("multiple", argument.repeated),
        ("multiple_token", argument.repeats_token),
    ];
    let flags = || flags.into_iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| flag);
    let is_flagged = argument.optional || argument.repeated;
    let is_key = kind == "key" && !spec.keys.is_empty();
    let is_token = argument.token.is_some();
    out.map(
        2 + [is_key, is_token, is_flagged, parts.is_some()].map(usize::from).iter().sum::<usize>(),
    );
    write_field(out, "name", &argument.name());
    write_field(out, "type", kind);
    if is_key {
        out.bulk(b"key_spec_index");
        // Only commands with a second key have a second specification, and only they call it otherwise.
        let is_second = matches!(argument.kind, ArgumentKind::Value("newkey" | "destination"));
        out.integer(i64::from(is_second && spec.keys.len() > 1));
    }
    if let Some(token) = argument.token {
        write_field(out, "token", token);
    }
    if is_flagged {
        out.bulk(b"flags");
        write_words(out, flags());
    }
    if let Some(parts) = parts {
        out.bulk(b"arguments");
        write_arguments(out, spec, parts);
    }
}

/// Redis, "Command arguments", by what a value is called in the table.
fn type_of_value(name: &str) -> &'static str {
    match name {
        "key" | "newkey" | "source" | "destination" => "key",
        "pattern" => "pattern",
        "unix-time-seconds" | "unix-time-milliseconds" => "unix-time",
        "fraction" => "double",
        "seconds" | "milliseconds" | "increment" | "decrement" | "start" | "end" | "offset"
        | "count" | "cursor" | "index" | "destination-db" | "timeout" | "numreplicas"
        | "protover" | "client-id" | "slot" | "port" | "cluster-bus-port" => "integer",
        _ => "string",
    }
}

fn write_keys(out: &mut Encoder<'_>, words: &[&[u8]]) {
    match keys_in(words) {
        Ok(keys) => {
            out.array(keys.len());
            for key in keys {
                out.bulk(key);
            }
        }
        Err(error) => encode_error(out, &error),
    }
}

fn keys_in<'a>(words: &[&'a [u8]]) -> Result<Vec<&'a [u8]>, CommandError> {
    let spec = resolve_quietly(Args::from(words)).ok_or(CommandError::GetKeysUnknown)?;
    if spec.keys.is_empty() {
        return Err(CommandError::GetKeysNone);
    }
    if !spec.accepts(words.len()) {
        return Err(CommandError::GetKeysArity);
    }
    let indices = spec.key_indices(words.len()).ok_or(CommandError::GetKeysArity)?;
    Ok(indices.into_iter().map(|index| words[index]).collect())
}

fn write_names(out: &mut Encoder<'_>, filter: &CommandFilter<'_>) {
    let with_subcommands =
        || commands().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    let specs: Vec<&CommandSpec> = match filter {
        CommandFilter::All => with_subcommands().collect(),
        CommandFilter::Module => Vec::new(),
        CommandFilter::Category(name) => with_subcommands()
            .filter(|spec| spec.categories().any(|category| category.is_called(name)))
            .collect(),
        CommandFilter::Pattern(pattern) => with_subcommands()
            .filter(|spec| pattern.matches_ignoring_case(spec.name.as_bytes()))
            .collect(),
    };
    out.array(specs.len());
    for spec in specs {
        out.bulk(spec.name.as_bytes());
    }
}
