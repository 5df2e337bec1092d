//! The built-in templates of mails.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// The name of the template of the HTML part.
pub(super) const LAYOUT: &str = "layout.html";

/// The name and the text of a built-in template.
macro_rules! template {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../assets/mail/", $name)))
    };
}

/// The name and the text of each built-in template.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    template!("layout.html"),
    template!("test.en.txt"),
    template!("test.de.txt"),
    template!("password_reset.en.txt"),
    template!("password_reset.de.txt"),
    template!("password_changed.en.txt"),
    template!("password_changed.de.txt"),
    template!("email_verification.en.txt"),
    template!("email_verification.de.txt"),
    template!("registration.en.txt"),
    template!("registration.de.txt"),
    template!("account_exists.en.txt"),
    template!("account_exists.de.txt"),
    template!("email_change.en.txt"),
    template!("email_change.de.txt"),
    template!("email_change_requested.en.txt"),
    template!("email_change_requested.de.txt"),
    template!("email_changed.en.txt"),
    template!("email_changed.de.txt"),
    template!("email_undo.en.txt"),
    template!("email_undo.de.txt"),
    template!("email_restored.en.txt"),
    template!("email_restored.de.txt"),
    template!("invitation.en.txt"),
    template!("invitation.de.txt"),
    template!("key_created.en.txt"),
    template!("key_created.de.txt"),
    template!("account_stopped.en.txt"),
    template!("account_stopped.de.txt"),
    template!("sign_in_after_failures.en.txt"),
    template!("sign_in_after_failures.de.txt"),
    template!("sign_in_from_new_network.en.txt"),
    template!("sign_in_from_new_network.de.txt"),
];

/// Writes all built-in templates to a directory, which is created if it does not exist. Returns the number of files.
///
/// Errors: a file exists already, and nothing was written; or the directory or a file cannot be written.
pub fn write_to(directory: &Path) -> Result<usize, String> {
    let cannot = |path: &Path, error: &std::io::Error| format!("cannot write {}: {error}", path.display());
    fs::create_dir_all(directory).map_err(|error| cannot(directory, &error))?;
    if let Some(file) =
        BUILT_IN.iter().map(|(name, _)| directory.join(name)).find(|file| file.symlink_metadata().is_ok())
    {
        let advice = "Name another directory, or remove the file. Nothing was written.";
        return Err(format!("{} exists already, and is not overwritten. {advice}", file.display()));
    }
    for (name, source) in BUILT_IN {
        let file = directory.join(name);
        let written = File::create_new(&file).and_then(|mut file| file.write_all(source.as_bytes()));
        written.map_err(|error| cannot(&file, &error))?;
    }
    Ok(BUILT_IN.len())
}
