//! Reads a new password from the terminal or from standard input. It is never an argument, because other users of the
//! machine can see arguments.

use std::io::{IsTerminal, Read, stdin};

use crate::domain::password::Password;
use crate::domain::text::{self, TextError};

/// Maximum size of standard input, in bytes.
const INPUT_MAX: u64 = 8 * 1024;

/// Reads a password: twice from the terminal, without echo, or else one line from standard input. Errors: a message.
pub(super) fn read() -> Result<Password, String> {
    let failed = |error: std::io::Error| format!("cannot read the password: {error}");
    let password = if stdin().is_terminal() {
        let first = rpassword::prompt_password("Password: ").map_err(failed)?;
        let second = rpassword::prompt_password("Password again: ").map_err(failed)?;
        if first != second {
            return Err("the passwords do not match".to_owned());
        }
        first
    } else {
        single_line(read_input().map_err(failed)?)?
    };
    match text::first_error(&password) {
        None if password.is_empty() => Err("the password is empty".to_owned()),
        None => Ok(Password::new(password)),
        Some(TextError::Blank) => Err("the password is blank".to_owned()),
        Some(TextError::Control(character)) => {
            Err(format!("the password contains the control character U+{:04X}", u32::from(character)))
        }
        Some(TextError::Invisible(character)) => {
            Err(format!("the password contains the invisible character U+{:04X}", u32::from(character)))
        }
    }
}

/// Reads and ignores standard input, so that the program which writes to it does not fail.
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

/// Returns the single line of `input`, without line end and byte order mark.
fn single_line(input: Vec<u8>) -> Result<String, String> {
    if u64::try_from(input.len()).unwrap_or(u64::MAX) > INPUT_MAX {
        return Err(format!("standard input contains more than {INPUT_MAX} bytes; write only the password"));
    }
    let text = String::from_utf8(input).map_err(|_not_text| "standard input is not valid UTF-8".to_owned())?;
    let line = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let line = line.strip_suffix('\n').map_or(line, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("standard input is empty; write the password to it, as one line".to_owned());
    }
    match line.split('\n').count() {
        1 => Ok(line.to_owned()),
        lines => Err(format!("standard input contains {lines} lines; write only the password, as one line")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_one_line_of_the_input() {
        for input in ["a password", "a password\n", "a password\r\n", "\u{feff}a password\n"] {
            assert_eq!(single_line(input.into()).as_deref(), Ok("a password"), "{input:?}");
        }
        assert_eq!(single_line(" a b ".into()).as_deref(), Ok(" a b "), "blanks are part of the password");
        for (input, expected) in [
            ("", "empty"),
            ("\n", "empty"),
            ("\r\n", "empty"),
            ("one\ntwo", "2 lines"),
            ("one\ntwo\n", "2 lines"),
            ("one\r\ntwo\r\n", "2 lines"),
            ("\none", "2 lines"),
            ("one\n\n", "2 lines"),
        ] {
            let error = single_line(input.into()).unwrap_err();
            assert!(error.contains(expected), "{input:?}: {error}");
        }
        assert!(single_line(vec![0xff; 8]).unwrap_err().contains("UTF-8"));
        assert!(single_line(vec![b'a'; 8193]).unwrap_err().contains("8192 bytes"));
    }
}
