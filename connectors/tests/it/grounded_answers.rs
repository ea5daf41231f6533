//! A clinic's documents, put as files, searched and answered from, as a customer sees it.

use std::num::NonZeroU32;
use std::sync::Arc;

use heddle_connectors::keys::{self, EnvelopeKeys, MasterKey};
use heddle_connectors::knowledge::extract::File;
use heddle_connectors::knowledge::extract::process::{self, Extractor};
use heddle_connectors::knowledge::{Options, TantivyKnowledge};
use heddle_connectors::responders::Extractive;
use heddle_memory::{ManualClock, MemoryDisk, MemoryStore};
use heddle_schemas::id::{MessageKey, TenantId, TurnId};
use heddle_schemas::ports::knowledge::Knowledge;
use heddle_schemas::ports::responder::{Outgoing, Question, Responder};
use heddle_schemas::tenant::Tenant;
use heddle_schemas::time::Timestamp;

const FAQ: &str = "\
---
owner: front desk
---

# Acme Clinic: frequently asked questions

## Opening hours

| Day | Hours |
|---|---|
| Monday to Friday | 9:00 to 17:00 |
| Saturday | 10:00 to 13:00 |

We are closed on **Sundays** and public holidays.

## Where to find us

We are at 12 Harbour Street, two minutes from the central station.

### Parking

There is a free car park behind the building. The gate opens with the code 4711.

## Appointments

### Booking

Book [online](https://acme.example/book) or call us. New patients should bring an insurance card.

### Cancelling

You can cancel or move an appointment up to 24 hours before it starts. After that we charge 30 euros.

## Paying

We take cash, debit cards and all major credit cards. Insurance is billed directly.
";

const PRICES: &str = "\
Prices of the Acme Clinic, valid from January.

A professional cleaning costs 60 euros.

A check-up costs 40 euros, for children under twelve it is free.

Whitening costs 250 euros and takes about an hour.
";

const DEUTSCH: &str = "\
# Häufige Fragen

## Öffnungszeiten

Wir haben Montag bis Freitag von 9 bis 17 Uhr geöffnet.

## Termine absagen

Termine können bis 24 Stunden vorher kostenlos abgesagt werden.
";

struct Clinic {
    knowledge: TantivyKnowledge,
    id: TenantId,
    tenant: Arc<Tenant>,
}

impl Clinic {
    async fn open() -> Self {
        let clock = Arc::new(ManualClock::starting_at(Timestamp::from_secs(1_767_225_600)));
        let state = Arc::new(MemoryStore::open(MemoryDisk::new(NonZeroU32::MIN), clock.clone()));
        let master = MasterKey::from_base64("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let keys = EnvelopeKeys::new(state.clone(), clock, &master, keys::Options::default());
        let knowledge = TantivyKnowledge::new(state, Arc::new(keys), &Options::default());
        let tenant = Tenant::from_toml("id = \"acme\"\nname = \"Acme Clinic\"").unwrap();
        let files = Extractor::new(process::Options::default());
        for (name, text) in [("faq.md", FAQ), ("prices.txt", PRICES), ("fragen.md", DEUTSCH)] {
            let file = File { id: name.into(), title: None, content_type: None, bytes: text.into() };
            let document = files.document(files.place().await, file).await.unwrap();
            knowledge.put(&tenant.id, document).await.unwrap();
        }
        Self { knowledge, id: tenant.id.clone(), tenant: Arc::new(tenant) }
    }

    async fn ask(&self, message: &str) -> Option<String> {
        let passages = self.knowledge.search(&self.id, message, 5).await.unwrap();
        let question = Question {
            at: Timestamp::EPOCH,
            tools: Vec::new(),
            steps: Vec::new(),
            outgoing: Outgoing::default(),
            other_names: Vec::new(),
            tenant: self.tenant.clone(),
            turn: TurnId(MessageKey::from_bytes([1; 16])),
            attempt: 1,
            messages: vec![message.to_owned()],
            history: Vec::new(),
            passages,
            name: None,
        };
        Extractive.answer(question).await.unwrap().text
    }
}

#[tokio::test]
async fn customers_get_the_documents_answers() {
    let clinic = Clinic::open().await;
    let answers = [
        ("What are your opening hours?", "Day: Monday to Friday; Hours: 9:00 to 17:00"),
        ("are you open on saturday", "Day: Saturday; Hours: 10:00 to 13:00"),
        ("Do you open on Sundays?", "closed on Sundays"),
        ("Hi there, where can I park my car?", "free car park behind the building"),
        ("How can I book an appointment?", "online (https://acme.example/book)"),
        ("I need to cancel my appointment", "up to 24 hours before"),
        ("Do you accept credit cards?", "all major credit cards"),
        ("can i pay by card?", "debit cards"),
        ("How much is a cleaning?", "60 euros"),
        ("how much does whitening cost", "250 euros"),
        ("Wie sind eure Öffnungszeiten?", "Montag bis Freitag von 9 bis 17 Uhr"),
        ("Wie kann ich einen Termin absagen?", "bis 24 Stunden vorher"),
    ];
    let mut wrong = Vec::new();
    for (question, expected) in answers {
        let answer = clinic.ask(question).await;
        if !answer.as_deref().unwrap_or_default().contains(expected) {
            wrong.push((question, answer));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn customers_get_a_colleague_where_the_documents_say_nothing() {
    let clinic = Clinic::open().await;
    let unknown = [
        "hello",
        "Good morning!",
        "Thank you very much!",
        "Do you sell spaceships?",
        "What is the meaning of life?",
        "Can I talk to a human being please",
        "Who won the world cup?",
        "Verkauft ihr Raumschiffe?",
        "¿Hablan español?",
        "👍👍",
    ];
    let mut wrong = Vec::new();
    for question in unknown {
        if let Some(answer) = clinic.ask(question).await {
            wrong.push((question, answer));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
