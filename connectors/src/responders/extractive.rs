//! Responder without an LLM: answers with the best passage of the tenant's documents, or not at all.
//!
//! Words decide if a passage answers, not the score it was found with: the score compares
//! passages of one search and does not show if the best of them is any good. So:
//! 1. The sentences of the turn that ask are the questions; where none has a question mark, all are.
//! 2. The words of a question are its subject: without stop words of its language, without
//!    courtesies, and without words of asking ("do you *sell* …", "I *need*
//!    …") unless there are no others. A greeting has no subject and gets no answer.
//! 3. A passage answers when more than half of the subject occurs in its text, headings or title; half is
//!    enough when a word of it is in the headings or the title, which name the passage's topic.
//!    Words are compared without case, accents and English endings.
//! 4. Of the passages that answer, the one with most of the subject is taken; of several, the one
//!    that was found first.
//!
//! A wrong answer costs more than none if a colleague takes over: hence more than half.
//!
//! The answer is the passage, or of a long one the few sentences that hold all that matched. Up to
//! three questions of a turn are answered, each once.

use std::collections::HashSet;

use async_trait::async_trait;
use heddle_schemas::ports::knowledge::Passage;
use heddle_schemas::ports::responder::{Answer, Question, Responder, ResponderError, Usage};

use crate::words::{Word, content_words, has_only_stop_words, sentences, words};

/// Answers from passages alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Extractive;

/// Maximum characters of an answer: readable at a glance on a telephone, and below every channel's limit.
const ANSWER: usize = 1_000;

/// Characters up to which a passage is answered whole.
const SHORT: usize = 400;

/// Adjacent sentences that stand for a long passage.
const SENTENCES: usize = 3;

/// Questions of one turn that are answered.
const QUESTIONS: usize = 3;

/// Maximum number of words of a question and of a passage that are compared.
const WORDS: usize = 64;
const PASSAGE_WORDS: usize = 2_000;

/// Characters of a turn that are read.
const TURN: usize = 16_384;

#[async_trait]
impl Responder for Extractive {
    fn calls_outside(&self) -> bool {
        false
    }

    async fn answer(&self, question: Question) -> Result<Answer, ResponderError> {
        Ok(answer(&question.messages, &question.passages))
    }
}

fn answer(messages: &[String], passages: &[Passage]) -> Answer {
    let said: String = messages.join("\n").chars().take(TURN).collect();
    let passages: Vec<_> = passages.iter().map(Read::new).collect();
    let mut texts: Vec<String> = Vec::new();
    let mut sources: Vec<String> = Vec::new();
    for subject in questions(&said).map(subject) {
        let Some(read) = best(&subject, &passages) else { continue };
        let text = excerpt(&subject, read);
        if texts.len() == QUESTIONS || texts.contains(&text) {
            continue;
        }
        texts.push(text);
        if !sources.contains(&read.passage.document) {
            sources.push(read.passage.document.clone());
        }
    }
    let text = (!texts.is_empty()).then(|| cut(&texts.join("\n\n")));
    Answer { text, sources, ..Answer::none(Usage::default()) }
}

/// Returns the sentences that are questions.
fn questions(said: &str) -> impl Iterator<Item = &str> {
    let asks = |sentence: &str| sentence.contains(['?', '？', '؟']);
    let any = sentences(said).any(asks);
    sentences(said).filter(move |sentence| !any || asks(sentence))
}

/// Returns the subject of a question.
fn subject(question: &str) -> Vec<Word> {
    if has_only_stop_words(question, WORDS) {
        return Vec::new();
    }
    let mut words = content_words(question, WORDS);
    if words.iter().all(|word| is_in(word, COURTESIES) || is_in(word, TIMES_OF_DAY)) {
        return Vec::new();
    }
    words.retain(|word| !is_in(word, COURTESIES));
    if words.iter().any(|word| !is_in(word, ASKING)) {
        words.retain(|word| !is_in(word, ASKING));
    }
    // Two words of one stem are one subject.
    let mut seen = HashSet::new();
    words.retain(|word| seen.insert(word.stem.clone()));
    words
}

fn is_in(word: &Word, list: &str) -> bool {
    list.split_ascii_whitespace().any(|listed| listed == word.folded)
}

/// A passage with its words.
struct Read<'a> {
    passage: &'a Passage,
    text: HashSet<String>,
    above: HashSet<String>,
}

impl<'a> Read<'a> {
    fn new(passage: &'a Passage) -> Self {
        let above = format!("{}\n{}", passage.title, passage.headings.join("\n"));
        Self { passage, text: forms(&passage.text), above: forms(&above) }
    }

    fn matches(&self, subject: &[Word]) -> usize {
        subject.iter().filter(|word| has(&self.text, word) || has(&self.above, word)).count()
    }

    fn answers(&self, subject: &[Word]) -> bool {
        let matched = self.matches(subject);
        let is_about = subject.iter().any(|word| has(&self.above, word));
        2 * matched > subject.len() || (is_about && matched > 0 && 2 * matched == subject.len())
    }
}

/// The words of a text and their stems.
fn forms(text: &str) -> HashSet<String> {
    words(text, PASSAGE_WORDS).into_iter().flat_map(|word| [word.folded, word.stem]).collect()
}

fn has(forms: &HashSet<String>, word: &Word) -> bool {
    forms.contains(&word.folded) || forms.contains(&word.stem)
}

fn best<'a, 'p>(subject: &[Word], passages: &'a [Read<'p>]) -> Option<&'a Read<'p>> {
    let answering = passages.iter().filter(|read| read.answers(subject));
    // `max_by_key` returns the last of equals, and the first is the better one.
    answering.rev().max_by_key(|read| read.matches(subject))
}

/// The passage, or the sentences of a long one that hold all of the subject that its text has. Where
/// it is the headings that answer, the text belongs together.
fn excerpt(subject: &[Word], read: &Read<'_>) -> String {
    let text = read.passage.text.trim();
    let in_text = subject.iter().filter(|word| has(&read.text, word)).count();
    if text.chars().count() <= SHORT || in_text < read.matches(subject) {
        return text.to_owned();
    }
    let sentences: Vec<_> = sentences(text).collect();
    let found: Vec<_> = sentences.iter().map(|sentence| forms(sentence)).collect();
    let holds = |window: &[HashSet<String>]| {
        subject.iter().filter(|word| window.iter().any(|forms| has(forms, word))).count() == in_text
    };
    let windows =
        (1..=SENTENCES).flat_map(|size| found.windows(size).enumerate().map(move |(at, w)| (at, size, w)));
    let shortest = windows.into_iter().find(|(_, _, window)| holds(window));
    let Some((at, size, _)) = shortest else { return text.to_owned() };
    // The sentences that follow explain more often than those before.
    let to = (at + SENTENCES.max(size)).min(sentences.len());
    sentences[at..to].concat().trim().to_owned()
}

/// Cuts a text to the length of an answer, at the end of a sentence, or else of a word.
fn cut(text: &str) -> String {
    if text.chars().count() <= ANSWER {
        return text.to_owned();
    }
    let limit: usize = text.chars().take(ANSWER).map(char::len_utf8).sum();
    let end_of = |parts: &mut dyn Iterator<Item = &str>| {
        let mut end = 0;
        for part in parts {
            if end + part.trim_end().len() > limit {
                break;
            }
            end += part.len();
        }
        end
    };
    let whole = end_of(&mut sentences(text));
    let end = if whole > 0 { whole } else { end_of(&mut text.split_inclusive(char::is_whitespace)) };
    let end = if end > 0 { end } else { limit };
    text[..end.min(text.len())].trim_end().to_owned()
}

/// Words of courtesy, which are never the subject.
const COURTESIES: &str = "
    hello hi hey hiya greetings thanks thank thx please pls sorry bye goodbye cheers
    hallo moin servus danke bitte tschuss gruss grusse liebe
    hola gracias favor saludos adios
    bonjour bonsoir salut merci plait svp
    ciao buongiorno buonasera salve grazie
    ola obrigado obrigada oi
    hoi dank alstublieft alsjeblieft bedankt";

/// Words that are a courtesy only in a greeting such as "good morning", without other words.
const TIMES_OF_DAY: &str = "
    good morning afternoon evening night day dear ok okay yes great fine nice
    guten gute morgen tag abend nacht schonen gut
    buenos buenas dias tardes noches vale
    bonne journee soiree oui
    buona giornata serata bom boa dia tarde noite sim
    goedemorgen goedemiddag goedenavond goede";

/// Words of asking, which are a subject only if there are no others.
const ASKING: &str = "
    sell sells selling offer offers offered provide provides want wants need needs know tell get give
    like looking look find help question questions ask asking information info possible available buy
    show explain say wonder wondering interested see come comes coming go goes going gets make take use thing things something
    anything anyone someone much many long often soon let got cost costs
    verkaufen verkauft verkaufst anbieten anbietet bieten bietet biete brauche brauchen wissen weiss sagen
    sag geben gib suche suchen hilfe helfen frage fragen informationen kaufen bekommen bekomme finden
    finde machen macht gern gerne wurde viel lange kostet kosten
    venden vende vendes ofrecen ofrece quiero quisiera queria gustaria necesito necesita saber decir
    decirme dime busco buscar ayuda ayudar pregunta informacion comprar encontrar hacer hacen cuesta cuestan
    vendez vendre proposez proposer offrez voudrais voudrions veux aimerais besoin savoir dire cherche
    aide aider renseignement renseignements acheter trouver faire faites coute coutent
    vendete vendere offrite vorrei voglio bisogno sapere dire cerco aiuto domanda informazioni comprare costa costano
    vendem oferecem quero queria gostaria preciso saber dizer procuro ajuda comprar custa custam
    verkopen verkoopt aanbieden graag weten zoek hulp vraag kopen kost kosten";

#[cfg(test)]
mod tests;
