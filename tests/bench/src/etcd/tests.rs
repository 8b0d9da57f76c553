use std::net::TcpListener;
use std::thread;

use h2::server::SendResponse;
use http::Response;

use super::*;
use crate::workload::{Order, Workload};

#[test]
fn a_put_is_a_frame_with_two_fields() {
    let value = [b'v'; 300];
    let frame = put_request(b"key", &value);
    assert_eq!(frame[..12], *b"\x00\x00\x00\x01\x34\x0a\x03key\x12\xac");
    assert_eq!(frame[12], 2);
    assert_eq!(frame[13..], value);
}

/// Answers a put as a gRPC server does: an empty message, then the status.
fn accept(mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let mut body = respond.send_response(Response::new(()), false)?;
    body.send_data(Bytes::from_static(&[0; 5]), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
    body.send_trailers(trailers)
}

/// Refuses a put as a gRPC server does: headers only.
fn refuse(mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let headers = Response::builder().header("grpc-status", "8").body(());
    respond.send_response(headers.expect("a status is a valid header"), true).map(drop)
}

/// Accepts the first put of its only client and refuses the others.
async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let (stream, _) = tokio::net::TcpListener::from_std(listener)?.accept().await?;
    let mut connection = h2::server::handshake(stream).await?;
    let mut puts = 0;
    while let Some(Ok((_, respond))) = connection.accept().await {
        puts += 1;
        if puts == 1 { accept(respond)? } else { refuse(respond)? }
    }
    Ok(())
}

#[test]
fn refusals_are_told_from_answers() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(serve(listener)).unwrap();
    });
    let command = Command::Set;
    let workload = Workload { command, keys: 9, order: Order::Random, value_bytes: 3, seed: 1 };
    let load = Load { workload, connections: 1, pipeline: 1, until: Until::Requests(3) };
    let outcome = run(&load, address).unwrap();
    server.join().unwrap();
    assert_eq!((outcome.requests, outcome.errors["GRPC-8"]), (3, 2));
}
