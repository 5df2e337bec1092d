//! The scopes of each role, as `docs/levels.md` lists them.

use super::documents::read;

/// The scopes of a role, in the order in which scope strings list them.
pub fn of(role: &str) -> Vec<String> {
    let page = read("docs/levels.md");
    let cells = |line: &str| -> Vec<String> {
        line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`').to_owned()).collect()
    };
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| Scope |"));
    let column = cells(lines.next().unwrap()).iter().position(|name| name == role).unwrap();
    let rows = lines.skip(1).take_while(|line| line.starts_with('|')).map(cells);
    rows.filter(|row| row[column] == "yes").map(|row| row[0].clone()).collect()
}

/// The scopes of a role as a scope string.
pub fn text_of(role: &str) -> String {
    of(role).join(" ")
}
