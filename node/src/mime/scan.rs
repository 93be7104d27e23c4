//! One walk over the lines of a mail: headers, and the delimiters of every multipart that is open (RFC 2046 5.1.1).
//!
//! The scanner never goes back. A line is compared with the open boundaries only when it begins with two hyphens, and there are at
//! most `limits::MIME_DEPTH_MAX` of them: the walk is linear in the mail, whatever is in it.

use super::fields::{Fields, Name, is_blank, trim_end};

/// Where content ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// First byte after the content; the line end before a delimiter is not content. May lie before a body that is empty.
    pub content_end: usize,
    /// Lines from the start of the mail to `content_end`, one without an end included.
    pub line: usize,
    /// Lines from the start of the mail to the delimiter itself.
    pub delimiter_line: usize,
    /// The delimiter that ended it; `None` at the end of the mail.
    pub delimiter: Option<Delimiter>,
}

/// A delimiter line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delimiter {
    /// Which open multipart it belongs to, 0 the outermost.
    pub level: usize,
    /// `--boundary--`: no more parts.
    pub closing: bool,
}

/// A header that was read.
#[derive(Debug)]
pub struct Header<'m> {
    /// Its first byte.
    pub start: usize,
    /// First byte after it and its empty line.
    pub body_start: usize,
    /// Lines from the start of the mail to `body_start`.
    pub line: usize,
    /// Its fields.
    pub fields: Fields<'m>,
    /// Set when a delimiter or the end came before an empty line: there is no body.
    pub stop: Option<Stop>,
}

struct Line {
    start: usize,
    /// Without the line end.
    end: usize,
}

/// The walk.
pub struct Scanner<'m> {
    message: &'m [u8],
    /// Start of the next line.
    at: usize,
    /// Lines read.
    line: usize,
    boundaries: Vec<Vec<u8>>,
}

impl<'m> Scanner<'m> {
    /// At the start of a mail.
    pub fn new(message: &'m [u8]) -> Self {
        Scanner {
            message,
            at: 0,
            line: 0,
            boundaries: Vec::new(),
        }
    }

    /// Opens a multipart; returns its level.
    pub fn open(&mut self, boundary: Vec<u8>) -> usize {
        self.boundaries.push(boundary);
        self.boundaries.len() - 1
    }

    /// Closes the multipart of this level and every one inside it: their delimiters are text from here on.
    pub fn close(&mut self, level: usize) {
        self.boundaries.truncate(level);
    }

    /// Reads a header from the current line on.
    pub fn header(&mut self) -> Header<'m> {
        let message = self.message;
        let start = self.at;
        let mut fields = Fields::default();
        // The field that goes on in the next line if that begins with a blank: name, start and end of its value.
        let mut open: Option<(Name, usize, usize)> = None;
        let mut stop = None;
        loop {
            let Some(line) = self.next_line() else {
                stop = Some(self.end());
                break;
            };
            let text = &message[line.start..line.end];
            if text.is_empty() {
                break;
            }
            if let Some(found) = self.delimiter(&line) {
                stop = Some(found);
                break;
            }
            if is_blank(text[0]) {
                if let Some((_, _, end)) = &mut open {
                    *end = line.end;
                }
                continue;
            }
            if let Some((name, from, to)) = open.take() {
                fields.keep(name, &message[from..to]);
            }
            open = Name::of_line(text).map(|(name, value)| (name, line.start + value, line.end));
        }
        if let Some((name, from, to)) = open {
            fields.keep(name, &message[from..to]);
        }
        // A delimiter right after header lines: those keep their line end, and the body is empty between the two.
        let (body_start, line) = match &stop {
            Some(Stop { delimiter: Some(_), .. }) => (self.delimiter_start(), self.line - 1),
            _ => (self.at, self.line),
        };
        Header {
            start,
            body_start,
            line,
            fields,
            stop,
        }
    }

    /// Passes over content up to the next delimiter of any open multipart.
    pub fn skip_content(&mut self) -> Stop {
        while let Some(line) = self.next_line() {
            if let Some(stop) = self.delimiter(&line) {
                return stop;
            }
        }
        self.end()
    }

    fn next_line(&mut self) -> Option<Line> {
        let start = self.at;
        let rest = &self.message[start..];
        if rest.is_empty() {
            return None;
        }
        self.line += 1;
        let (mut end, next) = match memchr::memchr(b'\n', rest) {
            Some(newline) => (start + newline, start + newline + 1),
            None => (self.message.len(), self.message.len()),
        };
        if next > end && end > start && self.message[end - 1] == b'\r' {
            end -= 1;
        }
        self.at = next;
        Some(Line { start, end })
    }

    fn end(&self) -> Stop {
        Stop {
            content_end: self.message.len(),
            line: self.line,
            delimiter_line: self.line,
            delimiter: None,
        }
    }

    /// Start of the line just read, for a line that ends with LF or the mail.
    fn delimiter_start(&self) -> usize {
        let before = &self.message[..self.at];
        let before = before.strip_suffix(b"\n").unwrap_or(before);
        memchr::memrchr(b'\n', before).map_or(0, |newline| newline + 1)
    }

    /// The stop that this line is, if it is a delimiter.
    fn delimiter(&self, line: &Line) -> Option<Stop> {
        let text = self.message[line.start..line.end].strip_prefix(b"--")?;
        let delimiter = self.boundaries.iter().enumerate().find_map(|(level, boundary)| {
            let after = text.strip_prefix(boundary.as_slice())?;
            match trim_end(after) {
                b"" => Some(Delimiter { level, closing: false }),
                b"--" => Some(Delimiter { level, closing: true }),
                _ => None,
            }
        })?;
        let before = &self.message[..line.start];
        let before = before.strip_suffix(b"\n").unwrap_or(before);
        let before = before.strip_suffix(b"\r").unwrap_or(before);
        // The line before the delimiter, when it is empty, is only the delimiter's own line end.
        let empty = before.is_empty() || before.ends_with(b"\n");
        Some(Stop {
            content_end: before.len(),
            line: (self.line - 1).saturating_sub(usize::from(empty)),
            delimiter_line: self.line - 1,
            delimiter: Some(delimiter),
        })
    }
}
