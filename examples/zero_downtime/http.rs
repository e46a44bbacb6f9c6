//! HTTP/1.1 as far as this server needs it: bytes to requests, answers to bytes.
//! Knows: the grammar and its limits. Does not know: sockets, restarts, time.

use std::io::Write;

/// A longer head is refused; so is a longer body.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
pub(crate) const MAX_BODY: usize = 1024 * 1024;
const MAX_ANSWER: usize = 1024 * 1024;
const MAX_HEADERS: usize = 64;

pub(crate) type Status = &'static str;

pub(crate) enum Parsed {
    /// More bytes are needed. The client may be waiting for a `100 Continue` before it sends them.
    Incomplete {
        awaits_continue: bool,
    },
    Request(Request),
    /// Where the next request would begin is unknown now: answer and close.
    Bad(Status),
}

pub(crate) struct Request {
    /// Bytes of input that it takes, the body included.
    pub(crate) length: usize,
    pub(crate) keep_alive: bool,
    pub http_1_0: bool,
    head_only: bool,
    status: Status,
    /// `/bytes/N` asks for an answer of N bytes.
    answer_length: Option<usize>,
}

/// Reads the first request of `input`, which may hold a part of one or several.
pub(crate) fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let head = match request.parse(input) {
        Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
        Ok(httparse::Status::Partial) if input.len() <= MAX_HEAD => return Parsed::Incomplete { awaits_continue: false },
        Ok(_) | Err(httparse::Error::TooManyHeaders) => return Parsed::Bad("431 Request Header Fields Too Large"),
        Err(httparse::Error::Version) => return Parsed::Bad("505 HTTP Version Not Supported"),
        Err(_) => return Parsed::Bad("400 Bad Request"),
    };
    let http_1_0 = request.version == Some(0);
    if request.headers.iter().any(|header| header.name.eq_ignore_ascii_case("transfer-encoding")) {
        return Parsed::Bad("501 Not Implemented");
    }
    if !http_1_0 && values(&request, "host").count() != 1 {
        return Parsed::Bad("400 Bad Request");
    }
    let body = match content_length(&request) {
        Ok(length) if length <= MAX_BODY as u64 => length as usize,
        Ok(_) => return Parsed::Bad("413 Content Too Large"),
        Err(status) => return Parsed::Bad(status),
    };
    if input.len() < head + body {
        let awaits_continue = !http_1_0 && has_token(&request, "expect", "100-continue");
        return Parsed::Incomplete { awaits_continue };
    }

    let (status, answer_length) = match (request.method, request.path) {
        (Some("GET" | "HEAD" | "POST"), Some(path)) => resource(path),
        _ => ("405 Method Not Allowed", None),
    };
    Parsed::Request(Request {
        length: head + body,
        keep_alive: if http_1_0 { has_token(&request, "connection", "keep-alive") } else { !has_token(&request, "connection", "close") },
        http_1_0,
        head_only: request.method == Some("HEAD"),
        status,
        answer_length,
    })
}

/// `text` is the answer, or the beginning of a longer one if that was asked for.
pub(crate) fn write_answer(output: &mut Vec<u8>, request: &Request, text: &str, close: bool) {
    let body = if request.status.starts_with("200") { text } else { request.status };
    let length = request.answer_length.unwrap_or(body.len());
    write_head(output, request.status, length);
    if request.status.starts_with("405") {
        output.extend_from_slice(b"Allow: GET, HEAD, POST\r\n");
    }
    if close {
        output.extend_from_slice(b"Connection: close\r\n");
    } else if request.http_1_0 {
        output.extend_from_slice(b"Connection: keep-alive\r\n");
    }
    output.extend_from_slice(b"\r\n");
    if !request.head_only {
        let end = output.len() + length;
        output.extend_from_slice(&body.as_bytes()[..length.min(body.len())]);
        output.resize(end, b'.');
    }
}

pub(crate) fn write_refusal(output: &mut Vec<u8>, status: Status) {
    write_head(output, status, status.len());
    output.extend_from_slice(b"Connection: close\r\n\r\n");
    output.extend_from_slice(status.as_bytes());
}

pub(crate) fn write_continue(output: &mut Vec<u8>) {
    output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
}

fn write_head(output: &mut Vec<u8>, status: Status, length: usize) {
    write!(output, "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n").expect("a Vec takes every write");
}

fn resource(path: &str) -> (Status, Option<usize>) {
    let Some(length) = path.strip_prefix("/bytes/") else { return ("200 OK", None) };
    match length.parse() {
        Ok(length) if length <= MAX_ANSWER => ("200 OK", Some(length)),
        _ => ("404 Not Found", None),
    }
}

/// Two lengths, or one that is not plain digits, are how requests are smuggled past a proxy.
fn content_length(request: &httparse::Request) -> Result<u64, Status> {
    let mut lengths = values(request, "content-length");
    let Some(length) = lengths.next() else { return Ok(0) };
    if lengths.next().is_some() || length.is_empty() || !length.iter().all(u8::is_ascii_digit) {
        return Err("400 Bad Request");
    }
    let digits = str::from_utf8(length).map_err(|_| "400 Bad Request")?;
    digits.parse().map_err(|_| "413 Content Too Large")
}

fn has_token(request: &httparse::Request, name: &str, token: &str) -> bool {
    values(request, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|word| word.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

fn values<'a>(request: &'a httparse::Request, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
    request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}
