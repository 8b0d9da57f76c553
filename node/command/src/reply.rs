//! From a store's answer, or a refusal, to the wire.

use scatterhoard_resp::Encoder;
use scatterhoard_store::Reply;

use crate::CommandError;

/// Writes a store's answer.
pub fn encode_reply(out: &mut Encoder<'_>, reply: &Reply<'_>) {
    match reply {
        Reply::Ok => out.ok(),
        Reply::Nil => out.null(),
        Reply::Int(number) => out.integer(*number),
        Reply::Bulk(value) => out.bulk(value),
        Reply::Status(word) => out.simple(word),
        Reply::Array(items) | Reply::Tuple(items) => {
            out.array(items.len());
            for item in items {
                encode_reply(out, item);
            }
        }
        Reply::Map(fields) => {
            out.map(fields.len());
            for (name, value) in fields {
                out.simple(name);
                encode_reply(out, value);
            }
        }
        Reply::Bool(truth) => out.boolean(*truth),
        Reply::Error(error) => encode_text(out, &error.to_string()),
    }
}

/// Writes a refusal.
pub fn encode_error(out: &mut Encoder<'_>, error: &CommandError) {
    // Line ends of a client's words become spaces, but for those that nothing follows; as in Redis.
    encode_text(out, error.to_string().trim_end_matches(['\r', '\n']));
}

/// An error whose first word is its code.
fn encode_text(out: &mut Encoder<'_>, text: &str) {
    let (code, text) = text.split_once(' ').expect("every error starts with a code and a space");
    out.error(code, text);
}
