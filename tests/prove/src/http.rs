//! Asking a node's HTTP interface, as a script would.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// What a node's HTTP interface answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Asks a node's HTTP interface.
///
/// # Errors
/// Nobody listens there, nobody answers within 2 s, or the answer is not HTTP.
pub fn get(addr: SocketAddr, path: &str) -> io::Result<Response> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {addr}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {answer:.80}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(odd)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(odd)?;
    Ok(Response { status, body: body.to_owned() })
}
