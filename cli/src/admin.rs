//! Asks a node over its HTTP interface, and tells it to go.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::time::Instant;

use crate::args::{AskArgs, DrainArgs, ReadyArgs, RecoverArgs, Site};
use crate::say;

/// How long a node may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long it may take to agree to leave: the council has to hear of it.
const AGREE_MAX: Duration = Duration::from_secs(15);

/// Pause between two questions whether a cluster is ready.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// A node's answer: its HTTP status and text.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) text: String,
}

/// Asks `http://site/path`.
pub(crate) fn get(site: &Site, path: &str) -> anyhow::Result<Answer> {
    let asked = agent(ANSWER_MAX).get(format!("http://{site}{path}")).call();
    answer(site, asked)
}

fn post(site: &Site, path: &str) -> anyhow::Result<Answer> {
    answer(site, agent(AGREE_MAX).post(format!("http://{site}{path}")).send_empty())
}

fn agent(patience: Duration) -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(patience))
        .http_status_as_error(false)
        // Nodes are asked directly: a proxy meant for the web does not know them.
        .proxy(None)
        .build()
        .into()
}

fn answer(
    site: &Site,
    asked: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
) -> anyhow::Result<Answer> {
    let mut response = asked.with_context(|| format!("no answer from a node at {site}"))?;
    let text = response.body_mut().read_to_string();
    let text = text.with_context(|| format!("the answer from {site} broke off"))?;
    Ok(Answer { status: response.status().as_u16(), text })
}

/// `hoard ready`.
pub(crate) fn ready(args: &ReadyArgs) -> anyhow::Result<ExitCode> {
    let by = args.wait.map(|wait| Instant::now() + wait.0);
    loop {
        let answer = get(&args.ask.http, "/ready");
        if answer.as_ref().is_ok_and(|answer| answer.status == 200) {
            say("ready\n");
            return Ok(ExitCode::SUCCESS);
        }
        if by.is_none_or(|by| Instant::now() + ASK_AGAIN > by) {
            return not_ready(&args.ask.http, &answer?);
        }
        #[expect(clippy::disallowed_methods, reason = "there is no runtime here to block")]
        std::thread::sleep(ASK_AGAIN);
    }
}

fn not_ready(site: &Site, answer: &Answer) -> anyhow::Result<ExitCode> {
    match answer.status {
        503 => {
            say("not ready\n");
            for reason in answer.text.lines() {
                say(&format!("  {reason}\n"));
            }
            Ok(ExitCode::FAILURE)
        }
        _ => refused(site, answer),
    }
}

/// `hoard drain`.
pub(crate) fn drain(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    let site = &args.ask.http;
    let query =
        form_urlencoded::Serializer::new(String::new()).append_pair("node", &args.node).finish();
    let answer = post(site, &format!("/api/drain?{query}"))?;
    agreed(site, &answer, &args.node)
}

/// `hoard leave`.
pub(crate) fn leave(args: &AskArgs) -> anyhow::Result<ExitCode> {
    let answer = post(&args.http, "/api/leave")?;
    agreed(&args.http, &answer, &format!("the node at {}", args.http))
}

/// `hoard recover`.
pub(crate) fn recover(args: &RecoverArgs) -> anyhow::Result<ExitCode> {
    let site = &args.ask.http;
    for node in &args.ended {
        let query =
            form_urlencoded::Serializer::new(String::new()).append_pair("node", node).finish();
        let answer = post(site, &format!("/api/ended?{query}"))?;
        if !(200..300).contains(&answer.status) {
            return refused(site, &answer);
        }
        say(&answer.text);
    }
    let answer = get(site, "/api/losses")?;
    match (answer.status, answer.text.is_empty()) {
        (200, true) => {
            say("every partition, and the council, has a quorum\n");
            Ok(ExitCode::SUCCESS)
        }
        (200, false) => {
            say(&answer.text);
            Ok(ExitCode::FAILURE)
        }
        _ => refused(site, &answer),
    }
}

/// `hoard found`.
pub(crate) fn found(args: &AskArgs) -> anyhow::Result<ExitCode> {
    let answer = post(&args.http, "/api/found")?;
    if (200..300).contains(&answer.status) {
        say(&answer.text);
        return Ok(ExitCode::SUCCESS);
    }
    refused(&args.http, &answer)
}

fn agreed(site: &Site, answer: &Answer, node: &str) -> anyhow::Result<ExitCode> {
    if (200..300).contains(&answer.status) {
        say(&format!("{node} is leaving; `hoard status` shows how far it is\n"));
        return Ok(ExitCode::SUCCESS);
    }
    refused(site, answer)
}

/// An answer that is no success, as an error of one line.
pub(crate) fn refused<T>(site: &Site, answer: &Answer) -> anyhow::Result<T> {
    let reason = answer.text.lines().collect::<Vec<_>>().join("; ");
    bail!("{site} answers {}: {reason}", answer.status)
}
