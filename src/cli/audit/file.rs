//! Files of exported entries: written aside until they are complete, plain or compressed.

use std::fs::{File, Metadata, TryLockError};
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Maximum length of a line in bytes. An entry is shorter.
const LINE_MAX: u64 = 1 << 20;
/// Size of the parts in which a file is read for its digest.
const CHUNK: usize = 1 << 16;

fn is_gzip(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "gz")
}

/// The error about a file, with its path.
fn about(path: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", path.display())
}

/// A file that is written as `.NAME.part` and gets its name when it is complete. It is removed if it is dropped before.
pub(super) struct PartialFile {
    target: PathBuf,
    part: PathBuf,
    /// `None` once the file has its name.
    writer: Option<Writer>,
}

enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl PartialFile {
    /// Creates the file, which only its owner can read and write.
    ///
    /// Errors: `target` exists and `replace` is false, or another process writes it.
    pub(super) fn create(target: &Path, replace: bool) -> Result<Self, String> {
        require_free(target, replace)?;
        let name = target.file_name().ok_or_else(|| about(target, "this is not the name of a file"))?;
        let part = target.with_file_name(format!(".{}.part", name.to_string_lossy()));
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        options.mode(0o600);
        let file = options.open(&part).map_err(|error| about(&part, error))?;
        match file.try_lock() {
            // After a rename by another process, the locked file is not the one with this name.
            Ok(()) if is_named(&file, &part) => {}
            Ok(()) | Err(TryLockError::WouldBlock) => {
                return Err(about(&part, "another export is writing this file"));
            }
            Err(TryLockError::Error(error)) => return Err(about(&part, error)),
        }
        // A killed process can have left the file, with any content.
        file.set_len(0).map_err(|error| about(&part, error))?;
        let buffer = BufWriter::new(file);
        let writer = match is_gzip(target) {
            true => Writer::Gzip(GzEncoder::new(buffer, Compression::default())),
            false => Writer::Plain(buffer),
        };
        Ok(Self { target: target.to_owned(), part, writer: Some(writer) })
    }

    /// Gives the complete file its name, after it is on the disk.
    pub(super) fn finish(mut self, replace: bool) -> Result<(), String> {
        let buffer = match self.writer.take() {
            Some(Writer::Plain(buffer)) => Ok(buffer),
            Some(Writer::Gzip(encoder)) => encoder.finish(),
            None => return Ok(()),
        };
        let stored = buffer.and_then(|buffer| buffer.into_inner().map_err(std::io::IntoInnerError::into_error));
        let stored = stored.and_then(|file| file.sync_all()).map_err(|error| about(&self.part, error));
        let renamed = stored
            .and_then(|()| require_free(&self.target, replace))
            .and_then(|()| std::fs::rename(&self.part, &self.target).map_err(|error| about(&self.target, error)));
        if renamed.is_err() {
            self.remove();
        }
        renamed?;
        let directory = self.target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(|error| about(directory, error))
    }

    fn remove(&self) {
        // The error that made the file incomplete is reported instead.
        let _ = std::fs::remove_file(&self.part);
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match &mut self.writer {
            Some(Writer::Plain(buffer)) => buffer.write(bytes),
            Some(Writer::Gzip(encoder)) => encoder.write(bytes),
            None => Ok(0),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match &mut self.writer {
            Some(Writer::Plain(buffer)) => buffer.flush(),
            Some(Writer::Gzip(encoder)) => encoder.flush(),
            None => Ok(()),
        }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if self.writer.is_some() {
            self.remove();
        }
    }
}

/// Whether the open file is the one with this name.
fn is_named(file: &File, path: &Path) -> bool {
    let same = |(file, named): (Metadata, Metadata)| (file.dev(), file.ino()) == (named.dev(), named.ino());
    file.metadata().ok().zip(path.symlink_metadata().ok()).is_some_and(same)
}

fn require_free(target: &Path, replace: bool) -> Result<(), String> {
    match target.symlink_metadata() {
        Ok(found) if found.is_dir() => Err(about(target, "this is a directory. Name a file in it")),
        Ok(_) if !replace => Err(about(target, "this file exists. Choose another name, or add --force to replace it")),
        _ => Ok(()),
    }
}

/// The SHA-256 digest of a file in hex.
pub(super) fn digest(path: &Path) -> Result<String, String> {
    let mut file = File::open(path).map_err(|error| about(path, error))?;
    let (mut hasher, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let length = file.read(&mut chunk).map_err(|error| about(path, error))?;
        match chunk.get(..length) {
            Some(read) if length > 0 => hasher.update(read),
            _ => break,
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// The lines of a file of exported entries, in the order of their ids.
pub(super) struct ExportedLines {
    path: PathBuf,
    reader: Box<dyn BufRead>,
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
        let file = File::open(path).map_err(|error| about(path, error))?;
        let reader: Box<dyn BufRead> = match is_gzip(path) {
            true => Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))),
            false => Box::new(BufReader::new(file)),
        };
        Ok(Self { path: path.to_owned(), reader, number: 0, current: None })
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
