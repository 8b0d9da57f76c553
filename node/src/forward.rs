//! Commands for keys that another node leads: sent to it as a small pipeline, answered one by one with
//! what became of each.

use std::future::Future;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use scatterhoard_cluster::{CallError, Lane, ReplyTo, Target};
use scatterhoard_resp::{Decoded, Decoder, Limits, Protocol, ReplyLimits, Value};
use scatterhoard_ring::NodeId;
use scatterhoard_store::Reply;
use tokio::time::Instant;

use crate::core::Core;
use crate::kind::Kind;
use crate::session::{ANSWERS_BYTES_MAX, Door, Outcome, Planned, Stage};

/// Version of the forwarding messages.
const VERSION: u8 = 1;

/// What became of a small pipeline.
pub(crate) enum Forwarded {
    /// Each command has an outcome and a reply.
    Answered(Vec<(Outcome, Bytes)>),
    /// Nothing left this process, or nothing was taken there: none of it happened.
    NotSent,
    /// It may have arrived.
    InDoubt,
}

impl Forwarded {
    /// Bytes of replies that it holds.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Answered(answers) => answers.iter().map(|(_, reply)| reply.len()).sum(),
            Self::NotSent | Self::InDoubt => 0,
        }
    }
}

/// Sends commands to the node that leads their keys.
pub(crate) fn send(
    core: &Core,
    node: NodeId,
    protocol: Protocol,
    count: usize,
    requests: Bytes,
    by: Instant,
) -> impl Future<Output = Forwarded> + Send + use<> {
    let member = core.tables.newest().and_then(|table| Some(table.members.get(&node)?.endpoints));
    let call = member.map(|endpoints| {
        let mut body = BytesMut::with_capacity(requests.len() + 8);
        body.put_u8(VERSION);
        body.put_u8(match protocol {
            Protocol::Resp2 => 2,
            Protocol::Resp3 => 3,
        });
        body.put_slice(&requests);
        let to = Target { node, addr: endpoints.peer };
        core.peers.call(to, Lane::Bulk, Kind::Forward.number(), body.freeze(), by)
    });
    async move {
        let Some(call) = call else { return Forwarded::NotSent };
        match call.await {
            Ok(mut answer) => match take_answers(&mut answer, count) {
                Some(answers) => Forwarded::Answered(answers),
                None => Forwarded::InDoubt,
            },
            Err(
                CallError::Unsent(_) | CallError::Refused(_) | CallError::Deadline { sent: false },
            ) => Forwarded::NotSent,
            Err(CallError::Lost | CallError::Deadline { sent: true }) => Forwarded::InDoubt,
        }
    }
}

/// Serves what another node has sent for keys that we lead.
pub(crate) async fn serve(core: Arc<Core>, mut body: Bytes, reply: ReplyTo) {
    let (Ok(VERSION), Ok(protocol)) = (body.try_get_u8(), body.try_get_u8()) else {
        return reply.refuse("forwarded in another version");
    };
    let protocol = if protocol == 3 { Protocol::Resp3 } else { Protocol::Resp2 };
    // The message was within its own limit.
    let mut decoder = Decoder::new(Limits {
        bulk_bytes_max: core.value_bytes_max(),
        request_bytes_max: usize::MAX,
        ..Limits::DEFAULT
    });
    let mut stage = Stage::new(&core, Door::Peer);
    let mut answers = Answers::default();
    let mut at = 0;
    stage.begin(protocol);
    while let Ok(Decoded::Request(request)) = decoder.decode(&body[at..]) {
        let range = at..at + request.bytes_consumed();
        at = range.end;
        let args = request.args();
        let Ok(command) = scatterhoard_command::parse(args, stage.wall()) else { break };
        if let Planned::AfterThis = stage.add(args, &command, range.clone()) {
            answers.finish(&mut stage, &body, protocol).await;
            if answers.are_over() {
                break;
            }
            // Alone in a stage, a command with keys never has to wait.
            let _done = stage.add(args, &command, range);
        }
        if stage.is_full() {
            answers.finish(&mut stage, &body, protocol).await;
            if answers.are_over() {
                break;
            }
        }
    }
    answers.finish(&mut stage, &body, protocol).await;
    reply.send(answers.bytes.freeze());
}

#[derive(Default)]
struct Answers {
    bytes: BytesMut,
    /// Something was not done, so nothing after it may be: it would overtake.
    refused: bool,
}

impl Answers {
    /// Whether nothing more may be done: it would overtake, or the answers would not fit.
    fn are_over(&self) -> bool {
        self.refused || self.bytes.len() >= ANSWERS_BYTES_MAX
    }

    async fn finish(&mut self, stage: &mut Stage, buffer: &[u8], protocol: Protocol) {
        let (mut replies, mut outcomes) = (Vec::new(), Vec::new());
        stage
            .finish(buffer, &mut replies, |outcome, length| outcomes.push((outcome, length)))
            .await;
        let mut start = 0;
        for (outcome, length) in outcomes {
            self.refused |= matches!(outcome, Outcome::NotDone);
            self.bytes.put_u8(match outcome {
                Outcome::Done => 0,
                Outcome::NotDone => 1,
                Outcome::InDoubt => 2,
            });
            self.bytes.put_u32(u32::try_from(length).expect("replies are bounded below 4 GiB"));
            self.bytes.put_slice(&replies[start..start + length]);
            start += length;
        }
        stage.begin(protocol);
    }
}

/// As many answers as were asked for; those that are missing were not done.
fn take_answers(answer: &mut Bytes, count: usize) -> Option<Vec<(Outcome, Bytes)>> {
    let mut answers = Vec::with_capacity(count);
    while answer.has_remaining() {
        let outcome = match answer.try_get_u8().ok()? {
            0 => Outcome::Done,
            1 => Outcome::NotDone,
            2 => Outcome::InDoubt,
            _ => return None,
        };
        let length = answer.try_get_u32().ok()? as usize;
        if length > answer.len() {
            return None;
        }
        answers.push((outcome, answer.split_to(length)));
    }
    while answers.len() < count {
        answers.push((Outcome::NotDone, Bytes::new()));
    }
    Some(answers)
}

/// The store's answer that an encoded reply stands for; `None` for an error, which is passed on as it is.
pub(crate) fn reply_of(encoded: &[u8]) -> Option<Reply<'static>> {
    let limits = ReplyLimits { bulk_bytes_max: usize::MAX, ..ReplyLimits::DEFAULT };
    let (value, _) = Value::decode(encoded, limits).ok()??;
    fn of(value: Value) -> Option<Reply<'static>> {
        Some(match value {
            Value::Null => Reply::Nil,
            Value::Integer(number) => Reply::Int(number),
            Value::Bulk(bytes) => Reply::Bulk(bytes.into()),
            Value::Simple(_) => Reply::Ok,
            Value::Array(items) => Reply::Array(items.into_iter().map(of).collect::<Option<_>>()?),
            _ => return None,
        })
    }
    of(value)
}
