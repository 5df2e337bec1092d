//! Files of exported entries: written aside until they are complete, plain or compressed.

use std::cell::RefCell;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::domain::secret::hex;
use crate::part_file::PartFile;

/// Maximum length of a line in bytes. An entry is shorter.
const LINE_MAX: u64 = 1 << 20;

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// The error about a file, with its path.
fn about(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// A file of entries that gets its name when it is complete.
pub(super) struct ExportFile {
    part: PartFile,
    writer: Writer,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl ExportFile {
    /// Creates the file, which only its owner can read and write.
    ///
    /// Errors: `target` exists and `replace` is false, or another process writes it.
    pub(super) fn create(target: &Path, replace: bool) -> Result<Self, String> {
        require_free(target, replace)?;
        let part = PartFile::create(target, &[])?;
        let buffer = BufWriter::new(part.file().try_clone().map_err(|error| about(part.path(), error))?);
        let writer = match is_gzip(target) {
            true => Writer::Gzip(GzEncoder::new(buffer, Compression::default())),
            false => Writer::Plain(buffer),
        };
        Ok(Self { part, writer })
    }

    /// Gives the complete file its name, after it is on the disk.
    pub(super) fn finish(self, replace: bool) -> Result<(), String> {
        let Self { part, writer } = self;
        let buffer = match writer {
            Writer::Plain(buffer) => Ok(buffer),
            Writer::Gzip(encoder) => encoder.finish(),
        };
        let written = buffer.and_then(|mut buffer| buffer.flush());
        written.map_err(|error| about(part.path(), error))?;
        require_free(part.target(), replace)?;
        part.publish()
    }
}

impl Write for ExportFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.writer {
            Writer::Plain(buffer) => buffer.write(bytes),
            Writer::Gzip(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.writer {
            Writer::Plain(buffer) => buffer.flush(),
            Writer::Gzip(encoder) => encoder.flush(),
        }
    }
}

fn require_free(target: &Path, replace: bool) -> Result<(), String> {
    match target.symlink_metadata() {
        Ok(found) if found.is_dir() => Err(about(target, "this is a directory. Name a file in it")),
        Ok(_) if !replace => Err(about(target, "this file exists. Choose another name, or add --force to replace it")),
        _ => Ok(()),
    }
}

/// A file whose digest is computed while it is read.
struct DigestedFile {
    file: File,
    digest: Rc<RefCell<Sha256>>,
}

impl Read for DigestedFile {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read(bytes)?;
        self.digest.borrow_mut().update(bytes.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// The lines of a file of exported entries, in the order of their ids.
pub(super) struct ExportedLines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
    digest: Rc<RefCell<Sha256>>,
    number: u64,
    /// The last line, with the id of its entry.
    current: Option<(i64, String)>,
}

#[derive(Deserialize)]
struct WithId {
    id: i64,
}

impl ExportedLines {
    /// Opens a file, which is decompressed if its name ends in `.gz`.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        let digest = Rc::new(RefCell::new(Sha256::new()));
        let file = File::open(path).map_err(|error| about(path, error))?;
        let file = DigestedFile { file, digest: Rc::clone(&digest) };
        let reader: Box<dyn BufRead> = match is_gzip(path) {
            true => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            false => Box::new(BufReader::new(file)),
        };
        Ok(Self { path: path.to_owned(), reader, digest, number: 0, current: None })
    }

    /// The line about the entry with this id; `None` if the file has none. Each call must name a greater id.
    pub(super) fn find(&mut self, id: i64) -> Result<Option<&str>, String> {
        while self.current.as_ref().is_none_or(|(current, _)| *current < id) {
            let Some(line) = self.next_line()? else { return Ok(None) };
            let WithId { id } = serde_json::from_str(&line).map_err(|error| self.at_line(error))?;
            if self.current.as_ref().is_some_and(|(last, _)| *last >= id) {
                return Err(self.at_line("the entries are not in the order of their ids"));
            }
            self.current = Some((id, line));
        }
        Ok(self.current.as_ref().filter(|(current, _)| *current == id).map(|(_, line)| line.as_str()))
    }

    /// Reads the rest, so that a file that is damaged at its end is an error. Returns the SHA-256 digest of the file in
    /// hex.
    pub(super) fn finish(mut self) -> Result<String, String> {
        while self.next_line()?.is_some() {}
        Ok(hex(&self.digest.take().finalize()))
    }

    fn next_line(&mut self) -> Result<Option<String>, String> {
        let mut line = String::new();
        self.number += 1;
        let read = (&mut self.reader).take(LINE_MAX).read_line(&mut line).map_err(|error| self.at_line(error))?;
        if read > 0 && !line.ends_with('\n') {
            return Err(self.at_line("the line has no end, so the file is incomplete"));
        }
        line.truncate(line.trim_end().len());
        Ok((read > 0).then_some(line))
    }

    fn at_line(&self, error: impl std::fmt::Display) -> String {
        about(&self.path, format_args!("line {}: {error}", self.number))
    }
}
