//! Runs a command to its end whatever signals come, so that what it was lent can be put away after it.
//! Invariant: from `catch` on, no signal of [`ENDING`] ends this process. A second Ctrl-C is like the
//! first: the command is who obeys it, or does not.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus};

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};

/// Signals that ask a process to end.
pub(super) const ENDING: [i32; 4] = [SIGINT, SIGQUIT, SIGTERM, SIGHUP];

/// The signals of this process, as a queue.
#[derive(Debug)]
pub(super) struct Signals(signal_hook::iterator::Signals);

impl Signals {
    pub(super) fn catch() -> io::Result<Self> {
        // Under nohup a hang-up is no reason to end.
        let caught = ENDING.into_iter().filter(|signal| *signal != SIGHUP || !is_ignored(SIGHUP));
        Ok(Self(signal_hook::iterator::Signals::new(caught.chain([SIGCHLD]))?))
    }

    /// A signal to end that came before now.
    pub(super) fn ending(&mut self) -> Option<i32> {
        self.0.pending().find(|signal| ENDING.contains(signal))
    }

    /// Runs `command` and returns the code to end with.
    ///
    /// A terminal sends SIGINT and SIGQUIT to the command as well, so they are left to it: `psql` goes
    /// on after Ctrl-C. SIGTERM and SIGHUP come to one process, so they are passed on; what the command
    /// has started in its turn is its own affair, as it is without us.
    pub(super) fn run(&mut self, command: &mut Command) -> io::Result<ExitCode> {
        let mut child = command.spawn()?;
        let mut came = None;
        // The end of a child is a signal too, so all that can happen comes in one order, and none is
        // passed on to a process that has ended and may have given its id to another.
        for signal in self.0.forever() {
            match signal {
                SIGCHLD => {
                    if let Some(status) = child.try_wait()? {
                        return Ok(code(status, came));
                    }
                }
                SIGTERM | SIGHUP => {
                    came = Some(signal);
                    pass_on(signal, &child);
                }
                _ => came = came.or(Some(signal)),
            }
        }
        Err(io::Error::other("the queue of signals was closed"))
    }
}

/// The code that shells give to the end by a signal.
pub(super) fn code_of(signal: i32) -> ExitCode {
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(1))
}

fn code(status: ExitStatus, came: Option<i32>) -> ExitCode {
    match (status.code(), came) {
        (_, Some(signal @ (SIGTERM | SIGHUP))) => code_of(signal),
        // It was interrupted and thought nothing of it.
        (Some(0), _) => ExitCode::SUCCESS,
        (_, Some(signal)) => code_of(signal),
        (Some(code), None) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        (None, None) => status.signal().map_or(ExitCode::FAILURE, code_of),
    }
}

/// The shell's own `kill`, because the standard library has but SIGKILL, which gives
/// a command no chance to put its own things away.
fn pass_on(signal: i32, child: &Child) {
    let (signal, pid) = (signal.to_string(), child.id().to_string());
    let sent = Command::new("/bin/sh").args(["-c", r#"kill -"$0" "$1""#, &signal, &pid]).status();
    if let Err(error) = sent {
        eprintln!("xtask: cannot pass the signal on: {error}");
    }
}

/// Whether the caller wants `signal` ignored, where the system says so: on Linux.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    (mask >> (signal - 1)) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// The code after a shell that sends signals to its parent, which is this test.
    fn code_after(script: &str) -> ExitCode {
        let mut signals = Signals::catch().unwrap();
        // A pipe that nobody writes to: whoever reads it waits until a signal ends him.
        signals.run(Command::new("sh").args(["-c", script]).stdin(Stdio::piped())).unwrap()
    }

    /// One test, because a signal comes to the whole process.
    #[test]
    fn signals_end_the_command_and_not_the_one_who_waits_for_it() {
        assert_eq!(code_after("exit 0"), ExitCode::SUCCESS);
        assert_eq!(code_after("exit 101"), ExitCode::from(101));
        assert_eq!(code_after("kill -9 $$"), ExitCode::from(137));
        // Sent to one process, and so passed on.
        assert_eq!(code_after("kill -TERM $PPID; exec cat"), ExitCode::from(143));
        // Under nohup it is not, and ends nobody.
        if !is_ignored(SIGHUP) {
            assert_eq!(code_after("kill -HUP $PPID; exec cat"), ExitCode::from(129));
        }
        // A command that puts its things in order first has been ended nevertheless.
        let orderly = "trap 'exit 0' TERM; kill -TERM $PPID; while :; do :; done";
        assert_eq!(code_after(orderly), ExitCode::from(143));
        // Sent to both, as a terminal does, and then by one who insists.
        let twice = "kill -INT $PPID; kill -INT $PPID; kill -INT $$";
        assert_eq!(code_after(twice), ExitCode::from(130));
        assert_eq!(code_after("kill -QUIT $PPID; kill -QUIT $$"), ExitCode::from(131));
        // A command that goes on after it, as psql does.
        assert_eq!(code_after("kill -INT $PPID; exit 0"), ExitCode::SUCCESS);
    }
}
