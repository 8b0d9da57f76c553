//! One client's side of a conversation: what it sends, in which pieces, and what comes back.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use scatterhoard_resp::{ReplyDecoder, ReplyLimits, Value};

use crate::process::resp::encoded;

/// How long a server may be silent.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Asked for at the end, to know that all has been answered.
const END: &[u8] = b"this is the end of the script";

/// One command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Its name and its arguments.
    pub words: Vec<Vec<u8>>,
    /// Whether it goes as a line in quotes, not as an array.
    pub inline: bool,
}

impl Request {
    /// The words of a line, at its spaces; within a word `\x20` and the like stand for bytes, and `""` for
    /// an empty word.
    #[must_use]
    pub fn parse(line: &str) -> Self {
        let words =
            line.split(' ').map(|word| if word == "\"\"" { Vec::new() } else { bytes(word) });
        Self { words: words.collect(), inline: false }
    }

    /// Whether it begins with these words, in any case of letters.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        name.split(' ').enumerate().all(|(place, word)| self.word(place) == word.as_bytes())
    }

    /// Its word at this place in lower case, or nothing.
    fn word(&self, place: usize) -> Vec<u8> {
        self.words.get(place).map_or_else(Vec::new, |word| word.to_ascii_lowercase())
    }

    /// Whether a difference that is intended may leave other values behind.
    fn may_part(&self) -> bool {
        const NAMES: [&[u8]; 6] =
            [b"incrbyfloat", b"msetnx", b"rename", b"renamenx", b"copy", b"select"];
        NAMES.contains(&&self.word(0)[..])
    }

    fn put(&self, out: &mut Vec<u8>) {
        if self.inline && !self.words.is_empty() {
            let quoted = |word: &Vec<u8>| {
                let escaped: String = word.iter().map(|byte| format!("\\x{byte:02x}")).collect();
                format!("\"{escaped}\"")
            };
            let line: Vec<_> = self.words.iter().map(quoted).collect();
            out.extend_from_slice(format!("{}\r\n", line.join(" ")).as_bytes());
        } else {
            let words: Vec<&[u8]> = self.words.iter().map(Vec::as_slice).collect();
            out.extend_from_slice(&encoded(&words));
        }
    }
}

impl fmt::Display for Request {
    /// As [`Request::parse`] reads it; long words are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, word) in self.words.iter().enumerate() {
            let shown = word[..word.len().min(80)].escape_ascii().to_string().replace(' ', "\\x20");
            let gap = if place == 0 { "" } else { " " };
            write!(f, "{gap}{}", if shown.is_empty() { "\"\"" } else { &shown })?;
            if word.len() > 80 {
                write!(f, "…({})", word.len())?;
            }
        }
        if self.inline { f.write_str("   (inline)") } else { Ok(()) }
    }
}

fn bytes(word: &str) -> Vec<u8> {
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (hex, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    bytes
}

/// What one client sends.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The commands, all of which may be under way at once.
    pub requests: Vec<Request>,
    /// Lengths of the pieces in which the bytes are written, over and over; at once if there is none.
    pub pieces: Vec<usize>,
}

impl Script {
    /// The requests that are answered, as `CLIENT REPLY` has it, in order.
    ///
    /// Also whether it is worth nothing beyond these: both servers may then have gone different ways, and
    /// nobody has seen it.
    pub(super) fn answered(&self) -> (Vec<&Request>, bool) {
        let (mut off, mut skip) = (false, false);
        let mut answered = Vec::new();
        for request in &self.requests {
            let mode = (request.words.len() == 3 && request.word(0) == b"client")
                .then(|| request.word(1) == b"reply")
                .and_then(|is_reply| is_reply.then(|| request.word(2)));
            let mut skip_next = false;
            match mode.as_deref() {
                Some(b"on") => (off, skip) = (false, false),
                Some(b"off") => off = true,
                Some(b"skip") if !off => (skip, skip_next) = (true, true),
                _ if request.word(0) == b"reset" && request.words.len() == 1 => off = false,
                _ => {}
            }
            if !off && !skip {
                answered.push(request);
            } else if request.may_part() {
                return (answered, true);
            }
            skip = skip_next;
        }
        (answered, false)
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.requests.iter().try_for_each(|request| writeln!(f, "    {request}"))
    }
}

/// One reply.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// As it came.
    pub(super) bytes: Vec<u8>,
    /// What it means.
    pub(super) value: Value,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.400}", self.bytes.escape_ascii().to_string())
    }
}

/// Sends the script, and gives all that comes back until its end, or until the server closes.
///
/// # Errors
/// The connection fails, or the server is silent for long, or does not speak the protocol.
pub(super) fn talk(addr: SocketAddr, script: &Script) -> io::Result<Vec<Answer>> {
    let mut stream = TcpStream::connect_timeout(&addr, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut bytes = Vec::new();
    let end = [
        Request::parse("CLIENT REPLY ON"),
        Request { words: vec![b"ECHO".to_vec(), END.to_vec()], inline: false },
    ];
    for request in script.requests.iter().chain(&end) {
        request.put(&mut bytes);
    }
    let mut writing = stream.try_clone()?;
    let pieces = script.pieces.clone();
    // Beside the reading, or both ends might wait for the other to read.
    let writer = thread::spawn(move || write(&mut writing, &bytes, &pieces));
    let answers = read(&mut stream);
    // A server that has closed does not take the rest; what it answered counts.
    let _cut_off = writer.join().expect("writing does not panic");
    let mut answers = answers?;
    if answers.last().is_some_and(|answer| answer.value == Value::Bulk(END.to_vec())) {
        answers.truncate(answers.len() - 2);
    }
    Ok(answers)
}

fn write(stream: &mut TcpStream, bytes: &[u8], pieces: &[usize]) -> io::Result<()> {
    let mut rest = bytes;
    for &piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at(piece.clamp(1, rest.len().max(1)).min(rest.len()));
        stream.write_all(now)?;
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    stream.write_all(rest)
}

fn read(stream: &mut TcpStream) -> io::Result<Vec<Answer>> {
    let mut decoder = ReplyDecoder::new(ReplyLimits::DEFAULT);
    let (mut answers, mut buffer, mut chunk) = (Vec::<Answer>::new(), Vec::new(), vec![0; 65_536]);
    loop {
        while let Some((value, count)) = decoder.decode(&buffer).map_err(io::Error::other)? {
            let is_end = value == Value::Bulk(END.to_vec());
            answers.push(Answer { bytes: buffer.drain(..count).collect(), value });
            if is_end {
                return Ok(answers);
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answers),
            Ok(count) => buffer.extend_from_slice(&chunk[..count]),
            // Closed while bytes of ours were unread: as final as an orderly end.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(answers),
            Err(error) => return Err(error),
        }
    }
}
