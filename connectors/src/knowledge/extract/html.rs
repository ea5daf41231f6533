//! Reader of HTML as people see it: the page's own words with their headings, lists and tables.
//!
//! Scripts, styles, navigation, forms and what is hidden are left out. Of a page that marks its main part, or
//! else its articles, only these are taken. The tokens of the HTML standard are read one after another
//! (html5ever's tokenizer) and no tree is built, so depth costs nothing and a page takes memory and time in
//! proportion to its length.

use std::cell::RefCell;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, Tag, TagKind, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};

use super::outline::Outline;
use super::{Extracted, Refusal, too_much_text};

/// Elements that are not about the page's subject.
const LEFT_OUT: [&str; 21] = [
    "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "canvas", "audio", "video",
    "nav", "footer", "aside", "button", "select", "textarea", "datalist", "dialog", "noframes", "noembed",
];

/// Elements that have no end (HTML standard, 13.1.2).
const VOID: [&str; 14] = [
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track",
    "wbr",
];

/// Elements within a line; every other one begins and ends a block.
const INLINE: [&str; 34] = [
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "ins", "kbd", "label", "mark", "q", "rp", "rt", "ruby", "s", "samp", "small", "span", "strike",
    "strong", "sub", "sup", "time", "u", "var",
];

/// Bytes at the beginning in which a page states its encoding (HTML standard, 13.2.3.2).
const PRESCANNED: usize = 1024;

/// A link of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::knowledge) struct Link {
    pub(in crate::knowledge) href: String,
}

/// Links of a page and its wishes for crawlers.
#[derive(Debug, Default)]
pub(in crate::knowledge) struct Links {
    pub(in crate::knowledge) base: Option<String>,
    pub(in crate::knowledge) links: Vec<Link>,
    /// `<meta name="robots">` asks not to be found.
    pub(in crate::knowledge) no_index: bool,
    /// It asks that its links are not followed.
    pub(in crate::knowledge) no_follow: bool,
}

/// Reads a page. `charset` is the encoding that its server stated.
pub(super) fn extract(bytes: &[u8], charset: Option<&str>, most: usize) -> Result<Extracted, Refusal> {
    let text = decode(bytes, charset);
    let page = Sink::new(most, false);
    let page = tokenize(&text, page);
    if page.overflown {
        return Err(too_much_text(most));
    }
    let Page { title, parts: [whole, article, main], .. } = page;
    let parts = [main, article, whole].map(|part| part.finish(most));
    let text = parts.into_iter().find(|text| text.chars().any(char::is_alphanumeric));
    let text = text.ok_or_else(|| "it is a page without any text of its own".to_owned())?;
    Ok(Extracted::markdown(Some(title), text))
}

/// Returns the links of a page, and its wishes for crawlers.
pub(in crate::knowledge) fn links(bytes: &[u8], charset: Option<&str>) -> Links {
    tokenize(&decode(bytes, charset), Sink::new(0, true)).links
}

fn tokenize(text: &str, sink: Sink) -> Page {
    let tokenizer = Tokenizer::new(sink, TokenizerOpts::default());
    let input = BufferQueue::default();
    input.push_back(StrTendril::from_slice(text));
    while !input.is_empty() {
        // It pauses at the end of a script and for encodings; neither changes what follows here.
        drop(tokenizer.feed(&input));
    }
    tokenizer.end();
    let mut page = tokenizer.sink.page.into_inner();
    page.end_block();
    page
}

/// Decodes the text of a page. Sources of the encoding, in this order: its byte order mark, its server and the page
/// (HTML standard, 13.2.3.1); without any it is UTF-8 if it can be.
fn decode(bytes: &[u8], charset: Option<&str>) -> String {
    let stated = charset.and_then(|label| Encoding::for_label(label.as_bytes()));
    let encoding = stated.or_else(|| prescan(&bytes[..bytes.len().min(PRESCANNED)]));
    let guess = || if std::str::from_utf8(bytes).is_ok() { UTF_8 } else { WINDOWS_1252 };
    encoding.unwrap_or_else(guess).decode(bytes).0.into_owned()
}

fn prescan(head: &[u8]) -> Option<&'static Encoding> {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let (_, after) = head.split_once("charset=")?;
    let label: String = after
        .trim_start_matches(['"', '\'', ' '])
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || "-_:".contains(*c))
        .collect();
    let encoding = Encoding::for_label(label.as_bytes())?;
    // A page whose head could be read byte by byte is not UTF-16, whatever it states.
    Some(if encoding.is_ascii_compatible() { encoding } else { UTF_8 })
}

struct Sink {
    page: RefCell<Page>,
}

impl Sink {
    fn new(most: usize, only_links: bool) -> Self {
        Self { page: RefCell::new(Page { most, only_links, ..Page::default() }) }
    }
}

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        let page = &mut *self.page.borrow_mut();
        match token {
            Token::TagToken(tag) => {
                page.tag(&tag);
                if tag.kind == TagKind::StartTag {
                    return raw(&tag.name);
                }
            }
            Token::CharacterTokens(text) => page.text(&text),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// Elements whose text is not markup (HTML standard, 13.2.6).
fn raw(name: &str) -> TokenSinkResult<()> {
    match name {
        "script" => TokenSinkResult::RawData(RawKind::ScriptData),
        "style" | "noscript" | "iframe" | "noembed" | "noframes" | "xmp" => {
            TokenSinkResult::RawData(RawKind::Rawtext)
        }
        "title" | "textarea" => TokenSinkResult::RawData(RawKind::Rcdata),
        "plaintext" => TokenSinkResult::Plaintext,
        _ => TokenSinkResult::Continue,
    }
}

/// Content of a page that has been read.
#[derive(Default)]
struct Page {
    most: usize,
    only_links: bool,
    overflown: bool,
    title: String,
    in_title: bool,
    /// The element that is left out, and its depth within itself.
    left_out: Option<(String, usize)>,
    heading: Option<u8>,
    in_pre: bool,
    /// The block under way.
    text: String,
    /// Target of the link around, and its beginning in the text.
    link: Option<(usize, String)>,
    /// Number of elements around that mark an article or the main part.
    articles: usize,
    mains: usize,
    /// The whole page, its articles, its main part.
    parts: [Part; 3],
    links: Links,
}

/// A part of the page and the lists and tables open in it.
#[derive(Default)]
struct Part(Outline);

impl Part {
    fn finish(self, most: usize) -> String {
        let mut text = self.0.finish();
        text.truncate(text.floor_char_boundary(most));
        text
    }
}

impl Page {
    fn tag(&mut self, tag: &Tag) {
        let name: &str = &tag.name;
        let starts = tag.kind == TagKind::StartTag;
        if starts {
            self.note_links(tag);
        }
        if self.only_links || self.overflown {
            return;
        }
        if let Some((left_out, depth)) = &mut self.left_out {
            if name == left_out && !VOID.contains(&name) {
                *depth = if starts { *depth + 1 } else { *depth - 1 };
            }
            let is_over = *depth == 0;
            // An unclosed navigation ends where the main part begins.
            let is_main = starts && name == "main" && !matches!(left_out.as_str(), "script" | "style");
            if is_over || is_main {
                self.left_out = None;
            }
            if !is_main {
                return;
            }
        }
        if starts && is_left_out(tag) && !VOID.contains(&name) && !tag.self_closing {
            if !INLINE.contains(&name) {
                self.end_block();
            }
            self.left_out = Some((name.to_owned(), 1));
            return;
        }
        if starts { self.start(name, tag) } else { self.end(name) }
    }

    fn start(&mut self, name: &str, tag: &Tag) {
        if !INLINE.contains(&name) && !matches!(name, "br" | "img" | "wbr" | "input") {
            self.end_block();
        }
        match name {
            "title" => self.in_title = self.title.is_empty(),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.heading = name[1..].parse().ok(),
            "article" => self.articles += 1,
            "main" => self.mains += 1,
            "br" => self.text.push('\n'),
            "pre" | "xmp" | "plaintext" => self.in_pre = true,
            "ul" | "menu" => self.each(|outline| outline.begin_list(None)),
            "ol" => {
                let first = attribute(tag, "start").and_then(|first| first.trim().parse().ok()).unwrap_or(1);
                self.each(|outline| outline.begin_list(Some(first)));
            }
            "li" => self.each(Outline::begin_item),
            "table" => self.each(Outline::begin_table),
            "tr" => self.each(Outline::begin_row),
            "td" | "th" => self.each(|outline| outline.begin_cell(name == "th")),
            "a" => {
                self.end_link();
                if let Some(href) = attribute(tag, "href") {
                    self.link = Some((self.text.len(), href.trim().to_owned()));
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if name == "a" {
            self.end_link();
        } else if !INLINE.contains(&name) {
            self.end_block();
        }
        match name {
            "title" => self.in_title = false,
            "article" => self.articles = self.articles.saturating_sub(1),
            "main" => self.mains = self.mains.saturating_sub(1),
            "pre" | "xmp" => self.in_pre = false,
            "ul" | "ol" | "menu" => self.each(Outline::end_list),
            "table" => self.each(Outline::end_table),
            _ => {}
        }
    }

    fn text(&mut self, text: &str) {
        if self.only_links || self.overflown || self.left_out.is_some() {
            return;
        }
        if self.in_title {
            self.title.push_str(text);
            return;
        }
        if self.in_pre {
            self.text.push_str(text);
        } else {
            // A line's end in the file is a space to a reader.
            self.text.extend(text.chars().map(|c| if c.is_ascii_whitespace() { ' ' } else { c }));
        }
        if self.text.len() > self.most {
            self.overflown = true;
        }
    }

    /// Appends the target of a link that leaves the page's own site, as with Markdown.
    fn end_link(&mut self) {
        let Some((from, address)) = self.link.take() else { return };
        let address = address.strip_prefix("mailto:").or(address.strip_prefix("tel:")).unwrap_or(&address);
        let leads_outside = address.contains("://") || address.contains('@') || address.starts_with('+');
        let shown = self.text.get(from..).unwrap_or_default();
        if leads_outside && self.heading.is_none() && !shown.trim().is_empty() && !shown.contains(address) {
            let end = self.text.trim_end().len();
            self.text.insert_str(end, &format!(" ({address})"));
        }
    }

    fn end_block(&mut self) {
        self.end_link();
        let text = std::mem::take(&mut self.text);
        let heading = self.heading.take();
        if text.trim().is_empty() {
            // Of a heading with a block in it, the block's text is the heading.
            self.heading = heading;
            return;
        }
        let in_pre = self.in_pre;
        self.each(|outline| match heading {
            Some(level) => outline.heading(level, &text),
            None if in_pre => outline.code(&text),
            None => outline.paragraph(&text),
        });
        self.overflown |= self.parts[0].0.len() > self.most;
    }

    /// Does it to the whole page, and to its main parts within these.
    fn each(&mut self, act: impl Fn(&mut Outline)) {
        let within = [true, self.articles > 0, self.mains > 0];
        self.parts
            .iter_mut()
            .zip(within)
            .filter(|(_, within)| *within)
            .for_each(|(part, _)| act(&mut part.0));
    }

    fn note_links(&mut self, tag: &Tag) {
        let value = |name| attribute(tag, name).map(|value| value.trim().to_owned());
        let has = |name, word: &str| {
            value(name)
                .is_some_and(|value| value.to_ascii_lowercase().split([',', ' ']).any(|one| one == word))
        };
        match &*tag.name {
            "base" if self.links.base.is_none() => self.links.base = value("href"),
            "meta" if value("name").is_some_and(|name| name.eq_ignore_ascii_case("robots")) => {
                self.links.no_index |= has("content", "noindex") || has("content", "none");
                self.links.no_follow |= has("content", "nofollow") || has("content", "none");
            }
            "a" | "area" if self.only_links && !has("rel", "nofollow") => {
                if let Some(href) = value("href") {
                    self.links.links.push(Link { href });
                }
            }
            _ => {}
        }
    }
}

fn is_left_out(tag: &Tag) -> bool {
    let is = |name, value: &str| attribute(tag, name).is_some_and(|found| found.eq_ignore_ascii_case(value));
    LEFT_OUT.contains(&&*tag.name)
        || attribute(tag, "hidden").is_some()
        || is("aria-hidden", "true")
        || is("role", "navigation")
}

fn attribute<'a>(tag: &'a Tag, name: &str) -> Option<&'a str> {
    tag.attrs.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 1 << 20;

    fn page(html: &str) -> Extracted {
        extract(html.as_bytes(), None, MOST).unwrap()
    }

    #[test]
    fn a_page_keeps_its_structure_and_loses_its_surroundings() {
        let html = "<!DOCTYPE html><html><head><title> Acme &amp; Sons </title><style>b{}</style></head>\
            <body><nav><a href=/>Home</a></nav><script>var a = '<p>no</p>';</script>\
            <h1>Opening\n hours</h1><p>Nine to <b>fi</b>ve.<br>Closed on <i>Sunday</i>.\
            <ul><li>Mon<li>Tue<ol><li>am</ol></ul><div hidden>secret</div>\
            <table><tr><th>Service<th>Price<tr><td>Cleaning<td>60 &euro;</table>\
            <p>Call <a href=\"tel:+4930\">us</a>.</p><pre>a\n  b</pre><footer>Imprint</footer>";
        let page = page(html);
        assert_eq!(page.title.as_deref(), Some("Acme & Sons"));
        let expected = "# Opening hours\n\nNine to five.\\\nClosed on Sunday.\n\n- Mon\n- Tue\n  1. am\n\n<!-- -->\n\n\
            | Service | Price |\n| --- | --- |\n| Cleaning | 60 € |\n\nCall us (+4930).\n\n```\na\n  b\n```\n";
        assert_eq!(page.text, expected);
    }

    #[test]
    fn of_a_page_with_a_main_part_only_this_is_read() {
        let html = "<div>Cookies!</div><nav>x<main><h2>Prices</h2><p>40 euros</main><p>Related pages";
        assert_eq!(page(html).text, "## Prices\n\n40 euros\n");
        let html = "<div>Cookies!</div><article><p>40 euros</article><p>Related pages";
        assert_eq!(page(html).text, "40 euros\n");
    }

    #[test]
    fn a_page_without_words_is_refused() {
        let why = extract(b"<body><script>render()</script><div id=app></div>", None, MOST).unwrap_err();
        assert!(why.contains("without any text"), "{why}");
    }

    #[test]
    fn a_page_is_read_in_the_encoding_it_states() {
        let latin = b"<meta charset=iso-8859-1><p>caf\xe9";
        assert_eq!(extract(latin, None, MOST).unwrap().text, "café\n");
        assert_eq!(extract(b"<p>caf\xe9", None, MOST).unwrap().text, "café\n");
        assert_eq!(extract("<p>café".as_bytes(), None, MOST).unwrap().text, "café\n");
        assert_eq!(
            extract(b"<p>\xcf\xf0\xe8\xe2\xe5\xf2", Some("windows-1251"), MOST).unwrap().text,
            "Привет\n"
        );
    }

    #[test]
    fn a_hundred_thousand_nested_tags_cost_no_more_than_their_length() {
        for tag in ["div", "b", "ul><li", "table><tr><td", "blockquote", "h1"] {
            let html = format!("{}the end", format!("<{tag}>").repeat(100_000));
            assert!(page(&html).text.contains("the end"), "{tag}");
        }
    }

    #[test]
    fn more_text_than_may_be_kept_is_refused() {
        let html = "<p>word</p>".repeat(1_000);
        assert!(extract(html.as_bytes(), None, 1_000).unwrap_err().contains("more than 1000 bytes"));
    }

    #[test]
    fn links_are_those_that_may_be_followed() {
        let html = "<base href=/en/><meta name=Robots content='NOINDEX, follow'><a href=a.html>a</a>\
            <a rel='nofollow me' href=b.html>b</a><nav><a href=' c.html '>c</a></nav>";
        let found = links(html.as_bytes(), None);
        let hrefs: Vec<_> = found.links.iter().map(|link| link.href.as_str()).collect();
        assert_eq!(hrefs, ["a.html", "c.html"]);
        assert_eq!((found.base.as_deref(), found.no_index, found.no_follow), (Some("/en/"), true, false));
    }
}
