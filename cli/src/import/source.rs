//! Reads the rows of a CSV or JSON lines file, one at a time, as the cells of the wanted columns.
//! Invariant: a row that cannot be read is a [`Refusal`] with its line, and reading goes on behind it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use csv::ByteRecord;
use serde::Serialize;
use serde_json::{Map, Value};

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Why a line was not imported.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Refusal {
    /// Counted from 1, the header included.
    pub(super) line: u64,
    /// The column, where one is at fault.
    pub(super) column: Option<String>,
    /// What is wrong with it.
    pub(super) why: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}", self.line)?;
        if let Some(column) = &self.column {
            write!(f, ", column {column}")?;
        }
        write!(f, ": {}", self.why)
    }
}

/// A row of the file: the cell of each wanted column, `None` where it is empty, absent or null.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) number: u64,
    pub(super) cells: Vec<Option<String>>,
}

/// A file that is being read.
#[derive(Debug)]
pub(super) struct Source {
    path: PathBuf,
    bytes: u64,
    columns: Vec<String>,
    format: Format,
}

#[derive(Debug)]
enum Format {
    Csv(Box<Csv>),
    Json { reader: BufReader<File>, line: Vec<u8>, number: u64, read: u64, seen: Vec<bool> },
}

/// The reader ends records at a line feed alone and a carriage return before it is cut here: left to
/// itself it counts the lines of CR LF files wrongly.
#[derive(Debug)]
struct Csv {
    reader: csv::Reader<File>,
    record: ByteRecord,
    /// Where the wanted columns stand.
    places: Vec<usize>,
    /// The columns that nobody wants.
    others: Vec<String>,
    /// How many columns the header has.
    width: usize,
    /// Whether the file ends behind a line feed.
    ends_whole: bool,
}

impl Source {
    /// Opens `path`, whose name ends in `.csv`, `.jsonl` or `.ndjson`, to read `columns` of it.
    ///
    /// # Errors
    /// One sentence if the file cannot be read, is of another kind, or lacks one of the columns.
    pub(super) fn open(path: &Path, columns: Vec<String>) -> Result<Self, String> {
        let name = path.display();
        let kind = path.extension().and_then(|end| end.to_str()).map(str::to_ascii_lowercase);
        let is_csv = match kind.as_deref() {
            Some("csv") => true,
            Some("jsonl" | "ndjson") => false,
            _ => return Err(format!("the name of {name} must end in .csv, .jsonl or .ndjson")),
        };
        let failed = |error: io::Error| format!("cannot read {name}: {error}");
        let file = File::open(path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        if meta.is_dir() {
            return Err(format!("cannot read {name}: it is a folder"));
        }
        let bytes = meta.len();
        let format = if is_csv {
            Format::Csv(Box::new(Csv::open(path, file, &columns)?))
        } else {
            let seen = vec![false; columns.len()];
            let reader = BufReader::with_capacity(1 << 16, file);
            Format::Json { reader, line: Vec::new(), number: 0, read: 0, seen }
        };
        Ok(Self { path: path.to_owned(), bytes, columns, format })
    }

    /// The size of the file in bytes when it was opened.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many bytes have been read.
    pub(super) fn position(&self) -> u64 {
        match &self.format {
            Format::Csv(csv) => csv.reader.position().byte(),
            Format::Json { read, .. } => *read,
        }
    }

    /// The name of the wanted column at `index`.
    pub(super) fn column(&self, index: usize) -> &str {
        &self.columns[index]
    }

    /// The wanted columns that no row so far had: in JSON lines a misspelt key looks like this.
    pub(super) fn never_seen(&self) -> Vec<&str> {
        match &self.format {
            Format::Csv(_) => Vec::new(),
            Format::Json { seen, .. } => {
                let unseen = self.columns.iter().zip(seen).filter(|(_, seen)| !**seen);
                unseen.map(|(column, _)| column.as_str()).collect()
            }
        }
    }

    /// The columns of the header that are not wanted.
    pub(super) fn others(&self) -> &[String] {
        match &self.format {
            Format::Csv(csv) => &csv.others,
            Format::Json { .. } => &[],
        }
    }

    /// The next row, or why it cannot be read; `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read any further.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Line, Refusal>>> {
        match &mut self.format {
            Format::Csv(csv) => csv.next(&self.path, self.bytes, &self.columns),
            Format::Json { reader, line, number, read, seen } => loop {
                line.clear();
                let count = reader.read_until(b'\n', line)?;
                if count == 0 {
                    return Ok(None);
                }
                *read += u64::try_from(count).unwrap_or(0);
                *number += 1;
                let text = if *number == 1 { line.strip_prefix(BOM) } else { None };
                let text = text.unwrap_or(line);
                if text.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let number = *number;
                let refuse = |column: Option<&String>, why: String| {
                    Ok(Some(Err(Refusal { line: number, column: column.cloned(), why })))
                };
                let object: Map<String, Value> = match serde_json::from_slice(text.trim_ascii_end())
                {
                    Ok(object) => object,
                    Err(error) if error.is_eof() && !text.ends_with(b"\n") => {
                        let why = "the line is cut off: the file is half-written";
                        return refuse(None, why.to_owned());
                    }
                    Err(error) => {
                        let at = error.column();
                        return refuse(None, format!("it is no JSON object (at character {at})"));
                    }
                };
                let mut cells = Vec::with_capacity(self.columns.len());
                for (column, seen) in self.columns.iter().zip(seen.iter_mut()) {
                    let value = find(&object, column);
                    *seen |= value.is_some();
                    match value {
                        None | Some(Value::Null) => cells.push(None),
                        Some(Value::String(text)) if text.is_empty() => cells.push(None),
                        Some(Value::String(text)) => cells.push(Some(text.clone())),
                        Some(Value::Number(number)) => cells.push(Some(number.to_string())),
                        Some(_) => {
                            return refuse(
                                Some(column),
                                "it is neither a text nor a number".to_owned(),
                            );
                        }
                    }
                }
                return Ok(Some(Ok(Line { number, cells })));
            },
        }
    }
}

impl Csv {
    fn open(path: &Path, mut file: File, columns: &[String]) -> Result<Self, String> {
        let name = path.display();
        let ends_whole = ends_with_line_feed(&mut file)
            .map_err(|error| format!("cannot read {name}: {error}"))?;
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .terminator(csv::Terminator::Any(b'\n'))
            .buffer_capacity(1 << 16)
            .from_reader(file);
        let header = reader
            .byte_headers()
            .map_err(|error| format!("cannot read the header of {name}: {error}"))?;
        if header.is_empty() {
            return Err(format!("{name} is empty: it has no header line"));
        }
        let names: Vec<_> = header
            .iter()
            .map(|name| String::from_utf8_lossy(name.strip_suffix(b"\r").unwrap_or(name)))
            .collect();
        let mut places = Vec::with_capacity(columns.len());
        for column in columns {
            let mut found = names.iter().enumerate().filter(|(_, name)| name == &column);
            match (found.next(), found.next()) {
                (Some((place, _)), None) => places.push(place),
                (None, _) => {
                    let all = names.join(", ");
                    return Err(format!("{name} has no column {column}; it has {all}"));
                }
                (Some(_), Some(_)) => {
                    return Err(format!("{name} has two columns named {column}"));
                }
            }
        }
        let width = names.len();
        let mut others: Vec<String> = names.into_iter().map(Into::into).collect();
        others.retain(|name| !columns.contains(name));
        Ok(Self { reader, record: ByteRecord::new(), places, others, width, ends_whole })
    }

    fn next(
        &mut self,
        path: &Path,
        bytes: u64,
        columns: &[String],
    ) -> io::Result<Option<Result<Line, Refusal>>> {
        loop {
            if !self.reader.read_byte_record(&mut self.record).map_err(io::Error::other)? {
                return Ok(None);
            }
            if !(self.record.len() == 1 && &self.record[0] == b"\r") {
                break;
            }
        }
        let (record, width) = (&self.record, self.width);
        let end = self.reader.position();
        let is_last = end.byte() >= bytes;
        // The line on which it ends, less the line feeds within it.
        let feeds = record.iter().flatten().filter(|byte| **byte == b'\n').count();
        let own = u64::from(!is_last || self.ends_whole);
        let number = end.line().saturating_sub(u64::try_from(feeds).unwrap_or(0) + own);
        let refuse = |column: Option<&String>, why: String| {
            Ok(Some(Err(Refusal { line: number, column: column.cloned(), why })))
        };
        let found = record.len();
        if is_last && found < width {
            return refuse(
                None,
                format!(
                    "the line is cut off after {found} of {width} columns: the file is half-written"
                ),
            );
        }
        let start = record.position().map_or(0, csv::Position::byte);
        if is_last && ends_in_quotes(path, start)? {
            let why = "the line is cut off inside quotes: the file is half-written";
            return refuse(None, why.to_owned());
        }
        if found != width {
            return refuse(None, format!("its number of columns is {found}, the header's {width}"));
        }
        let mut cells = Vec::with_capacity(self.places.len());
        for (place, column) in self.places.iter().zip(columns) {
            let mut cell = record.get(*place).unwrap_or_default();
            if place + 1 == width {
                cell = cell.strip_suffix(b"\r").unwrap_or(cell);
            }
            match std::str::from_utf8(cell) {
                Ok("") => cells.push(None),
                Ok(text) => cells.push(Some(text.to_owned())),
                Err(_) => return refuse(Some(column), "it is no UTF-8 text".to_owned()),
            }
        }
        Ok(Some(Ok(Line { number, cells })))
    }
}

fn ends_with_line_feed(file: &mut File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(last == [b'\n'])
}

/// The value at `path`: a key, or keys of objects within objects joined by dots.
fn find<'a>(object: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    object.get(path).or_else(|| {
        let (outer, inner) = path.split_once('.')?;
        find(object.get(outer)?.as_object()?, inner)
    })
}

/// Whether a quoted cell is open at the end of the file, in the record that starts at `start`.
fn ends_in_quotes(path: &Path, start: u64) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    file.seek(SeekFrom::Start(start))?;
    let mut open = false;
    for byte in file.bytes() {
        open ^= byte? == b'"';
    }
    Ok(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8], columns: &[&str]) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        let columns = columns.iter().map(|column| (*column).to_owned()).collect();
        let mut source = Source::open(&path, columns)?;
        let mut lines = Vec::new();
        while let Some(line) = source.next().unwrap() {
            lines.push(match line {
                Ok(Line { number, cells }) => {
                    let cells: Vec<_> =
                        cells.iter().map(|cell| cell.as_deref().unwrap_or("-")).collect();
                    format!("{number}: {}", cells.join("|"))
                }
                Err(refusal) => refusal.to_string(),
            });
        }
        Ok(lines)
    }

    #[test]
    fn csv_is_read_whatever_ends_its_lines() {
        let expected = vec!["2: 3|1", "3: -|x"];
        for content in
            ["a,b,c\n1,2,3\nx,y,\n", "a,b,c\r\n1,2,3\r\nx,y,\r\n", "\u{feff}a,b,c\r\n1,2,3\r\nx,y,"]
        {
            assert_eq!(read("f.csv", content.as_bytes(), &["c", "a"]).unwrap(), expected);
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named_and_the_rest_is_read() {
        let lines = read("f.csv", b"a,b\n1,2,3\n\"x\ny\",2\n\xff,4\n5\n6,7\n8", &["a"]).unwrap();
        let expected = [
            "line 2: its number of columns is 3, the header's 2",
            "3: x\ny",
            "line 5, column a: it is no UTF-8 text",
            "line 6: its number of columns is 1, the header's 2",
            "7: 6",
            "line 8: the line is cut off after 1 of 2 columns: the file is half-written",
        ];
        assert_eq!(lines, expected);
        let lines = read("f.csv", b"a,b\r\n1,2\r\n3,\"four and", &["b"]).unwrap();
        assert_eq!(lines[1], "line 3: the line is cut off inside quotes: the file is half-written");
    }

    #[test]
    fn a_column_that_is_not_there_is_refused_at_once() {
        assert!(read("f.csv", b"a,b\n", &["c"]).unwrap_err().contains("no column c; it has a, b"));
        assert!(read("f.csv", b"a,a\n", &["a"]).unwrap_err().contains("two columns named a"));
        assert!(read("f.csv", b"", &["a"]).unwrap_err().contains("is empty"));
        assert!(read("f.txt", b"a\n", &["a"]).unwrap_err().contains("must end in"));
    }

    #[test]
    fn json_lines_are_read_with_keys_within_keys() {
        let content = br#"{"a":1,"u":{"in":5}}

{"a":null,"u":{"in":"6"},"u.in":"7"}
{"a":[1]}
nonsense
{"a":"x"
{"a":"cut"#;
        let expected = [
            "1: 1|5",
            "3: -|7",
            "line 4, column a: it is neither a text nor a number",
            "line 5: it is no JSON object (at character 2)",
            "line 6: it is no JSON object (at character 8)",
            "line 7: the line is cut off: the file is half-written",
        ];
        assert_eq!(read("f.jsonl", content, &["a", "u.in"]).unwrap(), expected);
    }
}
