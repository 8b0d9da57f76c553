//! A store's answers on the wire.

use scatterhoard_command::{CommandError, encode_error, encode_reply};
use scatterhoard_resp::{Encoder, Protocol};
use scatterhoard_store::{OpError, Reply};

fn written(protocol: Protocol, write: impl Fn(&mut Encoder<'_>)) -> String {
    let mut out = Vec::new();
    write(&mut Encoder::new(&mut out, protocol));
    String::from_utf8(out).expect("the answers here are text")
}

#[test]
fn every_shape_in_both_protocols() {
    let check = |reply: Reply<'_>, resp2: &str, resp3: &str| {
        assert_eq!(written(Protocol::Resp2, |out| encode_reply(out, &reply)), resp2);
        assert_eq!(written(Protocol::Resp3, |out| encode_reply(out, &reply)), resp3);
    };
    let same = |reply: Reply<'_>, both: &str| check(reply, both, both);
    same(Reply::Ok, "+OK\r\n");
    same(Reply::Int(-2), ":-2\r\n");
    same(Reply::Bulk(b"v\r\n".into()), "$3\r\nv\r\n\r\n");
    same(Reply::Status("string"), "+string\r\n");
    same(Reply::Array(vec![]), "*0\r\n");
    check(Reply::Nil, "$-1\r\n", "_\r\n");
    let values = vec![Reply::Bulk(b"v".into()), Reply::Nil];
    check(Reply::Array(values), "*2\r\n$1\r\nv\r\n$-1\r\n", "*2\r\n$1\r\nv\r\n_\r\n");
}

#[test]
fn errors_begin_with_their_code() {
    let check = |error: OpError, text: &str| {
        assert_eq!(written(Protocol::Resp2, |out| encode_reply(out, &Reply::Error(error))), text);
    };
    check(OpError::NotAnInteger, "-ERR value is not an integer or out of range\r\n");
    check(
        OpError::WrongType,
        "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
    );
    assert_eq!(
        written(Protocol::Resp3, |out| encode_error(out, &CommandError::ProtocolUnsupported)),
        "-NOPROTO unsupported protocol version\r\n"
    );
}
