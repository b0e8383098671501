//! A folder with a store of its own, and the binary run in it as people and scripts run it.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

/// The words of `line`: arguments, none of which has a space.
pub(crate) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// A folder with a store in it.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A place with the prompt `welcome`.
    pub(crate) fn with_prompt() -> Self {
        let place = Self::new();
        place.ok(&[
            "prompt",
            "create",
            "welcome",
            "--content",
            "Hello {{name}}",
            "--model",
            "gpt-4o",
        ]);
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file into it.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), content).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_prompt-engine"));
        command
            .args(args)
            .current_dir(self.path())
            .env_remove("OPENAI_API_KEY")
            .env_remove("PROMPT_ENGINE_STORE")
            .env_remove("PROMPT_ENGINE_ENV")
            .env_remove("CLICOLOR_FORCE")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command that succeeds prints.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The document that a command prints.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// The lines that a command prints.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<Value> {
        let args: Vec<_> = args.iter().copied().chain(["--json"]).collect();
        self.ok(&args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The one sentence with which a command is refused with `code`.
    pub(crate) fn refused(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("prompt-engine: "), "{args:?}: {said}");
        assert!(!said.contains('\u{1b}'), "{args:?}: {said}");
        for debris in ["panicked", "Some(", "Error {", "Os {", "Invalid("] {
            assert!(!said.contains(debris), "{args:?}: {said}");
        }
        said.trim_end().to_owned()
    }
}
