//! A new password, from the terminal or from standard input. It is never an argument, which other users of the machine
//! could see.

use std::io::{IsTerminal, Read, stdin};

use crate::domain::password::Password;
use crate::domain::text::{self, Flaw};

/// The most that is read from standard input, in bytes.
const INPUT_MAX: u64 = 8 * 1024;

/// From the terminal without echo, twice; or the one line of standard input.
pub(super) fn read() -> Result<Password, String> {
    let failed = |error: std::io::Error| format!("cannot read the password: {error}");
    let password = if stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(failed)?;
        let second = rpassword::prompt_password("Password again: ").map_err(failed)?;
        if first != second {
            return Err("the passwords differ".to_owned());
        }
        first
    } else {
        one_line(read_input().map_err(failed)?)?
    };
    match text::flaw(&password) {
        None if password.is_empty() => Err("the password is empty".to_owned()),
        None => Ok(Password::new(password)),
        Some(Flaw::Blank) => Err("the password is blank".to_owned()),
        Some(Flaw::Control(character)) => {
            Err(format!("the password holds the control character U+{:04X}", u32::from(character)))
        }
        Some(Flaw::Invisible(character)) => {
            Err(format!("the password holds the invisible character U+{:04X}", u32::from(character)))
        }
    }
}

/// Reads what is on standard input and is not needed, so that the program which writes it does not fail.
pub(super) fn discard() {
    if !stdin().is_terminal() {
        let _ = read_input();
    }
}

fn read_input() -> std::io::Result<Vec<u8>> {
    let mut input = Vec::new();
    stdin().take(INPUT_MAX + 1).read_to_end(&mut input)?;
    Ok(input)
}

/// The line without its end, and without a byte order mark.
fn one_line(input: Vec<u8>) -> Result<String, String> {
    if u64::try_from(input.len()).unwrap_or(u64::MAX) > INPUT_MAX {
        return Err(format!("standard input holds more than {INPUT_MAX} bytes; write the password alone"));
    }
    let text = String::from_utf8(input).map_err(|_not_text| "standard input is not text in UTF-8".to_owned())?;
    let line = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("standard input is empty; write the password to it, as one line".to_owned());
    }
    match line.split('\n').count() {
        1 => Ok(line.to_owned()),
        lines => Err(format!("standard input holds {lines} lines; write the password alone, as one line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_one_line_of_the_input() {
        for input in ["a password", "a password\n", "a password\r\n", "\u{feff}a password\n"] {
            assert_eq!(one_line(input.into()).as_deref(), Ok("a password"), "{input:?}");
        }
        assert_eq!(one_line(" a b ".into()).as_deref(), Ok(" a b "), "blanks are part of it");
        for (input, says) in [
            ("", "empty"),
            ("\n", "empty"),
            ("\r\n", "empty"),
            ("one\ntwo", "2 lines"),
            ("one\ntwo\n", "2 lines"),
            ("one\r\ntwo\r\n", "2 lines"),
            ("\none", "2 lines"),
            ("one\n\n", "2 lines"),
        ] {
            let error = one_line(input.into()).unwrap_err();
            assert!(error.contains(says), "{input:?}: {error}");
        }
        assert!(one_line(vec![0xff; 8]).unwrap_err().contains("UTF-8"));
        assert!(one_line(vec![b'a'; 8193]).unwrap_err().contains("8192 bytes"));
    }
}
