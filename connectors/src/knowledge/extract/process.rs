//! Process that reads one file, so that no file can take the node down.
//!
//! A parser of a malicious file may panic, overflow its stack, take all memory or never end. Each of these ends
//! only the process. The node starts its own executable once a file, writes the
//! bytes to its standard input and reads the text from its standard output. The process first limits its
//! memory (`RLIMIT_AS`), processor time (`RLIMIT_CPU`), no core, and no file or socket beside the three pipes it
//! has (`RLIMIT_NOFILE`; setrlimit(2)). It has an empty environment and gets nothing but the file. The node kills it
//! when it exceeds its timeout, and waits for it in any case. The number of concurrent processes is limited, and a
//! file's bytes are held by no more than these.

use std::io::{self, Read, Write};
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use heddle_schemas::ports::knowledge::{Document, KnowledgeError};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{Extracted, File, Kind, Refusal, charset, extract};
use crate::knowledge::document::{self, MAX_BYTES};

/// Bytes of the stack that a file is read on; it is part of the memory.
const STACK: usize = 32 << 20;
/// Bytes of a process's standard error that are read.
const LAST_WORDS: u64 = 4 << 10;
/// Bytes of an answer: its text with every byte escaped, and what is around it.
const MOST_ANSWER: u64 = (MAX_BYTES as u64) * 6 + (64 << 10);

/// Limits of reading a file.
#[derive(Debug, Clone)]
pub struct Options {
    /// The executable that reads a file when it is started as `PROGRAM extract ...`. Default: this process's
    /// own, `/proc/self/exe`, which is right after an update has replaced the file too.
    pub program: PathBuf,
    /// Bytes that a file may have. Default: 32 MiB.
    pub file_bytes: NonZeroUsize,
    /// Bytes of memory that reading a file may take, stacks and code included. Default: 768 MiB.
    pub memory_bytes: NonZeroU64,
    /// Seconds of processor time. Default: 20.
    pub processor_seconds: NonZeroU64,
    /// Total timeout. Default: one minute.
    pub timeout: Duration,
    /// Files that are read at once; others wait. Default: 2.
    pub at_once: NonZeroUsize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            program: "/proc/self/exe".into(),
            file_bytes: const { NonZeroUsize::new(32 << 20).unwrap() },
            memory_bytes: const { NonZeroU64::new(768 << 20).unwrap() },
            processor_seconds: const { NonZeroU64::new(20).unwrap() },
            timeout: Duration::from_secs(60),
            at_once: const { NonZeroUsize::new(2).unwrap() },
        }
    }
}

/// Reads files.
#[derive(Debug)]
pub struct Extractor {
    options: Options,
    places: Semaphore,
}

/// The right to read one file, and to hold its bytes until then.
#[derive(Debug)]
pub struct Place<'a>(#[expect(dead_code, reason = "held, not used")] SemaphorePermit<'a>);

impl Extractor {
    /// Within these limits.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let places = Semaphore::new(options.at_once.get());
        Self { options, places }
    }

    /// Bytes that a file may have.
    #[must_use]
    pub fn file_bytes(&self) -> usize {
        self.options.file_bytes.get()
    }

    /// Waits for a slot; a caller that holds the bytes of a file waits first.
    ///
    /// # Panics
    /// Never: the semaphore is not closed.
    pub async fn place(&self) -> Place<'_> {
        Place(self.places.acquire().await.expect("it is never closed"))
    }

    /// Makes a document of a file.
    ///
    /// # Errors
    /// [`KnowledgeError::Refused`]: a format that is not taken, too large, broken, encrypted, without text, made
    /// to harm; the error says which.
    pub async fn document(&self, _place: Place<'_>, file: File) -> Result<Document, KnowledgeError> {
        let refused = |why| document::refused(&file.id, why);
        let kind = Kind::of(&file).map_err(refused)?;
        if file.bytes.len() > self.file_bytes() {
            let most = self.file_bytes();
            return Err(refused(format!(
                "it has {} bytes, files of at most {most} are accepted",
                file.bytes.len()
            )));
        }
        let extracted = match kind {
            Kind::Text | Kind::Markdown => document::as_it_is(kind, &file.bytes).map_err(refused)?,
            kind => {
                let charset = file.content_type.as_deref().and_then(charset);
                self.read(kind, charset, file.bytes.clone()).await.map_err(refused)?
            }
        };
        document::of(&file.id, file.title, extracted)
    }

    async fn read(&self, kind: Kind, charset: Option<&str>, bytes: Bytes) -> Result<Extracted, Refusal> {
        let failed = |error: io::Error| format!("the process that reads it cannot be started: {error}");
        let mut child = self.start(kind, charset).map_err(failed)?;
        let answer = tokio::time::timeout(self.options.timeout, answer(&mut child, bytes)).await;
        // It has ended, or has used up its time; a process that has ended need not be killed.
        let killed = child.start_kill();
        drop(killed);
        let status = child.wait().await.map_err(failed)?;
        let Ok(answer) = answer else {
            return Err(format!("reading it takes longer than {:?}", self.options.timeout));
        };
        let (answer, last_words) = answer.map_err(|error| format!("reading it broke off: {error}"))?;
        match serde_json::from_slice::<Result<Extracted, Refusal>>(&answer) {
            Ok(answer) => answer,
            Err(_) => Err(self.end(status, &last_words)),
        }
    }

    fn start(&self, kind: Kind, charset: Option<&str>) -> io::Result<Child> {
        let mut command = Command::new(&self.options.program);
        command.arg("extract").args(["--kind", &kind.to_string()]);
        if let Some(charset) = charset {
            command.args(["--charset", charset]);
        }
        command
            .args(["--memory-bytes", &self.options.memory_bytes.to_string()])
            .args(["--processor-seconds", &self.options.processor_seconds.to_string()])
            .env_clear()
            // mimalloc reserves a GiB at its start otherwise, which the limit would forbid.
            .env("MIMALLOC_ARENA_RESERVE", "65536")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
    }

    /// Returns the reason for a process that ended without an answer.
    fn end(&self, status: ExitStatus, last_words: &str) -> Refusal {
        use std::os::unix::process::ExitStatusExt;
        let Options { memory_bytes, processor_seconds, .. } = &self.options;
        if last_words.contains("memory allocation of") {
            return format!("reading it needs more than {memory_bytes} bytes of memory");
        }
        if last_words.contains("overflowed its stack") {
            return "it nests too deeply".into();
        }
        let signal = status.signal().and_then(rustix::process::Signal::from_named_raw);
        if signal == Some(rustix::process::Signal::XCPU) || signal == Some(rustix::process::Signal::KILL) {
            return format!("reading it takes more than {processor_seconds} s of processor time");
        }
        tracing::warn!(%status, last_words, "the process that reads files ended without an answer");
        format!("it cannot be read: the reader ended with {status}")
    }
}

/// Writes the file's bytes and reads the answer and the standard error.
async fn answer(child: &mut Child, bytes: Bytes) -> io::Result<(Vec<u8>, String)> {
    let piped = || io::Error::other("no pipe to the process");
    let mut stdin = child.stdin.take().ok_or_else(piped)?;
    let stdout = child.stdout.take().ok_or_else(piped)?;
    let stderr = child.stderr.take().ok_or_else(piped)?;
    let write = async move {
        // A process that ended early reads no more; its exit status explains it.
        let written = stdin.write_all(&bytes).await;
        drop(written);
    };
    let (mut answer, mut last_words) = (Vec::new(), Vec::new());
    let read = async { stdout.take(MOST_ANSWER).read_to_end(&mut answer).await };
    let listen = async { stderr.take(LAST_WORDS).read_to_end(&mut last_words).await };
    let ((), read, listened) = tokio::join!(write, read, listen);
    read.and(listened)?;
    Ok((answer, String::from_utf8_lossy(&last_words).into_owned()))
}

/// Task of the process that reads a file.
#[derive(Debug, Clone)]
pub struct Task {
    /// Format of the file.
    pub kind: Kind,
    /// Encoding that its server stated.
    pub charset: Option<String>,
    /// As [`Options::memory_bytes`].
    pub memory_bytes: u64,
    /// As [`Options::processor_seconds`].
    pub processor_seconds: u64,
}

/// Reads a file in this process, which does nothing else: from `input`, answering on `output`.
///
/// # Errors
/// If the process cannot be limited, or input or output fail. The refusal of a file is an answer.
pub fn run(task: Task, input: impl Read, mut output: impl Write) -> io::Result<()> {
    limit(&task)?;
    let mut bytes = Vec::new();
    { input }.read_to_end(&mut bytes)?;
    let Task { kind, charset, .. } = task;
    // A parser's panic messages are for its authors.
    std::panic::set_hook(Box::new(|_| ()));
    let read = std::thread::Builder::new()
        .stack_size(STACK)
        .spawn(move || extract(kind, charset.as_deref(), &bytes, MAX_BYTES))?;
    let answer = read.join().unwrap_or_else(|_| Err("it is broken: its parser gave up".into()));
    serde_json::to_writer(&mut output, &answer)?;
    output.flush()
}

fn limit(task: &Task) -> io::Result<()> {
    let to = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::As, to(task.memory_bytes))?;
    // The soft limit ends it with SIGXCPU, the hard one with SIGKILL.
    let seconds = task.processor_seconds;
    setrlimit(Resource::Cpu, Rlimit { current: Some(seconds), maximum: Some(seconds + 1) })?;
    setrlimit(Resource::Core, to(0))?;
    // Open files stay open: the three pipes.
    setrlimit(Resource::Nofile, to(0))?;
    Ok(())
}
