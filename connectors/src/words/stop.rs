//! Words that carry no subject: articles, pronouns, prepositions, auxiliaries, question words.
//!
//! Short lists in the spelling of [`super::Word::folded`], for the languages that customers of the
//! first tenants write. A language without a list loses only a little precision: its stop
//! words are searched for like any other, and weigh little because they are everywhere.

use std::collections::HashSet;
use std::sync::LazyLock;

use super::Word;

/// The stop words of a language.
pub(super) type Stops = HashSet<&'static str>;

/// The stop words of the language that most of these words are stop words of; where two have as
/// many, of the first.
pub(super) fn of_language_of(words: &[Word]) -> &'static Stops {
    let hits = |stops: &Stops| words.iter().filter(|word| stops.contains(word.folded.as_str())).count();
    let [first, others @ ..] = &*LANGUAGES;
    let first = (hits(first), first);
    others
        .iter()
        .map(|stops| (hits(stops), stops))
        .fold(first, |best, next| if next.0 > best.0 { next } else { best })
        .1
}

static LANGUAGES: LazyLock<[Stops; 7]> =
    LazyLock::new(|| LISTS.map(|list| list.split_ascii_whitespace().collect()));

const LISTS: [&str; 7] = [ENGLISH, GERMAN, SPANISH, FRENCH, PORTUGUESE, ITALIAN, DUTCH];

const ENGLISH: &str = "
    a about after all also am an and any are aren as at be been before being but by can could d did
    didn do does doesn doing don down during each few for from further had has have having he her here
    hers him his how i if in into is isn it its just ll m me might more most must my no nor not of off
    on once only or other our ours out over own re s same shall she should so some such t than that
    the their theirs them then there these they this those through to too under until up us ve very
    was we were what when where which while who whom whose why will with would you your yours";

const GERMAN: &str = "
    aber alle als also am an auch auf aus bei beim bin bis bist da damit dann das dass dein deine dem
    den denn der des dich die dies diese dieser dir doch du durch ein eine einem einen einer eines er
    es etwas euch euer eure eurem euren eurer fur gibt habe haben habt hat hatte hatten ich ihm ihn
    ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jeder jedes kann kannst konnen konnte
    konnten mal man mein meine meinem meinen meiner mich mir mit mochte mochten muss mussen nach nicht
    noch nun nur ob oder ohne sein seine sich sie sind so soll sollen sollte uber um und uns unser
    unsere unserem unseren unter vom von vor wann war waren warum was weil welche welchem welchen
    welcher welches wem wen wenn wer werde werden wie wieso wieviel wir wird wo woher wohin wurde
    wurden zu zum zur";

const SPANISH: &str = "
    a al algo alguna algun algunas algunos ante aqui asi aun con como cual cuales cuando cuanta
    cuantas cuanto cuantos de del desde donde dos e el ella ellas ellos en entre era es esa esas ese
    eso esos esta estan estamos estas este esto estoy estos fue ha han hasta hay he la las le les lo
    los mas me mi mis mucho muy nada ni no nos nosotros nuestra nuestro o os otra otro para pero poder
    podria por porque puede pueden puedo que quien quienes se sea ser si sin sobre son soy su sus
    tambien te tengo tiene tienen tienes toda todas todo todos tu tus u un una unas uno unos usted
    ustedes vosotros vuestra vuestras vuestro vuestros y ya yo";

const FRENCH: &str = "
    a ai au aux avec avez avoir avons c ca ce ces cet cette chez combien comme comment d dans de des
    du elle elles en es est et etes etre eu il ils j je l la le les leur leurs lui m ma mais me mes
    moi mon n ne nos notre nous on ont ou par pas peut peux plus pour pourquoi pouvez qu quand que
    quel quelle quelles quels qui quoi s sa sans se ses si son sont suis sur t ta te tes toi ton tu un
    une vos votre vous y";

const PORTUGUESE: &str = "
    a ao aos as ate com como da das de dela dele do dos e ela elas ele eles em entre era essa esse
    esta estao estas este estou eu foi ha isso isto ja lhe mais mas me meu meus minha minhas muito na
    nao nas nem no nos nossa nosso num numa o onde os ou para pela pelas pelo pelos pode podem por
    porque posso qual quais quando quanta quanto quantos que quem se sem ser seu seus so sou sua suas
    tambem te tem tenho teu tu tua um uma umas uns voce voces";

const ITALIAN: &str = "
    a ad agli ai al alla alle allo anche avete c che chi ci come con cosa da dai dal dalla de degli
    dei del della delle dello di dove e ed era essere fa fino gli ha hai hanno ho i il in io l la le
    lei li lo loro lui ma me mi mia mie mio miei ne negli nei nel nella nelle no noi non nostra nostro
    o per perche piu posso puo qual quale quali quando quanta quanto quanti quella quelle quello
    questa queste questo questi se sei si siamo siete sono su sua sue sui sul sulla suo suoi ti tra tu
    tua tuo un una uno vi voi vostra vostre vostri vostro";

const DUTCH: &str = "
    aan al alle als ben bent bij daar dan dat de deze die dit doe door dus een en er geen had heb
    hebben hebt heeft hem het hij hoe hoeveel hun ik in is ja je jij jou jouw jullie kan kun kunnen
    kunt maar me meer met mij mijn mogen moet moeten na naar niet nog nu of om omdat onder ons onze ook
    op over te tegen toch tot uit uw van veel voor waar waarom wanneer want waren was wat we welk
    welke werd wie wij wil worden wordt zal ze zich zij zijn zo zonder zou";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_list_is_spelled_as_words_are() {
        for list in LISTS {
            let folded: Vec<_> = super::super::words(list, 1_000).into_iter().map(|w| w.folded).collect();
            let written: Vec<_> = list.split_ascii_whitespace().collect();
            assert_eq!(folded, written, "twice, or not folded");
        }
    }

    #[test]
    fn a_text_without_stop_words_counts_as_english() {
        assert!(of_language_of(&[]).contains("the"));
    }
}
