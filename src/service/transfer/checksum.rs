//! The digest of a file that contains this digest: it is computed with zeros in its place.

use std::fs::{File, OpenOptions};
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::domain::secret::hex;

const CHUNK: usize = 1 << 20;

/// The position of `text` in the file. Returns `None` unless it occurs exactly once.
fn find(path: &Path, text: &[u8]) -> Result<Option<u64>> {
    let mut file = File::open(path)?;
    let (mut window, mut start, mut found) = (Vec::new(), 0_u64, None);
    loop {
        let read = (&mut file).take(u64::try_from(CHUNK).unwrap_or(u64::MAX)).read_to_end(&mut window)?;
        if read == 0 {
            return Ok(found);
        }
        for at in window.windows(text.len()).enumerate().filter(|(_, part)| *part == text).map(|(at, _)| at) {
            if found.replace(start + u64::try_from(at).unwrap_or(u64::MAX)).is_some() {
                return Ok(None);
            }
        }
        // The text can continue in the next chunk.
        let done = window.len().saturating_sub(text.len() - 1);
        window.drain(..done);
        start += u64::try_from(done).unwrap_or(u64::MAX);
    }
}

/// SHA-256 of the file in hex, with zeros instead of the `length` bytes from `at`.
fn digest_without(path: &Path, at: u64, length: usize) -> Result<String> {
    let mut file = File::open(path)?;
    let mut digest = Sha256::new();
    std::io::copy(&mut (&mut file).take(at), &mut HashWriter(&mut digest))?;
    let mut place = vec![0; length];
    file.read_exact(&mut place)?;
    digest.update(vec![0; length]);
    std::io::copy(&mut file, &mut HashWriter(&mut digest))?;
    Ok(hex(&digest.finalize()))
}

/// Replaces `placeholder` in the file by the digest of the file.
pub(super) fn seal(path: &Path, placeholder: &str) -> Result<()> {
    let at = find(path, placeholder.as_bytes())?.ok_or_else(|| Error::other("the place of the digest is not found"))?;
    let digest = digest_without(path, at, placeholder.len())?;
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.seek(SeekFrom::Start(at))?;
    file.write_all(digest.as_bytes())
}

/// Whether the file is the one whose digest is `digest`, which it contains.
pub(super) fn matches(path: &Path, digest: &str) -> Result<bool> {
    let is_digest = digest.len() == 64;
    match if is_digest { find(path, digest.as_bytes())? } else { None } {
        Some(at) => Ok(digest_without(path, at, digest.len())? == digest),
        None => Ok(false),
    }
}

struct HashWriter<'d>(&'d mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_file_matches_until_any_byte_changes() {
        let directory = std::env::temp_dir().join(format!("latchkey-checksum-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (file, placeholder) = (directory.join("file"), "p".repeat(64));
        // Files are read in chunks of 1,048,576 bytes, and the place can be split between two.
        for before in [0, 10, 1_048_546, 1_048_576, 2_097_153] {
            std::fs::write(&file, [&vec![b'x'; before], placeholder.as_bytes(), b"after"].concat()).unwrap();
            seal(&file, &placeholder).unwrap();
            let sealed = std::fs::read(&file).unwrap();
            let digest = String::from_utf8(sealed[before..before + 64].to_vec()).unwrap();
            assert!(matches(&file, &digest).unwrap(), "{before}");
            for at in [0, before / 2, before + 64, sealed.len() - 1] {
                let mut changed = sealed.clone();
                changed[at] ^= 1;
                std::fs::write(&file, changed).unwrap();
                assert!(!matches(&file, &digest).unwrap(), "{before} {at}");
            }
        }
        std::fs::write(&file, placeholder.repeat(2)).unwrap();
        assert!(seal(&file, &placeholder).is_err(), "the place is ambiguous");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
