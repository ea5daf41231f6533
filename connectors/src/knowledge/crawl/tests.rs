use std::net::IpAddr;
use std::sync::Mutex;

use axum::Router;
use axum::http::header;
use axum::response::Redirect;
use axum::routing::get;

use super::*;

/// A site on this machine, and the requests that it received.
struct Site {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

async fn site(routes: Router) -> Site {
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = requests.clone();
    let routes = routes.layer(axum::middleware::from_fn(
        move |request: axum::extract::Request, next: axum::middleware::Next| {
            log.lock().unwrap().push(request.uri().path().to_owned());
            next.run(request)
        },
    ));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Site { url, requests }
}

fn page(text: &'static str) -> axum::routing::MethodRouter {
    get(async move || ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], text))
}

/// Only tests reach this machine.
fn options() -> Options {
    let addresses: Rule = Arc::new(|address: IpAddr| address == IpAddr::from([127, 0, 0, 1]));
    Options { addresses, pause: Duration::ZERO, ..Options::default() }
}

/// Returns the paths that were found, and the skipped ones with their reasons.
async fn crawl(url: &str, options: Options) -> (Vec<String>, Vec<(String, String)>) {
    let mut crawl = Crawl::begin(url, options).await.unwrap();
    let (mut found, mut left) = (Vec::new(), Vec::new());
    let path = |url: &str| url.parse::<Url>().unwrap().path().to_owned();
    while let Some(visit) = crawl.next().await {
        match visit {
            Visit::Found(file) => found.push(path(&file.id)),
            Visit::Skipped { url, why } => left.push((path(&url), why)),
            Visit::Stopped { why } => left.push((String::new(), why)),
        }
    }
    (found, left)
}

#[tokio::test]
async fn a_crawl_stays_within_its_site_and_its_robots_file() {
    let robots = "User-agent: *\nDisallow: /private\n\nUser-agent: other\nDisallow: /\n";
    let other = site(Router::new().route("/", page("<p>elsewhere"))).await;
    let elsewhere: &'static str = other.url.clone().leak();
    let home = format!(
        "<a href=/a#top>a</a> <a href='b?x=1'>b</a> <a href=/private/c>c</a> <a href='{elsewhere}/'>other</a>\
         <a href=mailto:x@y>mail</a> <a href=/gone>gone</a> <a href=/list.pdf>list</a> <a href=/out>out</a>\
         <a href=/logo.png>logo</a>"
    );
    let routes = Router::new()
        .route("/robots.txt", get(async move || robots))
        .route("/", page(home.leak()))
        .route("/a", page("<a href=/>home</a><a href=/a/deep>deep</a>"))
        .route("/a/deep", page("<p>deep<a href=/a/deeper>deeper</a>"))
        .route("/a/deeper", page("<p>deeper"))
        .route("/b", page("<p>b"))
        .route("/private/c", page("<p>c"))
        .route("/out", get(async move || Redirect::to(&format!("{elsewhere}/"))))
        .route("/logo.png", get(async || ([(header::CONTENT_TYPE, "image/png")], "png")))
        .route("/list.pdf", get(async || ([(header::CONTENT_TYPE, "application/pdf")], "%PDF")));
    let site = site(routes).await;
    let (found, left) = crawl(&site.url, Options { max_depth: 2, ..options() }).await;
    assert_eq!(found, ["/", "/a", "/b", "/list.pdf", "/a/deep"]);
    let reasons: Vec<_> = left.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(reasons, ["/gone", "/out", "/logo.png"]);
    assert!(
        left[0].1.contains("404") && left[1].1.contains("leaves the site") && left[2].1.contains("image/png")
    );
    assert!(
        !site.requests.lock().unwrap().iter().any(|path| path.contains("private") || path.contains("deeper"))
    );
    assert!(other.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_crawl_ends_at_its_bounds() {
    let routes = Router::new()
        .route("/", page("<a href=/1>1</a><a href=/2>2</a><a href=/3>3</a>"))
        .route("/1", page("<p>one"))
        .route("/2", page("<p>one"))
        .route("/3", page("<p>three"));
    let site = site(routes).await;
    let (found, left) =
        crawl(&site.url, Options { max_pages: NonZeroUsize::new(2).unwrap(), ..options() }).await;
    assert_eq!(found, ["/", "/1"]);
    assert!(left[0].1.contains("limit of 2 pages") && left[0].1.contains("2 known"), "{left:?}");
    let (found, left) = crawl(&site.url, options()).await;
    assert_eq!(found, ["/", "/1", "/3"]);
    assert_eq!(left, [("/2".to_owned(), "it is the same as another page".to_owned())]);
    let small = Options { page_bytes: NonZeroUsize::new(10).unwrap(), ..options() };
    assert_eq!(refused(&site.url, small).await, "it has more than 10 bytes");
    let slow =
        Options { total_timeout: Duration::from_millis(200), pause: Duration::from_secs(60), ..options() };
    let (found, left) = crawl(&site.url, slow).await;
    assert_eq!(found, ["/"]);
    assert!(left[0].1.contains("200ms"), "{left:?}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let endless = get(async || {
        let chunks = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'a'; 64 << 10]));
        ([(header::CONTENT_TYPE, "text/html")], axum::body::Body::from_stream(chunks))
    });
    let site = site(Router::new().route("/", endless)).await;
    assert_eq!(refused(&site.url, options()).await, "it has more than 8388608 bytes");
}

#[tokio::test]
async fn pages_that_ask_for_it_are_not_indexed_or_followed() {
    let header = get(async || ([("x-robots-tag", "noindex"), ("content-type", "text/html")], "<p>x"));
    let routes = Router::new()
        .route("/", page("<meta name=robots content=noindex><a href=/a>a</a><a href=/h>h</a>"))
        .route("/a", page("<meta name=robots content=nofollow><p>a<a href=/b>b</a>"))
        .route("/b", page("<p>b"))
        .route("/h", header);
    let (found, left) = crawl(&site(routes).await.url, options()).await;
    assert_eq!(found, ["/a"]);
    assert_eq!(left.len(), 2, "{left:?}");
}

async fn refused(url: &str, options: Options) -> String {
    Crawl::begin(url, options).await.unwrap_err().why
}

#[tokio::test]
async fn no_address_but_public_ones_is_reached_by_default() {
    let site = site(Router::new().route("/", page("<p>secret"))).await;
    let port = site.url.rsplit_once(':').unwrap().1.to_owned();
    let default = || Options { pause: Duration::ZERO, ..Options::default() };
    for host in ["127.0.0.1", "localhost", "[::1]", "2130706433", "169.254.169.254", "10.0.0.1"] {
        let why = refused(&format!("http://{host}:{port}/"), default()).await;
        assert!(why.contains("not one of the public internet"), "{host}: {why}");
    }
    assert!(refused("file:///etc/passwd", default()).await.contains("http and https"));
    assert!(site.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_not_followed() {
    let secret = tokio::net::TcpListener::bind("127.0.0.2:0").await.unwrap();
    let port = secret.local_addr().unwrap().port();
    for to in [format!("http://127.0.0.2:{port}/"), "file:///etc/passwd".to_owned()] {
        let location: &'static str = to.clone().leak();
        let routes = Router::new().route("/", get(async move || Redirect::to(location)));
        let why = refused(&site(routes).await.url, options()).await;
        assert!(why.contains(&to), "{why}");
    }
    // By a name: `localhost` is this machine, of which only another address may be reached.
    let addresses: Rule = Arc::new(|address: IpAddr| address == IpAddr::from([127, 0, 0, 2]));
    let rule = Options { addresses, ..options() };
    let why = refused(&format!("http://localhost:{port}/"), rule).await;
    assert!(why.contains("not one of the public internet"), "{why}");
    let waited = tokio::time::timeout(Duration::from_millis(100), secret.accept()).await;
    assert!(waited.is_err(), "no request came");
}

#[tokio::test]
async fn a_site_whose_robots_txt_fails_is_not_crawled() {
    let broken = get(async || axum::http::StatusCode::INTERNAL_SERVER_ERROR);
    let site_of = |robots| Router::new().route("/robots.txt", robots).route("/", page("<p>x"));
    let broken = site(site_of(broken)).await;
    assert!(refused(&broken.url, options()).await.contains("robots.txt cannot be read"));
    let closed = site(site_of(get(async || "User-agent: heddle\nDisallow: /"))).await;
    assert!(refused(&closed.url, options()).await.contains("robots.txt forbids"));
    assert!(!closed.requests.lock().unwrap().contains(&"/".to_owned()));
}

#[tokio::test]
async fn the_first_page_may_lead_to_where_the_site_is() {
    let real =
        site(Router::new().route("/en", page("<a href=/en/a>a</a>")).route("/en/a", page("<p>a"))).await;
    let to: &'static str = format!("{}/en", real.url).leak();
    let moved = site(Router::new().route("/", get(async move || Redirect::permanent(to)))).await;
    let (found, _) = crawl(&moved.url, options()).await;
    assert_eq!(found, ["/en", "/en/a"]);
}
