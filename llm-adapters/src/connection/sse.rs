//! Server-sent events, cut out of bytes as they arrive. Pure.
//! After the WHATWG standard, section "Event stream interpretation", but that data left at the end
//! of the bytes is handed out too: some servers omit the last blank line.

/// One event: its name, empty if it has none, and its data lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) name: String,
    pub(crate) data: String,
}

/// Cuts events out of the bytes pushed into it.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    line: Vec<u8>,
    after_cr: bool,
    name: String,
    data: Option<String>,
    pub(crate) events: std::collections::VecDeque<Event>,
    first_line_done: bool,
}

impl Parser {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_cr)
                && let [b'\n', rest @ ..] = bytes
            {
                bytes = rest;
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                return self.line.extend_from_slice(bytes);
            };
            self.line.extend_from_slice(&bytes[..end]);
            self.after_cr = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            self.end_line();
        }
    }

    /// The bytes held back until an event is whole.
    pub(crate) fn pending(&self) -> usize {
        self.line.len() + self.data.as_ref().map_or(0, String::len)
    }

    /// Hands out what the end of the bytes left open.
    pub(crate) fn finish(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event();
    }

    fn end_line(&mut self) {
        let bytes = std::mem::take(&mut self.line);
        let text = String::from_utf8_lossy(&bytes);
        let mut line = text.as_ref();
        if !std::mem::replace(&mut self.first_line_done, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            self.end_event();
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
    }

    fn end_event(&mut self) {
        let name = std::mem::take(&mut self.name);
        if let Some(data) = self.data.take() {
            self.events.push_back(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_the_bytes_gives_the_same_events() {
        let text = "\u{feff}: hello\r\n\r\ndata: é1\r\ndata:2\r\revent: error\ndata: {}\n\nid: 4\n\ndata: [DONE]";
        let event = |name: &str, data: &str| Event { name: name.into(), data: data.into() };
        let expected = [event("", "é1\n2"), event("error", "{}"), event("", "[DONE]")];
        for cut in 0..=text.len() {
            let mut parser = Parser::default();
            parser.push(&text.as_bytes()[..cut]);
            parser.push(&text.as_bytes()[cut..]);
            parser.finish();
            assert!(parser.events.iter().eq(&expected), "cut at {cut}: {:?}", parser.events);
        }
    }
}
