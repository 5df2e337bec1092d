//! Shell completions and manual pages.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::installed;
use crate::support::program::{failure, latchkey, out, run, with_input};

/// A command of another program that must be installed, or `None`. With `REQUIRE_<name>=1` it must be.
fn program(name: &str) -> Option<Command> {
    let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).stdout(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success()).then(|| Command::new(name));
    installed(found, &name.to_uppercase(), name)
}

/// All commands with their parents, such as `user create`, from the help texts.
fn commands(home: &Path) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let mut parents = vec![Vec::<String>::new()];
    while let Some(parent) = parents.pop() {
        let arguments: Vec<&str> = parent.iter().map(String::as_str).chain(["--help"]).collect();
        let help = out(&run(&mut latchkey(home, &arguments)));
        let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
        // Names are indented by two blanks, and continued descriptions by more.
        let names = lines.filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
        for name in names.map(|line| line.split(' ').next().unwrap()).filter(|name| *name != "help") {
            let command: Vec<String> = parent.iter().cloned().chain([name.to_owned()]).collect();
            found.push(command.clone());
            parents.push(command);
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

#[test]
fn every_command_has_a_manual_page_without_errors() {
    let home = TempDir::new().unwrap();
    assert_eq!(out(&run(&mut latchkey(home.path(), &["man", "share/man1"]))), "");
    let pages = home.path().join("share/man1");
    let mut expected: Vec<String> =
        commands(home.path()).iter().map(|command| format!("latchkey-{}.1", command.join("-"))).collect();
    expected.push("latchkey.1".to_owned());
    expected.sort();
    let mut written: Vec<String> =
        std::fs::read_dir(&pages).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    written.sort();
    assert_eq!(written, expected);
    let page = std::fs::read_to_string(pages.join("latchkey-migrate-down.1")).unwrap();
    assert!(page.contains("\\-\\-yes") && page.contains("Revert the latest migration"), "{page}");

    // The pages are written again over the first ones.
    out(&run(&mut latchkey(home.path(), &["man", "share/man1"])));
    if program("man").is_some() {
        for page in written {
            let mut man = Command::new("man");
            man.args(["--warnings", "-l", "-E", "UTF-8"]).arg(pages.join(&page)).env("MANWIDTH", "80");
            let shown = man.stdin(Stdio::null()).output().unwrap();
            assert!(shown.status.success() && shown.stderr.is_empty(), "{page}: {shown:?}");
        }
    }
    let file = home.path().join("share/man1/latchkey.1");
    let message = failure(&run(&mut latchkey(home.path(), &["man", file.to_str().unwrap()])));
    assert!(message.contains("cannot write to "), "{message}");
}

#[test]
fn the_completions_of_each_shell_are_valid_and_contain_every_command() {
    let home = TempDir::new().unwrap();
    let mut command = latchkey(home.path(), &["completions", "bash"]);
    let bash = out(&run(command.env("LATCHKEY__NONSENSE", "packages are built with any settings")));
    for command in commands(home.path()) {
        let case = command.join("-").replace('-', "__subcmd__");
        assert!(bash.contains(&format!("cmd=\"latchkey__subcmd__{case}\"")), "{command:?} in {bash}");
    }
    if let Some(mut shell) = program("bash") {
        let list = "source /dev/stdin && complete -p latchkey && COMP_WORDS=(latchkey user un) && COMP_CWORD=2 && \
             _latchkey latchkey un user && echo ${COMPREPLY[@]}";
        let listed = out(&with_input(shell.args(["-c", list]).stdout(Stdio::piped()).stderr(Stdio::piped()), &bash));
        assert!(listed.contains("-F _latchkey") && listed.ends_with("unlock\n"), "{listed}");
    }
    for shell in ["zsh", "fish"] {
        let script = out(&run(&mut latchkey(home.path(), &["completions", shell])));
        assert!(script.contains("unlock") && script.contains("if-absent"), "{script}");
        let file = home.path().join(shell);
        std::fs::write(&file, script).unwrap();
        if let Some(mut shell) = program(shell) {
            let checked = shell.arg("-n").arg(&file).output().unwrap();
            assert!(checked.status.success() && checked.stderr.is_empty(), "{checked:?}");
        }
    }
    let unknown = run(&mut latchkey(home.path(), &["completions", "cmd"]));
    assert_eq!(unknown.status.code(), Some(2));
}
