//! What the table says of commands, and how `COMMAND` tells it.

use std::collections::BTreeMap;

use scatterhoard_command::{
    Category, CommandFilter, CommandQuery, CommandSpec, Glob, HelpTopic, commands, resolve,
    write_help, write_query,
};
use scatterhoard_resp::{Args, Encoder, Protocol, ReplyLimits, Value};

fn answer(query: &CommandQuery<'_>, protocol: Protocol) -> Value {
    let mut out = Vec::new();
    write_query(&mut Encoder::new(&mut out, protocol), query);
    let (value, bytes) = Value::decode(&out, ReplyLimits::DEFAULT)
        .expect("a reply of ours is one")
        .expect("it is all there");
    assert_eq!(bytes, out.len(), "one reply and no more");
    value
}

fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) | Value::Set(items) => items,
        other => panic!("{other:?} has no items"),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Simple(text) => text.clone(),
        Value::Bulk(bytes) => String::from_utf8(bytes.clone()).expect("names are text"),
        Value::Integer(number) => number.to_string(),
        other => panic!("{other:?} is no text"),
    }
}

/// Sorted and joined; `-` if there are none.
fn joined(value: &Value) -> String {
    let mut words: Vec<_> = items(value).iter().map(text).collect();
    words.sort();
    if words.is_empty() { "-".to_owned() } else { words.join(",") }
}

/// The value of a field of a map that came as a flat array.
fn field<'v>(map: &'v Value, name: &str) -> &'v Value {
    items(map)
        .chunks(2)
        .find(|pair| text(&pair[0]) == name)
        .map(|pair| &pair[1])
        .expect("the field")
}

fn key_specs(value: &Value) -> String {
    let specs = items(value).iter().map(|spec| {
        let begin = field(field(spec, "begin_search"), "spec");
        let find = field(field(spec, "find_keys"), "spec");
        let first = text(field(begin, "index"));
        let (last, step) = (text(field(find, "lastkey")), text(field(find, "keystep")));
        format!("{first}:{last}:{step}:{}", joined(field(spec, "flags")).replace(',', "+"))
    });
    let specs: Vec<_> = specs.collect();
    if specs.is_empty() { "-".to_owned() } else { specs.join(";") }
}

/// Every entry and every subcommand's entry as a line of the record.
fn lines_of(entries: &[Value], lines: &mut BTreeMap<String, String>) {
    for entry in entries {
        let parts = items(entry);
        assert_eq!(parts.len(), 10, "clients that know Redis 7 expect ten elements");
        let mut line: Vec<_> = parts[..2].iter().map(text).collect();
        line.push(joined(&parts[2]));
        line.extend(parts[3..6].iter().map(text));
        line.extend([joined(&parts[6]), joined(&parts[7]), key_specs(&parts[8])]);
        assert_eq!(lines.insert(line[0].clone(), line.join(" ")), None, "names are unique");
        lines_of(items(&parts[9]), lines);
    }
}

#[test]
fn entries_are_those_of_redis() {
    let mut lines = BTreeMap::new();
    lines_of(items(&answer(&CommandQuery::All, Protocol::Resp2)), &mut lines);
    let recorded = include_str!("redis-7.0.15-commands.txt");
    for line in recorded.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(' ').next().expect("a line has a name");
        assert_eq!(lines.remove(name).as_deref(), Some(line));
    }
    let later: Vec<_> = lines.keys().map(String::as_str).collect();
    assert_eq!(
        later,
        [
            "bf.add",
            "bf.exists",
            "bf.info",
            "bf.madd",
            "bf.mexists",
            "bf.reserve",
            "client|near",
            "client|no-touch",
            "client|setinfo",
            "cluster|myshardid",
            "debug|help",
            "debug|sleep",
            "hoard.fill",
            "hoard.get",
            "hoard.invalidate",
            "hoard.probe",
            "hoard.release",
            "hoard.set",
            "hoard.wait",
        ]
    );
}

#[test]
fn every_command_is_found_under_its_name_in_any_case() {
    for spec in commands() {
        // Most that have subcommands mean nothing without one.
        if spec.subcommands.is_empty() || spec.name == "command" {
            assert_eq!(find(spec.name), Some(spec));
            assert_eq!(find(&spec.name.to_ascii_uppercase()), Some(spec));
        }
        for subcommand in spec.subcommands {
            assert_eq!(find(subcommand.name), Some(subcommand));
            assert_eq!(find(&subcommand.name.to_ascii_uppercase()), Some(subcommand));
        }
    }
    for stranger in ["", "ge", "gett", "get\0", "g\u{e9}t", "'get", "a_name_of_17_char", "GE\u{14}"]
    {
        assert_eq!(find(stranger), None, "{stranger:?}");
    }
}

/// With as many arguments as it takes at least.
fn find(name: &str) -> Option<&'static CommandSpec> {
    (0..8).find_map(|count| {
        let mut words: Vec<&[u8]> = name.split('|').map(str::as_bytes).collect();
        words.resize(words.len() + count, b"x");
        resolve(Args::from(&words)).ok()
    })
}

#[test]
fn what_a_server_has_to_know() {
    let spec = |name: &str| find(name).expect("the command");
    assert!(spec("set").is_write() && spec("set").is_denied_when_full());
    assert!(spec("del").is_write() && !spec("del").is_denied_when_full());
    assert!(spec("get").is_fast() && !spec("get").is_write());
    let before_auth: Vec<_> =
        commands().filter(|spec| spec.is_allowed_before_auth()).map(|spec| spec.name).collect();
    assert_eq!(before_auth, ["hello", "auth", "quit", "reset"]);
    assert!(spec("config|set").is_in(Category::Dangerous));
}

#[test]
fn commands_by_name() {
    let names = vec![&b"GET"[..], b"nope", b"client|KILL", b"client|nope"];
    let info = answer(&CommandQuery::Info { names: names.clone() }, Protocol::Resp3);
    let [get, nope, kill, no_kill] = items(&info) else { panic!("one answer for each name") };
    assert_eq!(text(&items(get)[0]), "get");
    assert_eq!(text(&items(kill)[0]), "client|kill");
    assert_eq!((nope, no_kill), (&Value::Null, &Value::Null));

    let Value::Map(docs) = answer(&CommandQuery::Docs { names }, Protocol::Resp3) else {
        panic!("documentation is a map")
    };
    let names: Vec<_> = docs.iter().map(|(name, _)| text(name)).collect();
    assert_eq!(names, ["get", "client|kill"]);
}

#[test]
fn an_entry_on_the_wire_is_that_of_redis() {
    // Recorded from redis-server 7.0.15.
    let recorded = "*1 *10 $4 copy :-3 ~2 +write +denyoom :1 :2 :1 ~3 +@keyspace +@write +@slow ~0 \
        ~2 %3 $5 flags ~2 +RO +access $12 begin_search %2 $4 type $5 index $4 spec %1 $5 index :1 \
        $9 find_keys %2 $4 type $5 range $4 spec %3 $7 lastkey :0 $7 keystep :1 $5 limit :0 \
        %3 $5 flags ~2 +OW +update $12 begin_search %2 $4 type $5 index $4 spec %1 $5 index :2 \
        $9 find_keys %2 $4 type $5 range $4 spec %3 $7 lastkey :0 $7 keystep :1 $5 limit :0 ~0 ";
    let mut out = Vec::new();
    let query = CommandQuery::Info { names: vec![b"copy"] };
    write_query(&mut Encoder::new(&mut out, Protocol::Resp3), &query);
    let written = String::from_utf8(out).expect("an entry is text");
    assert_eq!(written.replace("\r\n", " "), recorded);
}

#[test]
fn documentation_has_what_redis_cli_reads() {
    let docs = answer(&CommandQuery::Docs { names: vec![] }, Protocol::Resp3);
    let Value::Map(docs) = docs else { panic!("documentation is a map") };
    assert_eq!(docs.len(), commands().len());
    check_docs(&docs);
}

fn check_docs(docs: &[(Value, Value)]) {
    for (name, doc) in docs {
        let Value::Map(fields) = doc else { panic!("{name:?} has fields") };
        for ((field, value), expected) in
            fields.iter().zip(["summary", "since", "group", "complexity"])
        {
            assert_eq!(text(field), expected);
            assert!(!text(value).is_empty(), "{name:?} has a {expected}");
        }
        for (field, value) in fields {
            if let (true, Value::Map(subcommands)) = (text(field) == "subcommands", value) {
                check_docs(subcommands);
            }
        }
    }
}

#[test]
fn names_by_filter() {
    let list = |filter| joined(&answer(&CommandQuery::List(filter), Protocol::Resp2));
    assert_eq!(list(CommandFilter::Module), "-");
    assert_eq!(list(CommandFilter::Category(b"nope")), "-");
    assert_eq!(list(CommandFilter::Category(b"@string")), "-");
    assert_eq!(
        list(CommandFilter::Pattern(Glob::new(b"SLOW*"))),
        "slowlog,slowlog|get,slowlog|help,slowlog|len,slowlog|reset"
    );
    let strings = "append,decr,decrby,get,getdel,getex,getrange,getset,incr,incrby,incrbyfloat,mget,\
        mset,msetnx,psetex,set,setex,setnx,setrange,strlen,substr";
    assert_eq!(list(CommandFilter::Category(b"String")), strings);
    let all = list(CommandFilter::All);
    let subcommands: usize = commands().map(|spec| spec.subcommands.len()).sum();
    assert_eq!(all.split(',').count(), commands().len() + subcommands);
    assert_eq!(
        answer(&CommandQuery::Count, Protocol::Resp2),
        Value::Integer(commands().len() as i64)
    );
}

#[test]
fn the_keys_in_a_command() {
    let keys = |command: &'static str| {
        let words = command.split(' ').map(str::as_bytes).collect();
        let keys = answer(&CommandQuery::GetKeys { words }, Protocol::Resp2);
        items(&keys).iter().map(text).collect::<Vec<_>>().join(" ")
    };
    // As recorded from redis-server 7.0.15.
    assert_eq!(keys("MGET a b"), "a b");
    assert_eq!(keys("mset a 1 b 2"), "a b");
    assert_eq!(keys("mset a 1 b 2 c"), "a b c");
    assert_eq!(keys("mset a 1 b"), "a b");
    assert_eq!(keys("copy a b replace"), "a b");
    assert_eq!(keys("memory usage k samples 0"), "k");
    assert_eq!(keys("object encoding x"), "x");
    assert_eq!(keys("set k v ex 1"), "k");
}

#[test]
fn every_list_of_subcommands_has_its_help() {
    for spec in commands().filter(|spec| !spec.subcommands.is_empty()) {
        assert!(find(&format!("{}|help", spec.name)).is_some(), "{} HELP", spec.name);
    }
    let mut out = Vec::new();
    write_help(&mut Encoder::new(&mut out, Protocol::Resp2), HelpTopic::SlowLog);
    assert_eq!(
        String::from_utf8(out).expect("help is text").replace("\r\n", "\n"),
        "*9\n\
         +SLOWLOG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:\n\
         +GET [count]\n+    The latest of them.\n\
         +LEN\n+    How many there are.\n\
         +RESET\n+    Forgets them.\n\
         +HELP\n+    Prints this help.\n"
    );
}
