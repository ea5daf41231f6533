//! Tests of documents in the real process: every format is added from files and over HTTP and found again, every
//! hostile file is refused with its reason, and the node goes on serving.

mod files;

use std::net::TcpListener;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use heddle_connectors::knowledge::extract::File;
use heddle_connectors::knowledge::extract::process::{Extractor, Options};
use heddle_schemas::ports::knowledge::{DocumentFormat, KnowledgeError};
use serde_json::Value;

use crate::serving::site::{ADMIN_TOKEN, holder_of};

/// Timeout until a node is ready.
const READY: Duration = Duration::from_secs(30);

/// A node with a tenant, ended with the test.
struct Node {
    folder: tempfile::TempDir,
    url: String,
    child: Child,
    client: reqwest::Client,
}

impl Node {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let data = folder.path().join("data");
        let config = format!(
            "data_dir = {data:?}\nhttp.listen = \"127.0.0.1:0\"\nhttp.admin_listen = \"127.0.0.1:{port}\"\n\
             http.admin_token = \"{ADMIN_TOKEN}\"\n"
        );
        std::fs::write(folder.path().join("heddle.toml"), config).unwrap();
        let tenant = "id = \"acme\"\nname = \"Acme\"\n[knowledge]\nlanguage = \"en\"\n";
        std::fs::write(folder.path().join("acme.toml"), tenant).unwrap();
        let child = heddle(folder.path()).arg("serve").stderr(Stdio::null()).spawn().unwrap();
        let url = format!("http://127.0.0.1:{port}");
        let client = holder_of(ADMIN_TOKEN);
        let node = Self { folder, url, child, client };
        let ready = async {
            while !node.is_ready().await {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(READY, ready).await.expect("ready in time");
        let (status, _, printed) = node.run(&["tenant", "apply", "acme.toml"]);
        assert_eq!(status, 0, "{printed}");
        node
    }

    async fn is_ready(&self) -> bool {
        // On a connection of its own: the node closes one that was idle for ten seconds.
        let asked = reqwest::get(format!("{}/readyz", self.url)).await;
        asked.is_ok_and(|answer| answer.status().is_success())
    }

    /// Runs a command against the node; returns exit code, standard output and standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let done = heddle(self.folder.path()).args(arguments).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (done.status.code().unwrap(), text(done.stdout), text(done.stderr))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    /// The documents whose passages match.
    fn found(&self, query: &str) -> Vec<String> {
        let (status, printed, fault) = self.run(&["--json", "kb", "search", "acme", query]);
        assert_eq!(status, 0, "{fault}");
        let passages: Vec<Value> = serde_json::from_str(&printed).unwrap();
        passages.iter().map(|passage| passage["document"].as_str().unwrap().to_owned()).collect()
    }

    async fn upload(&self, query: &[(&str, &str)], content_type: &str, bytes: Vec<u8>) -> (u16, Value) {
        let url = format!("{}/v1/tenants/acme/documents/file", self.url);
        let request = self.client.post(url).query(query).header("content-type", content_type).body(bytes);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn heddle(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_heddle"));
    command.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[tokio::test]
async fn files_of_every_format_are_added_and_found() {
    let node = Node::start().await;
    node.write("parking.txt", b"Parking is free behind the clinic.");
    node.write("hours.md", b"# Hours\n\nWe open at nine.");
    node.write(
        "prices.html",
        b"<title>Prices</title><nav>Home</nav><h1>Prices</h1><p>A cleaning is 60 euros.",
    );
    node.write("staff.docx", &files::docx("Doctor Abelard treats children."));
    node.write("list.pdf", &files::pdf("An X-ray takes a quarter of an hour."));
    let names = ["parking.txt", "hours.md", "prices.html", "staff.docx", "list.pdf"];
    let (status, printed, fault) = node.run(&[&["kb", "add", "acme"], &names[..]].concat());
    assert_eq!(status, 0, "{fault}");
    assert!(names.iter().all(|name| printed.contains(name)), "{printed}");
    assert_eq!(node.found("parking"), ["parking.txt"]);
    assert_eq!(node.found("when do you open?"), ["hours.md"]);
    assert_eq!(node.found("price of cleaning"), ["prices.html"]);
    assert_eq!(node.found("who treats a child?"), ["staff.docx"]);
    assert_eq!(node.found("xray quartr"), ["list.pdf"]);
    assert_eq!(node.found("home"), [""; 0], "navigation is no text");
}

#[tokio::test]
async fn files_are_taken_over_http_by_their_media_type() {
    let node = Node::start().await;
    let html = b"<h1>Opening hours</h1><p>Nine to five.".to_vec();
    let (status, printed) = node.upload(&[("id", "page/7")], "text/html; charset=utf-8", html).await;
    assert_eq!((status, printed["title"].as_str()), (200, Some("Opening hours")), "{printed}");
    let query = [("id", "list"), ("title", "Price list")];
    let (status, printed) = node.upload(&query, "application/pdf", files::pdf("A visit is 40 euros.")).await;
    assert_eq!((status, printed["title"].as_str()), (200, Some("Price list")), "{printed}");
    assert_eq!(node.found("visit"), ["list"]);
    let (status, printed) = node.upload(&[("id", "logo")], "image/png", vec![1, 2, 3]).await;
    assert_eq!(status, 422);
    assert!(
        printed["detail"].as_str().unwrap().contains("image/png is not accepted; .txt, .md"),
        "{printed}"
    );
    let (status, printed) =
        node.upload(&[("id", "huge.txt")], "text/plain", vec![b'a'; (32 << 20) + 1]).await;
    assert_eq!(status, 413);
    assert!(printed["detail"].as_str().unwrap().contains("at most 33554432 bytes"), "{printed}");
    let url = format!("{}/v1/tenants/nobody/documents/file?id=a.txt", node.url);
    assert_eq!(node.client.post(url).body("text").send().await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_file_made_to_harm_is_refused_with_its_reason_and_the_node_serves_on() {
    let node = Node::start().await;
    let harmful: [(&str, Vec<u8>, &str); 8] = [
        ("bomb.docx", files::bomb(), "unpacks to more than"),
        ("nested.docx", files::nested_docx(), "nest deeper than 256"),
        ("flate.pdf", files::inflating_pdf(), "of memory"),
        ("nested.pdf", files::nested_pdf(), ""),
        ("circle.pdf", files::circular_pdf(), "no pages"),
        ("garbage.pdf", [b"%PDF-1.7\n".to_vec(), files::garbage(100_000)].concat(), "broken PDF"),
        ("garbage.docx", files::garbage(100_000), "archive is broken"),
        ("latin1.txt", b"caf\xe9".to_vec(), "not UTF-8"),
    ];
    for (name, bytes, _) in &harmful {
        node.write(name, bytes);
    }
    node.write("good.txt", b"The good one is taken.");
    let names: Vec<&str> = harmful.iter().map(|(name, ..)| *name).chain(["good.txt"]).collect();
    let (status, printed, fault) = node.run(&[&["kb", "add", "acme"], &names[..]].concat());
    assert_eq!(status, 2, "{printed}");
    assert!(printed.contains("good.txt") && !printed.contains("bomb"), "{printed}");
    for (name, _, why) in harmful {
        let line = fault.lines().find(|line| line.contains(name));
        assert!(line.is_some_and(|line| line.contains(why)), "{name}: {line:?} in {fault}");
    }
    assert!(node.is_ready().await);
    assert_eq!(node.found("good"), ["good.txt"]);
    node.write("deep.html", format!("{}the end", "<div><table><b>".repeat(100_000)).as_bytes());
    assert_eq!(node.run(&["kb", "add", "acme", "deep.html"]).0, 0);
}

#[tokio::test]
async fn a_wrong_name_changes_nothing_and_a_private_site_is_refused() {
    let node = Node::start().await;
    node.write("a.txt", b"Taken otherwise.");
    node.write("sheet.xlsx", b"PK");
    let (status, _, fault) = node.run(&["kb", "add", "acme", "a.txt", "sheet.xlsx"]);
    assert_eq!(status, 2);
    assert!(fault.contains("sheet.xlsx") && fault.contains(".pdf and .docx are accepted"), "{fault}");
    assert_eq!(node.found("taken"), [""; 0]);
    let (status, _, fault) = node.run(&["kb", "add", "acme", &node.url]);
    assert_eq!(status, 2);
    assert!(fault.contains("not one of the public internet"), "{fault}");
}

#[tokio::test]
async fn no_proxy_of_the_environment_reaches_what_may_not_be_reached() {
    let node = Node::start().await;
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    proxy.set_nonblocking(true).unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = heddle(node.folder.path());
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, &address);
    }
    // A proxy would resolve the name itself.
    let done = command.args(["kb", "add", "acme", "http://localhost:9/"]).output().unwrap();
    let fault = String::from_utf8(done.stderr).unwrap();
    assert!(fault.contains("not one of the public internet"), "{fault}");
    assert!(proxy.accept().is_err(), "the proxy got no request");
}

#[tokio::test]
async fn a_tenants_language_is_one_of_those_there_are() {
    let node = Node::start().await;
    node.write("de.txt", "Ein Kind zahlt die Hälfte.".as_bytes());
    assert_eq!(node.run(&["kb", "add", "acme", "de.txt"]).0, 0);
    assert_eq!(node.found("Kinder"), [""; 0]);
    node.write("acme.toml", b"id = \"acme\"\nname = \"Acme\"\n[knowledge]\nlanguage = \"de\"\n");
    assert_eq!(node.run(&["tenant", "apply", "acme.toml"]).0, 0);
    assert_eq!(node.found("Kinder"), ["de.txt"]);
    node.write("acme.toml", b"id = \"acme\"\nname = \"Acme\"\n[knowledge]\nlanguage = \"xx\"\n");
    let (status, _, fault) = node.run(&["tenant", "apply", "acme.toml"]);
    assert_eq!(status, 2);
    assert!(fault.contains("xx") && fault.contains("`de`"), "{fault}");
}

/// Why a file is refused within these limits.
async fn refused(change: impl FnOnce(&mut Options), id: &str, bytes: Vec<u8>) -> String {
    let mut options = Options { program: env!("CARGO_BIN_EXE_heddle").into(), ..Options::default() };
    change(&mut options);
    let extractor = Extractor::new(options);
    let file = File { id: id.into(), title: None, content_type: None, bytes: bytes.into() };
    match extractor.document(extractor.place().await, file).await {
        Err(KnowledgeError::Refused { document, why }) => {
            assert_eq!(document, id);
            why
        }
        other => panic!("{id}: {other:?}"),
    }
}

#[tokio::test]
async fn reading_a_file_ends_at_its_limits() {
    let seconds = |n| NonZeroU64::new(n).unwrap();
    let why =
        refused(|options| options.memory_bytes = seconds(256 << 20), "a.pdf", files::inflating_pdf()).await;
    assert!(why.contains("more than 268435456 bytes of memory"), "{why}");
    // Tags without a text: nothing but the processor's time ends it.
    let tags = "<b></b>".repeat(4 << 20).into_bytes();
    let why = refused(|options| options.processor_seconds = seconds(1), "a.html", tags.clone()).await;
    assert!(why.contains("more than 1 s of processor time"), "{why}");
    let why = refused(|options| options.timeout = Duration::from_millis(1), "a.html", tags).await;
    assert!(why.contains("longer than 1ms"), "{why}");
    let small = |options: &mut Options| options.file_bytes = NonZeroUsize::new(10).unwrap();
    assert!(refused(small, "a.txt", vec![b'a'; 11]).await.contains("files of at most 10"));
    let why = refused(|options| options.program = "/bin/false".into(), "a.html", b"<p>x".to_vec()).await;
    assert!(why.contains("the reader ended with"), "{why}");
    let why =
        refused(|options| options.program = "/no/such/program".into(), "a.html", b"<p>x".to_vec()).await;
    assert!(why.contains("cannot be started"), "{why}");
}

#[tokio::test]
async fn a_page_becomes_markdown_in_a_process_of_its_own() {
    let options = Options { program: env!("CARGO_BIN_EXE_heddle").into(), ..Options::default() };
    let extractor = Extractor::new(options);
    let file = File {
        id: "a.html".into(),
        title: None,
        content_type: Some("text/html".into()),
        bytes: "<h1>Hours</h1><p>Nine".as_bytes().into(),
    };
    let document = extractor.document(extractor.place().await, file).await.unwrap();
    assert_eq!((document.title.as_str(), document.format), ("Hours", DocumentFormat::Markdown));
    assert_eq!(document.text, "# Hours\n\nNine\n");
}
