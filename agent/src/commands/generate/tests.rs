use std::process::Stdio;

use clap::Parser;
use clap_complete::Shell;

use super::*;

/// Names of all pages that there are, by the definition of the command line.
fn expected(command: &Command, above: &str, names: &mut Vec<String>) {
    let name = format!("{above}{}", command.get_name());
    names.push(format!("{name}.8"));
    for below in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        expected(below, &format!("{name}-"), names);
    }
}

#[test]
fn each_command_that_is_not_hidden_has_a_page() {
    let mut names = Vec::new();
    expected(&Cli::command(), "", &mut names);
    names.push("lifeboat.toml.5".into());
    let pages = pages().unwrap();
    let made: Vec<&String> = pages.iter().map(|(name, _)| name).collect();
    assert_eq!(made, names.iter().collect::<Vec<_>>());
    assert!(names.contains(&"lifeboat-backup.8".into()));
    assert!(names.contains(&"lifeboat-key-add.8".into()));
    assert!(
        !names
            .iter()
            .any(|n| n.contains("generate") || n.contains("help"))
    );
}

#[test]
fn page_of_a_command_says_what_its_help_says() {
    let pages = pages().unwrap();
    let (_, backup) = pages.iter().find(|p| p.0 == "lifeboat-backup.8").unwrap();
    for part in [
        "lifeboat\\-backup \\- make a restore point of this host on all targets\n",
        "\\fBlifeboat backup\\fR [OPTIONS]\n",
        "\\fB\\-\\-io\\-limit\\fR \\fI<SIZE>\\fR\n",
        ".SH \"COMMON OPTIONS\"",
        "\\fBlifeboat\\-verify\\fR(8),\n",
    ] {
        assert!(backup.contains(part), "{part} is missing in\n{backup}");
    }
    let (_, all) = pages.iter().find(|p| p.0 == "lifeboat.8").unwrap();
    for part in [
        ".SH \"EXIT STATUS\"\n.TP\n\\fB0\\fR\ndone\n",
        "lifeboat\\-backup(8)",
        "LIFEBOAT_LOG",
    ] {
        assert!(all.contains(part), "{part} is missing in\n{all}");
    }
    assert!(!all.contains("generate"), "{all}");
    let (_, key) = pages.iter().find(|p| p.0 == "lifeboat-disarm.8").unwrap();
    assert!(key.contains("Take back what \\fBarm\\fR did"), "{key}");
}

/// What is shown to be typed can be typed.
#[test]
fn examples_are_valid_and_belong_to_a_page() {
    let mut names = Vec::new();
    expected(&Cli::command(), "", &mut names);
    let mut count = 0;
    for name in names.iter().map(|n| n.trim_end_matches(".8")) {
        for (line, text) in texts::examples(name) {
            assert!(!text.is_empty(), "{line}");
            let words = line.split(' ').filter(|w| !w.starts_with('>'));
            let words = words.map(|w| w.trim_matches('\''));
            let parsed = Cli::try_parse_from(words);
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
            count += 1;
        }
        for page in texts::related(name) {
            assert!(names.contains(&format!("{page}.8")), "{page} is no page");
        }
    }
    assert!(count > 30, "{count}");
    // A text for a page that does not exist would never be seen.
    let arms = include_str!("texts.rs").lines();
    for arm in arms.filter_map(|l| Some(l.split_once(" => ")?.0)) {
        for name in arm.split('"').filter(|w| w.starts_with("lifeboat")) {
            assert!(names.contains(&format!("{name}.8")), "{name} is no page");
        }
    }
    toml::from_str::<crate::config::Config>(texts::CONFIGURATION_EXAMPLE).unwrap();
}

fn completions(shell: Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut shown(&Cli::command()), "lifeboat", &mut text);
    String::from_utf8(text).unwrap()
}

#[test]
fn completions_offer_commands_that_are_not_hidden() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let text = completions(shell);
        assert!(
            text.contains("prepare") && text.contains("guests"),
            "{shell}"
        );
        assert!(text.contains("passphrase-file"), "{shell}");
        assert!(!text.contains("generate"), "{shell}");
    }
}

/// Asks a real shell what it would offer: `script` prints that, `$1` is the file with the completions.
fn ask(shell: Shell, program: &str, script: &str) -> Option<String> {
    let dir = tempfile::tempdir().unwrap();
    // zsh finds completions by their names.
    let file = dir.path().join("_lifeboat");
    std::fs::write(&file, completions(shell)).unwrap();
    let output = command(program)
        .args(["-c", script])
        .args(if shell == Shell::Fish {
            None
        } else {
            Some(program)
        })
        .arg(&file)
        .env("HOME", dir.path())
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!("IGNORED: {program} is not installed");
            return None;
        }
        output => output.unwrap(),
    };
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && err.is_empty(),
        "{program}: {err}"
    );
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[expect(clippy::disallowed_methods, reason = "shells are what is tested here")]
fn command(program: &str) -> std::process::Command {
    std::process::Command::new(program)
}

/// The words that are offered, of lines like `prepare<TAB>Make a stick`.
fn words(answer: &str) -> Vec<&str> {
    answer.split_whitespace().collect()
}

#[test]
fn bash_completes() {
    let script = r#"
        . "$1"
        complete -p lifeboat >/dev/null || exit 1
        try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _lifeboat lifeboat "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[@]}"; }
        try lifeboat pr
        try lifeboat backup --no-g
        try lifeboat key r
    "#;
    if let Some(answer) = ask(Shell::Bash, "bash", script) {
        let all = ["prepare", "prune", "--no-guests", "remove", "rotate"];
        assert_eq!(words(&answer), all, "{answer}");
    }
}

#[test]
fn fish_completes() {
    let script = r#"
        source $argv[1]
        complete -C 'lifeboat pr'
        complete -C 'lifeboat backup --no-g'
    "#;
    if let Some(answer) = ask(Shell::Fish, "fish", script) {
        for word in ["prepare\t", "prune\t", "--no-guests\t"] {
            assert!(answer.contains(word), "{word:?} is missing in {answer}");
        }
    }
}

/// A line editor needs a terminal: zsh gets one from its own module zpty.
#[test]
fn zsh_completes() {
    let script = r#"
        zmodload zsh/zpty || exit 1
        dir=${1:h}
        zpty shell "zsh -f -i"
        zpty -w shell "PS1=; fpath=($dir \$fpath); autoload -Uz compinit; compinit -u -d $dir/dump; bindkey '^I' complete-word; unsetopt list_beep"
        zpty -w shell 'zstyle ":completion:*" list-colors ""; LISTMAX=1000; echo REA''DY'
        zpty -r -m shell line '*READY*'
        zpty -w -n shell $'lifeboat backup --no-gu\t --no-v\t --END'
        zpty -r -m shell line '*--END*'
        print -r -- $line
        zpty -d shell
    "#;
    if let Some(answer) = ask(Shell::Zsh, "zsh", script) {
        assert!(
            answer.contains("--no-guests") && answer.contains("--no-verify"),
            "{answer}"
        );
    }
}
